package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a server with two sockets: a writer, of which only frames are known,
// and a reader, which takes every dial and notes what it hears.
type stage struct {
	engine *proxy.Engine
	slow   bool // no fast route
	sides  chan *proxy.Side
	left   chan error // why the writer's socket ended

	callee  *proxy.Side // set before dials are asked for
	answers chan string
}

func (st *stage) Binary(s *socketio.Socket, text, data []byte, buf **ws.Buf) bool {
	return !st.slow && s.User.(*proxy.Side).Chunk(text, data, buf)
}

// Event also serves "dial", by which a test has its writer dial in the receive path.
func (st *stage) Event(s *socketio.Socket, e *socketio.Event) error {
	side := s.User.(*proxy.Side)
	if id, ok := e.Text(0); ok && e.Name == "dial" && st.callee != nil {
		st.engine.Dial(side, st.callee, proxy.Request{From: "/a", To: "/b", ID: id,
			Answer: func(_ *socketio.Flusher, reason string) {
				select {
				case st.answers <- reason:
				default: // a fuzzer's own, for which nobody waits
				}
			}})
		return nil
	}
	side.Event(e)
	return nil
}

func (st *stage) Disconnected(s *socketio.Socket, reason error) {
	s.User.(*proxy.Side).Leave(proxy.PeerDisconnected)
	st.left <- reason
}

