package gateway_test

import (
	"net"
	"runtime"
	"testing"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// TestMemory_IdleSession prints what an idle v2 session costs, its socket
// included, and fails far above what was measured (some 30 KB).
func TestMemory_IdleSession(t *testing.T) {
	const n, limit = 300, 60 << 10
	s := gatewaytest.Start(t)
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	pages := make([]net.Conn, n)
	before := used()
	for i := range pages {
		r := dialRaw(t, s, "Sec-WebSocket-Protocol", v2.Subprotocol)
		r.send(frame(fin|opBinary, string(v2.AppendHello(nil, v2.HelloFrame{Version: 2}))))
		if _, _, err := r.read(); err != nil {
			t.Fatal(err)
		}
		start := v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "protocol"), "chat")
		r.send(frame(fin|opBinary, string(v2.AppendRequest(nil, 1, "start", start))))
		if _, _, err := r.read(); err != nil {
			t.Fatal(err)
		}
		r.br = nil // the page's own buffer doesn't count
		pages[i] = r.conn
	}
	each := (used() - before) / n
	t.Logf("%d bytes a session", each)
	if each > limit {
		t.Errorf("an idle session costs %d bytes, limit %d", each, limit)
	}
	for _, c := range pages {
		_ = c.Close()
	}
}
