package socketio_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// ways are all the ways a client may be connected.
var ways = map[string]socketio.DialOptions{
	"websocket":             {},
	"websocket base64":      {NoBinary: true},
	"polling":               {Transport: socketio.Polling},
	"polling base64":        {Transport: socketio.Polling, NoBinary: true},
	"polling, then upgrade": {Transport: socketio.Polling, Upgrade: true},
	"base64, then upgrade":  {Transport: socketio.Polling, Upgrade: true, NoBinary: true},
}

// collector is a client's Handler that keeps what comes.
type collector struct {
	mu    sync.Mutex
	got   []string
	more  chan struct{}
	ended chan error
}

func newCollector() *collector {
	return &collector{more: make(chan struct{}, 1), ended: make(chan error, 1)}
}

func (c *collector) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, text)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *collector) Event(_ *socketio.Socket, e *socketio.Event) error {
	text := e.Name
	for i := range e.Args {
		if data, ok := e.Bytes(i); ok {
			text += fmt.Sprintf(" %x", data)
		} else {
			text += " " + string(e.Args[i])
		}
	}
	c.add(text)
	return nil
}

func (c *collector) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }
func (c *collector) Disconnected(_ *socketio.Socket, reason error)          { c.ended <- reason }

func (c *collector) wait(n int) []string {
	for {
		c.mu.Lock()
		got := c.got
		c.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-c.more:
		case err := <-c.ended:
			c.ended <- err
			panic(fmt.Sprintf("the client ended by %v with %d of %d messages", err, len(got), n))
		}
	}
}

// dial connects a client and runs it; stop says goodbye and waits.
func (w *world) dial(opts socketio.DialOptions) (c *collector, s *socketio.Socket, stop func() error) {
	w.t.Helper()
	c = newCollector()
	opts.Handler, opts.HTTP = c, w.client
	cl, err := socketio.Dial(context.Background(), w.base, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cl.Run(ctx) }()
	return c, cl.Socket(), sync.OnceValue(func() error { cancel(); return <-done })
}

func event(name string, args ...string) socketio.Msg {
	var b wire.Builder
	b.Event(nil, wire.NoAck, name)
	for _, a := range args {
		b.Str(a)
	}
	return socketio.Msg{Text: b.Done()}
}

func binary(name string, data []byte) socketio.Msg {
	var b wire.Builder
	return socketio.Msg{Text: b.Binary(nil, 1, name).Placeholder(0).Done(), Bin: append([]byte{4}, data...)}
}

// step is one thing that a client does.
type step struct {
	text  string
	data  []byte
	ask   bool
	pause time.Duration
}

func drawSteps(rt *rapid.T) (steps []step) {
	for range rapid.IntRange(1, 25).Draw(rt, "steps") {
		switch rapid.IntRange(0, 4).Draw(rt, "kind") {
		case 0:
			steps = append(steps, step{text: rapid.String().Draw(rt, "text")})
		case 1:
			steps = append(steps, step{data: rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(rt, "data")})
		case 2:
			steps = append(steps, step{data: payload(rapid.IntRange(4000, 200_000).Draw(rt, "size"))})
		case 3:
			steps = append(steps, step{ask: true})
		case 4:
			steps = append(steps, step{pause: time.Duration(rapid.IntRange(1, 120).Draw(rt, "pause")) * time.Millisecond})
		}
	}
	return steps
}

// Events, answers and attachments, in order, on every way; through the upgrade
// nothing is lost and nothing comes twice.
func TestEveryWay(t *testing.T) {
	for name, opts := range ways {
		for _, raw := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s raw=%v", name, raw), func(t *testing.T) {
				rapid.Check(t, func(rt *rapid.T) {
					steps, failure := drawSteps(rt), ""
					synctest.Test(t, func(t *testing.T) { failure = everyWay(t, steps, opts, raw) })
					if failure != "" {
						rt.Fatal(failure)
					}
				})
			})
		}
	}
}

