package socketio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// mirror sends every event back.
type mirror struct{ left chan error }

func (m *mirror) Event(s *Socket, e *Event) error {
	text := fmt.Appendf(nil, `42["%s"]`, e.Name)
	if len(e.Data) > 0 {
		text = fmt.Appendf(nil, `42["%s",%d]`, e.Name, len(e.Data[0]))
	}
	return s.Send(flow.Bulk, Msg{Text: text, By: s.Flusher()})
}

func (m *mirror) Binary(*Socket, []byte, []byte, **ws.Buf) bool { return false }

func (m *mirror) Disconnected(_ *Socket, reason error) {
	select {
	case m.left <- reason:
	default:
	}
}

// resting is a server on TCP: only there readers rest. Its time is the test's: it is
// run at its end alone.
type resting struct {
	t    testing.TB
	now  time.Time
	srv  *Server
	hand *mirror
	addr string
}

func newResting(t testing.TB) *resting {
	r := &resting{t: t, now: time.Now(), hand: &mirror{left: make(chan error, 1)}}
	r.srv = NewServer(Options{Handler: r.hand})
	hs := httptest.NewServer(r.srv)
	r.addr = strings.TrimPrefix(hs.URL, "http://")
	t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.srv.Run(over)
		hs.Close()
		if used := r.srv.Memory().Used(); used != 0 {
			t.Errorf("%d bytes are still lent", used)
		}
	})
	return r
}

// connect opens a WebSocket by hand, without a goroutine, and gives the server's end
// of it, too.
func (r *resting) connect() (*ws.Conn, *Socket) {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	fmt.Fprintf(nc, "GET /socket.io/?EIO=3&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	for answer, one := []byte(nil), make([]byte, 1); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); answer = append(answer, one[0]) {
		if _, err := io.ReadFull(nc, one); err != nil {
			r.t.Fatal(err)
		}
	}
	c := ws.NewConn(nc, false, nil, 1<<20, &ws.Memory{})
	r.t.Cleanup(c.Release)
	_, sid, _ := strings.Cut(r.read(c), `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	r.read(c)
	return c, r.srv.find(sid)
}

func (r *resting) read(c *ws.Conn) string {
	r.t.Helper()
	m, err := c.Read()
	if err != nil {
		r.t.Fatal(err)
	}
	defer m.Buf.Free()
	return fmt.Sprintf("%d %s", m.Op, m.Data)
}

// settle waits until the readers of all rest.
func (r *resting) settle(all ...*Socket) {
	r.now = r.now.Add(restAfter)
	for slices.ContainsFunc(all, func(s *Socket) bool { return s.awake.Load() }) {
		r.now = r.now.Add(100 * time.Millisecond) // also where a sweep still sees something of what was
		r.srv.sweep(r.now)
		<-time.After(time.Millisecond)
	}
}

func frames(of ...any) []byte {
	c, away := net.Pipe()
	defer c.Close()
	b := ws.NewConn(c, false, nil, 1, &ws.Memory{}).Batch()
	for i := 0; i < len(of); i += 2 {
		b.Add(of[i].(ws.Opcode), []byte(of[i+1].(string)))
	}
	all := make(chan []byte)
	go func() {
		raw, _ := io.ReadAll(away)
		all <- raw
	}()
	_ = b.Flush(nil)
	c.Close()
	return <-all
}

// Whatever comes to a connection whose reader rests is served as ever, and
// afterwards it rests again.
func TestReaderRests(t *testing.T) {
	r := newResting(t)
	c, s := r.connect()
	big := strings.Repeat("x", 64<<10)
	event := frames(ws.Text, `42["event"]`)
	for _, tt := range []struct {
		name string
		in   [][]byte // writes
		want []string
	}{
		{"a ping", [][]byte{frames(ws.Text, "2")}, []string{"1 3"}},
		{"a ping in pieces", [][]byte{frames(ws.Text, "2")[:1], nil}, []string{"1 3"}},
		{"two pings", [][]byte{frames(ws.Text, "2", ws.Text, "2")}, []string{"1 3", "1 3"}},
		{"a ping with data", [][]byte{frames(ws.Text, "2data")}, []string{"1 3data"}},
		{"a noop", [][]byte{frames(ws.Text, "6"), frames(ws.Text, "2")}, []string{"1 3"}},
		{"a ping and an event", [][]byte{frames(ws.Text, "2", ws.Text, `42["event"]`)}, []string{"1 3", `1 42["event"]`}},
		{"an event", [][]byte{event}, []string{`1 42["event"]`}},
		{"an event in pieces", [][]byte{event[:9], event[9:]}, []string{`1 42["event"]`}},
		{"a chunk", [][]byte{frames(ws.Text, `451-["event",{"_placeholder":true,"num":0}]`, ws.Binary, "\x04"+big)}, []string{`1 42["event",65536]`}},
		{"a ping of WebSocket", [][]byte{frames(ws.Ping, "p")}, []string{"10 p"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 {
				r.settle(s)
				for _, piece := range tt.in {
					if piece == nil { // the rest of the ping, once its first byte was read
						for !s.awake.Load() {
							<-time.After(time.Millisecond)
						}
						piece = frames(ws.Text, "2")
						piece = piece[1:]
					}
					if _, err := c.NetConn().Write(piece); err != nil {
						t.Fatal(err)
					}
				}
				for _, want := range tt.want {
					if got := r.read(c); got != want {
						t.Fatalf("%.60s, want %s", got, want)
					}
				}
			}
		})
	}
}

// A connection whose reader rests ends like any other: by its own end, by a goodbye,
// and by the server's.
func TestReaderRestsAndEnds(t *testing.T) {
	r := newResting(t)
	for name, end := range map[string]func(c *ws.Conn, s *Socket){
		"cut":      func(c *ws.Conn, _ *Socket) { c.NetConn().Close() },
		"closed":   func(c *ws.Conn, _ *Socket) { _, _ = c.NetConn().Write(frames(ws.Close, "\x03\xe8")) },
		"finished": func(_ *ws.Conn, s *Socket) { s.Close(ws.CodeGoingAway, ErrEnded) },
		"silent": func(_ *ws.Conn, s *Socket) {
			r.now = r.now.Add(time.Minute)
			r.srv.sweep(r.now) // longer than a client may say nothing
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := r.connect()
			r.settle(s)
			end(c, s)
			if reason := <-r.hand.left; reason == nil || errors.Is(reason, ws.ErrTired) {
				t.Errorf("it ended by %v", reason)
			}
		})
	}
}

// What others send to a socket whose reader rests leaves, before and after a pong.
func TestSentToOneThatRests(t *testing.T) {
	r := newResting(t)
	c, s := r.connect()
	r.settle(s)
	const n = 200
	var sending sync.WaitGroup
	sending.Go(func() {
		for range n {
			_ = s.Send(flow.Control, Msg{Text: []byte(`42["told"]`)})
		}
	})
	for range n {
		if _, err := c.NetConn().Write(frames(ws.Text, "2")); err != nil {
			t.Fatal(err)
		}
	}
	heard := map[string]int{}
	for range 2 * n {
		heard[r.read(c)]++
	}
	sending.Wait()
	if heard["1 3"] != n || heard[`1 42["told"]`] != n {
		t.Errorf("heard %v", heard)
	}
}