// ids are those of the dials: of the usual form, and of others that are allowed.
var ids = []string{"d", `q"\`, "é~ ."}

// reader is the client that dials reach.
type reader struct {
	socketio.Handler
	mu    sync.Mutex
	heard map[string]string // by stream: chunks and the end
	ends  chan string
}

func (r *reader) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }
func (r *reader) Disconnected(*socketio.Socket, error)                   {}

func (r *reader) Event(s *socketio.Socket, e *socketio.Event) error {
	var b wire.Builder
	if e.Name == "ss-incomming" {
		id, _ := e.Text(0)
		if err := s.Send(flow.Bulk, socketio.Msg{Text: b.Event(nil, wire.NoAck, proxy.Accept+id+".dialer").Done()}); err != nil {
			return err
		}
		return s.Send(flow.Bulk, socketio.Msg{Text: new(wire.Builder).Ack(nil, e.AckID()).Done()})
	}
	verb, id, kind, ok := proxy.SplitName(e.Name)
	if !ok || kind != proxy.Dialer {
		return nil
	}
	note := fmt.Sprintf("%s %q;", verb, e.Args)
	if data, ok := e.Bytes(0); ok {
		note = fmt.Sprintf("%q;", data)
	}
	r.mu.Lock()
	r.heard[id] += note
	r.mu.Unlock()
	if verb == proxy.Error {
		r.ends <- id
	}
	return nil
}

// play sends frames as the writer of the dials, and gives what their reader heard
// and why the writer's connection ended.
func play(t *testing.T, frames []byte, slow bool) (heard map[string]string, end string) {
	t.Helper()
	var mem ws.Memory
	st := &stage{slow: slow, sides: make(chan *proxy.Side, 2), left: make(chan error, 2), answers: make(chan string, len(ids))}
	st.engine = proxy.New(proxy.Limits{}, proxy.Hooks{}, &mem)
	srv := socketio.NewServer(socketio.Options{Handler: st, Memory: &mem, Times: socketio.Times{Linger: 5 * time.Millisecond},
		Limits: socketio.Limits{LongEvents: proxy.Queue},
		Connect: func(s *socketio.Socket, _ *http.Request) (json.RawMessage, error) {
			side := st.engine.NewSide(s, false, false)
			s.User = side
			st.sides <- side
			return nil, nil
		}})
	n := startest.NewNet()
	tr := &http.Transport{DialContext: n.Dial}
	hs, client, base := &http.Server{Handler: srv}, &http.Client{Transport: tr}, &url.URL{Scheme: "http", Host: "star.test"}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hs.Serve(n) })
	running.Go(func() { _ = srv.Run(ctx) })
	r := &reader{heard: map[string]string{}, ends: make(chan string, 2*len(ids))}
	cl, err := socketio.Dial(ctx, base, socketio.DialOptions{Handler: r, HTTP: client})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = cl.Run(ctx) })
	st.callee = <-st.sides

	u := *base
	u.Path, u.RawQuery = "/socket.io/", "EIO=3&transport=websocket"
	c, err := ws.Dial(ctx, client, &u, nil, 1<<24, &ws.Memory{})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { drain(c) })
	<-st.sides
	for _, id := range ids {
		b := c.Batch()
		b.Add(ws.Text, new(wire.Builder).Event(nil, wire.NoAck, "dial").Str(id).Done())
		if err := b.Flush(nil); err != nil {
			t.Fatal(err)
		}
		b.Done()
		if reason := <-st.answers; reason != "" {
			t.Fatal(reason)
		}
	}
	send(c, frames)
	end = fmt.Sprint(<-st.left)
	for range ids {
		<-r.ends
	}
	cancel()
	running.Go(func() { _ = hs.Shutdown(context.Background()); n.Close() })
	c.NetConn().Close()
	tr.CloseIdleConnections()
	running.Wait()
	tr.CloseIdleConnections()
	c.Release()
	if s := st.engine.Stats(); s.Dials != 0 || s.Held != 0 || mem.Used() != 0 {
		t.Errorf("left: %+v, %d bytes are still lent", s, mem.Used())
	}
	return r.heard, end
}

func drain(c *ws.Conn) {
	for {
		m, err := c.Read()
		m.Buf.Free()
		if err != nil {
			return
		}
	}
}

// send sends frames, which newlines separate; one that begins with 0x04 is binary.
func send(c *ws.Conn, frames []byte) {
	b := c.Batch()
	defer b.Done()
	for frame := range bytes.SplitSeq(frames, []byte("\n")) {
		op := ws.Text
		if len(frame) > 0 && frame[0] == 4 {
			op = ws.Binary
		}
		b.Add(op, frame)
		if b.Flush(nil) != nil {
			return // the server has closed it
		}
	}
	b.Add(ws.Close, nil)
	_ = b.Flush(nil) // the server may have closed it
}

// Whatever frames come, the stream's reader hears the same by the fast route of
// chunks as by the slow one, and the writer's connection ends for the same reason.
func FuzzFastAgainstSlow(f *testing.F) {
	var all []string
	for _, id := range ids {
		all = append(all, string(proxy.QueueText(id, proxy.Dialer)), "\x04chunk", string(proxy.EventText(proxy.Error, id, proxy.Dialer, "true")))
	}
	f.Add([]byte(strings.Join(all, "\n")))
	for _, frames := range []string{
		"451-[\"socket.io-pull-stream.queue.d.dialer\",{\"_placeholder\":true,\"num\":0}]\n\x04a\n42[\"socket.io-pull-stream.queue.d.dialer\",\"text\"]\n42[\"socket.io-pull-stream.queue.d.dialer\",[1,2]]",
		"451-[\"socket.io-pull-stream.queue.d.dialer\",{\"_placeholder\":true,\"num\":0}]\nb4YWJj\n451-[\"socket.io-pull-stream.queue.d.listener\",{\"_placeholder\":true,\"num\":0}]\n\x04",
		"451-[\"socket.io-pull-stream.queue.d.dialer\",{\"num\":0,\"_placeholder\":true}]\n\x04a\n2\n451-[\"socket.io-pull-stream.queue.d.dialer\",{\"_placeholder\":true,\"num\":0}]\n2",
		"451-[\"socket.io-pull-stream.queue.x.dialer\",{\"_placeholder\":true,\"num\":0}]\n\x04a\n41\n451-[\"socket.io-pull-stream.queue.d.dialer\",{\"_placeholder\":true,\"num\":0}]\n\x04b",
		"452-[\"socket.io-pull-stream.queue.d.dialer\",{\"_placeholder\":true,\"num\":1}]\n\x04a\n\x04b\n451-[\"socket.io-pull-stream.error.d.dialer\",{\"_placeholder\":true,\"num\":0}]\n\x04c",
	} {
		f.Add([]byte(frames))
	}
	f.Fuzz(func(t *testing.T, frames []byte) {
		fast, fastEnd := play(t, frames, false)
		slow, slowEnd := play(t, frames, true)
		if !maps.Equal(fast, slow) || fastEnd != slowEnd {
			t.Errorf("fast: %q, ended by %s\nslow: %q, ended by %s", fast, fastEnd, slow, slowEnd)
		}
	})
}
