package socketio_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server and ways to reach it.
type world struct {
	t      testing.TB
	net    *startest.Net
	srv    *socketio.Server
	client *http.Client
	base   *url.URL
	stop   func()
}

func newWorld(t testing.TB, opts socketio.Options) *world {
	w := &world{t: t, net: startest.NewNet(), srv: socketio.NewServer(opts)}
	tr := &http.Transport{DialContext: w.net.Dial}
	w.client, w.base = &http.Client{Transport: tr}, &url.URL{Scheme: "http", Host: "star.test"}
	hs := &http.Server{Handler: w.srv}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(w.net) })
	wg.Go(func() { _ = w.srv.Run(ctx) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		wg.Go(func() { _ = hs.Shutdown(context.Background()) })
		tr.CloseIdleConnections()
		w.net.Close()
		wg.Wait()
		tr.CloseIdleConnections()
		if used := w.srv.Memory().Used(); used != 0 {
			t.Errorf("%d bytes are still lent", used)
		}
		if n := w.srv.Len(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// do makes a plain request and gives status and body.
func (w *world) do(method, query, contentType, body string) (int, string, http.Header) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.base.String()+"/socket.io/?"+query, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(got), resp.Header
}

// poller opens a polling session and gives its id.
func (w *world) poller(query string) string {
	w.t.Helper()
	status, body, _ := w.do("GET", "EIO=3&transport=polling"+query, "", "")
	_, rest, ok := strings.Cut(body, `"sid":"`)
	if status != 200 || !ok {
		w.t.Fatalf("handshake: %d %q", status, body)
	}
	sid, _, _ := strings.Cut(rest, `"`)
	return sid
}

// raw opens a WebSocket by hand and reads the two first packets.
func (w *world) raw(query string) *ws.Conn {
	w.t.Helper()
	u := *w.base
	u.Path, u.RawQuery = "/socket.io/", "EIO=3&transport=websocket"+query
	c, err := ws.Dial(context.Background(), w.client, &u, nil, 1<<24, &ws.Memory{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.NetConn().Close(); c.Release() })
	if !strings.Contains(query, "sid=") {
		w.expect(c, "0{")
		w.expect(c, "40")
	}
	return c
}

// expect reads one text frame that begins so.
func (w *world) expect(c *ws.Conn, prefix string) string {
	w.t.Helper()
	m, err := c.Read()
	if err != nil || m.Op != ws.Text || !strings.HasPrefix(string(m.Data), prefix) {
		w.t.Fatalf("read op %d %.80q, %v; want %q", m.Op, m.Data, err, prefix)
	}
	return string(m.Data)
}

// expectClose reads up to the close frame and gives its code.
func (w *world) expectClose(c *ws.Conn) int {
	w.t.Helper()
	for {
		m, err := c.Read()
		if err != nil {
			w.t.Fatalf("no close frame: %v", err)
		}
		m.Buf.Free()
		if m.Op == ws.Close {
			code, _, _ := ws.ParseClose(m.Data)
			return code
		}
	}
}

func (w *world) write(c *ws.Conn, op ws.Opcode, data string) {
	w.t.Helper()
	b := c.Batch()
	b.Add(op, []byte(data))
	if err := b.Flush(nil); err != nil {
		w.t.Fatal(err)
	}
	b.Done()
}

// end is how a socket ended, for tests that wait for it.
type end struct {
	socket *socketio.Socket
	reason error
}

// echo answers every event: an event "echo" comes back, an ack is given where it
// is wanted, and an event "hold" holds the reader until released.
type echo struct {
	connected chan *socketio.Socket
	ended     chan end
	release   chan struct{}
	raw       bool // take binary events raw
}

func newEcho() *echo {
	return &echo{connected: make(chan *socketio.Socket, 1000), ended: make(chan end, 1000), release: make(chan struct{})}
}

func (h *echo) Event(s *socketio.Socket, e *socketio.Event) error {
	switch e.Name {
	case "who":
		h.connected <- s
	case "hold":
		s.Hold()
		defer s.Release()
		select {
		case <-h.release:
		case <-s.Context().Done():
		}
	}
	var b wire.Builder
	if e.AckID() != wire.NoAck {
		b.Ack(nil, e.AckID())
	} else if data, ok := e.Bytes(0); ok {
		b.Binary(nil, 1, "echo").Placeholder(0)
		return s.Send(flow.Bulk, socketio.Msg{Text: b.Done(), Bin: append([]byte{4}, data...)})
	} else {
		b.Event(nil, wire.NoAck, "echo")
	}
	for _, a := range e.Args {
		b.Raw(string(a))
	}
	return s.Send(flow.Bulk, socketio.Msg{Text: b.Done()})
}

func (h *echo) Binary(s *socketio.Socket, text, data []byte, buf **ws.Buf) bool {
	if !h.raw {
		return false
	}
	m := socketio.Msg{Text: append([]byte(nil), text...), Bin: data}
	if *buf != nil {
		m.Bufs[0], *buf = *buf, nil
	} else {
		m.Bufs[0] = s.Copy(data)
		m.Bin = m.Bufs[0].Bytes()
	}
	return s.Send(flow.Bulk, m) == nil
}

func (h *echo) Disconnected(s *socketio.Socket, reason error) {
	select {
	case h.ended <- end{s, reason}:
	default:
	}
}

// waitEnd gives the reason of the next end.
func (h *echo) waitEnd(t testing.TB) error {
	t.Helper()
	select {
	case e := <-h.ended:
		return e.reason
	case <-time.After(time.Hour): // of the bubble
		t.Fatal("no end")
		return nil
	}
}