// everyWay runs the steps against an echo and says what went wrong.
func everyWay(t *testing.T, steps []step, opts socketio.DialOptions, raw bool) (failure string) {
	h := newEcho()
	h.raw = raw
	w := newWorld(t, socketio.Options{Handler: h})
	defer w.stop()
	c, s, stop := w.dial(opts)
	defer stop()
	var want []string
	answers := make(chan string, len(steps))
	asked := 0
	for i, st := range steps {
		switch {
		case st.ask:
			var b wire.Builder
			id := s.Expect(func(a socketio.Answer) { answers <- fmt.Sprintf("%s %v", a.Args, a.Err) })
			_ = s.Send(flow.Bulk, socketio.Msg{Text: b.Event(nil, id, "ask").Raw(fmt.Sprint(i)).Done()})
			asked++
		case st.data != nil:
			_ = s.Send(flow.Bulk, binary("echo", st.data))
			want = append(want, fmt.Sprintf("echo %x", st.data))
		case st.pause > 0:
			time.Sleep(st.pause) // virtual
		default:
			_ = s.Send(flow.Bulk, event("e", st.text))
			want = append(want, "echo "+string(wire.AppendQuote(nil, st.text)))
		}
	}
	got := c.wait(len(want))
	for i := range want {
		if got[i] != want[i] {
			return fmt.Sprintf("message %d is %.100q, want %.100q", i, got[i], want[i])
		}
	}
	for i, st := range steps {
		if st.ask {
			if a := <-answers; a != fmt.Sprintf("[%d] <nil>", i) {
				return fmt.Sprintf("answer to %d is %s", i, a)
			}
		}
	}
	if time.Sleep(time.Second); opts.Upgrade && s.Transport() != socketio.WebSocket {
		return "not upgraded"
	}
	if err := stop(); err != nil {
		return fmt.Sprintf("run ended by %v", err)
	}
	if err := h.waitEnd(t); err != socketio.ErrGoodbye {
		return fmt.Sprintf("the server saw the end by %v", err)
	}
	if w.stop(); len(c.got) != len(want) {
		return fmt.Sprintf("%d messages came, want %d", len(c.got), len(want))
	}
	return ""
}

func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

// the client's heartbeat keeps its session on every way, with the times that
// the server tells: also those of the 2019 stack.
func TestClientHeartbeat(t *testing.T) {
	for name, opts := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newEcho()
				w := newWorld(t, socketio.Options{Handler: h, Times: socketio.Times{PingTimeout: 5 * time.Second}})
				c, s, stop := w.dial(opts)
				time.Sleep(10 * time.Minute)
				_ = s.Send(flow.Bulk, event("still"))
				c.wait(1)
				if err := stop(); err != nil {
					t.Error(err)
				}
				w.stop()
			})
		})
	}
}

// A client whose server falls silent ends after interval and time-out.
func TestClientSeesSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startest.NewNet()
		mute := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := ws.Accept(w, r, 1000, &ws.Memory{})
			if err != nil {
				return
			}
			b := c.Batch()
			b.Add(ws.Text, []byte(`0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":5000}`))
			b.Add(ws.Text, []byte("40"))
			b.Flush(nil)
			io.Copy(io.Discard, c.NetConn())
		})}
		go mute.Serve(n)
		defer mute.Close()
		tr := &http.Transport{DialContext: n.Dial}
		c := newCollector()
		cl, err := socketio.Dial(t.Context(), &url.URL{Scheme: "http", Host: "x"}, socketio.DialOptions{Handler: c, HTTP: &http.Client{Transport: tr}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := cl.Run(t.Context()); err != socketio.ErrSilent {
			t.Errorf("ended by %v", err)
		}
		if took := time.Since(start); took < 29*time.Second || took > 31*time.Second {
			t.Errorf("ended after %v, want 30 s", took)
		}
		tr.CloseIdleConnections()
	})
}

