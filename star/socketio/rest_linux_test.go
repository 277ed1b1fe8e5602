package socketio

import (
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/parley-p2p/parley/star/socketio/ws"
)

func stacks() int {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// A session that only pings has the smallest stack there is, where a reader
// that has served anything keeps twice that.
func TestRestingStackIsSmall(t *testing.T) {
	r := newResting(t)
	const n = 256
	before := stacks()
	var all []*ws.Conn
	var socks []*Socket
	for range n {
		c, s := r.connect()
		all, socks = append(all, c), append(socks, s)
	}
	for range 3 {
		r.settle(socks...)
		for _, c := range all {
			if _, err := c.NetConn().Write(frames(ws.Text, "2")); err != nil {
				t.Fatal(err)
			}
			if got := r.read(c); got != "1 3" {
				t.Fatalf("a ping is answered with %q", got)
			}
		}
	}
	if each := (stacks() - before) / n; each > smallStack {
		t.Errorf("the stack of a session that rests takes %d bytes", each)
	}
	for _, s := range socks {
		if s.awake.Load() {
			t.Fatal("a reader that had only pings does not rest")
		}
	}
}