// Answers still open when the connection ends are given an error, once.
func TestAnswersAtTheEnd(t *testing.T) {
	for name, opts := range ways {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world, h *echo) {
				_, s, stop := w.dial(opts)
				ends := make(chan error, 10)
				var b wire.Builder
				id := s.Expect(func(a socketio.Answer) { ends <- a.Err })
				gone := s.Expect(func(socketio.Answer) { t.Error("a forgotten answer came") })
				if !s.Forget(gone) || s.Forget(gone) {
					t.Error("forgetting twice")
				}
				_ = s.Send(flow.Bulk, socketio.Msg{Text: b.Event(nil, id, "hold").Done()})
				synctest.Wait()
				stop()
				if err := <-ends; err == nil {
					t.Error("answered without an error")
				}
				if len(ends) != 0 {
					t.Error("answered twice")
				}
				if err := s.Send(flow.Bulk, event("late")); err == nil {
					t.Error("sent after the end")
				}
			})
		})
	}
}

func TestServerGoesAway(t *testing.T) {
	for name, opts := range ways {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world, h *echo) {
				c, _, stop := w.dial(opts)
				time.Sleep(time.Second)
				for _, s := range w.srv.Sockets() {
					s.Close(ws.CodeGoingAway, nil)
				}
				if err := <-c.ended; err == nil {
					t.Error("no reason")
				}
				if stop() == nil {
					t.Error("Run ended without an error")
				}
			})
		})
	}
}

func TestBanIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		c, s, stop := w.dial(socketio.DialOptions{})
		_ = s.Send(flow.Bulk, event("who"))
		(<-h.connected).Ban(&identity.Error{Code: identity.CodeForbidden, Text: "banned"})
		if err := <-c.ended; err != socketio.ErrGoodbye {
			t.Errorf("the client saw %v", err)
		}
		stop()
		if err := h.waitEnd(t); identity.CodeOf(err) != identity.CodeForbidden {
			t.Errorf("the server saw %v", err)
		}
	})
}

// What is no server of Socket.IO 2 is refused, and a hanging one is left in time.
func TestDialRefusals(t *testing.T) {
	serve := func(frames ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("transport") == "polling" {
				w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
				for _, f := range frames {
					w.Write(wire.AppendText(nil, wire.Packet{Type: wire.Type(f[0]), Data: []byte(f[1:])}))
				}
				return
			}
			c, err := ws.Accept(w, r, 1000, &ws.Memory{})
			if err != nil {
				return
			}
			b := c.Batch()
			for _, f := range frames {
				b.Add(ws.Text, []byte(f))
			}
			b.Flush(nil)
			io.Copy(io.Discard, c.NetConn())
			c.NetConn().Close()
		}
	}
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	open := `0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":5000}`
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		code identity.Code
	}{
		"no open packet":    {serve("40"), identity.CodeRefused},
		"open twice":        {serve(open, open), identity.CodeRefused},
		"event first":       {serve(open, `42["x"]`), identity.CodeRefused},
		"bad open packet":   {serve(`0{"sid":1}`), identity.CodeMalformed},
		"namespace refused": {serve(open, `44"no"`), identity.CodeRefused},
		"404":               {http.NotFound, identity.CodeRefused},
		"hanging":           {hang, identity.CodeUnreachable},
	} {
		for _, transport := range []socketio.Transport{socketio.WebSocket, socketio.Polling} {
			t.Run(name+" on "+string(transport), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := startest.NewNet()
					hs := &http.Server{Handler: c.h}
					go hs.Serve(n)
					tr := &http.Transport{DialContext: n.Dial}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					_, err := socketio.Dial(ctx, &url.URL{Scheme: "http", Host: "x"}, socketio.DialOptions{
						Handler: newCollector(), HTTP: &http.Client{Transport: tr}, Transport: transport})
					if identity.CodeOf(err) != c.code {
						t.Errorf("error %v of code %q, want %q", err, identity.CodeOf(err), c.code)
					}
					tr.CloseIdleConnections()
					hs.Close()
				})
			})
		}
	}
}
