package gateway_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// inBubble runs a test where time passes only when everybody waits.
func inBubble(t *testing.T, cfg gateway.Config, test func(t *testing.T, s *gatewaytest.Server)) {
	synctest.Test(t, func(t *testing.T) {
		test(t, gatewaytest.Start(t, gatewaytest.WithListener(gatewaytest.NewPipes()), gatewaytest.WithConfig(cfg)))
	})
}

// activity records what the Activity callback is told.
type activity struct {
	mu    sync.Mutex
	pages []int
}

func (a *activity) note(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pages = append(a.pages, n)
}

func (a *activity) all() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pages)
}

// cut ends a socket without a close frame.
func cut(ws *websocket.Conn) { _ = ws.CloseNow() }

func TestGrace_SessionWaitsThirtySeconds(t *testing.T) {
	var seen activity
	inBubble(t, gateway.Config{Activity: seen.note}, func(t *testing.T, s *gatewaytest.Server) {
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		p.Call("start", map[string]any{"protocol": "chat"})
		cut(p.WS)
		time.Sleep(29 * time.Second)
		if s.Backend.Peers() != 1 || s.Gateway.Sessions() != 1 {
			t.Fatalf("after 29 s there are %d peers, %d sessions", s.Backend.Peers(), s.Gateway.Sessions())
		}
		again := p.Resume(s, p.Got)
		if !again.Welcome.Resumed || again.Welcome.Peer != p.Welcome.Peer {
			t.Fatalf("welcome %+v", again.Welcome)
		}
		if code, _ := again.Fail("start", map[string]any{"protocol": "chat"}); code != identity.CodeAlreadyStarted {
			t.Fatalf("start in the resumed session: %s", code)
		}
		cut(again.WS)
		time.Sleep(31 * time.Second)
		if s.Backend.Peers() != 0 || s.Gateway.Sessions() != 0 {
			t.Fatalf("after 31 s there are %d peers, %d sessions", s.Backend.Peers(), s.Gateway.Sessions())
		}
		if third := p.Resume(s, 0); third.Welcome.Resumed {
			t.Fatal("resumed a session that has ended")
		}
		if got := seen.all(); !slices.Equal(got, []int{1, 0, 1}) {
			t.Errorf("activity %v", got)
		}
		if got := s.Gateway.Stats(); got.Resumed != 1 || got.Expired != 1 {
			t.Errorf("stats %+v", got)
		}
	})
}

// TestGrace_Edge: a page that is back a moment before the 30 s are over has
// everything, with a message that came meanwhile; a moment later it has nothing.
func TestGrace_Edge(t *testing.T) {
	for _, tt := range []struct {
		after   time.Duration
		resumed bool
	}{{0, true}, {30*time.Second - 1, true}, {30*time.Second + 1, false}} {
		t.Run(tt.after.String(), func(t *testing.T) {
			inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
				a, b := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
				a.Patience = time.Minute
				b.Call("start", map[string]any{"protocol": "chat"})
				cut(b.WS)
				synctest.Wait() // the node has seen it: its clock runs
				id := a.Send(b.Welcome.Peer, "chat", "meanwhile", network.Handled, false)
				time.Sleep(tt.after)
				synctest.Wait()
				again := b.Resume(s, b.Got)
				if again.Welcome.Resumed != tt.resumed {
					t.Fatalf("welcome %+v", again.Welcome)
				}
				if !tt.resumed {
					if e := a.Want(v2.KindError); e[0] != id || e[1] != "closed" {
						t.Errorf("error %v", e)
					}
					again.Call("start", map[string]any{"protocol": "chat"}) // the session is empty
					return
				}
				m := again.Want(v2.KindMessage)
				again.Write(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)))
				if r := a.Want(v2.KindResult); r[0] != id {
					t.Errorf("result %v", r)
				}
			})
		})
	}
}

func TestGrace_OrderlyEndsHaveNone(t *testing.T) {
	ends := map[string]func(p *gatewaytest.Page2){
		"bye":        func(p *gatewaytest.Page2) { p.Write(v2.AppendBye(nil, &identity.Error{Code: "closed"})) },
		"close 1000": func(p *gatewaytest.Page2) { _ = p.WS.Close(1000, "") },
		"close 1001": func(p *gatewaytest.Page2) { _ = p.WS.Close(1001, "") },
		"no frame":   func(p *gatewaytest.Page2) { p.Write([]byte{0xff}) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
				p := gatewaytest.Join2(t, s, v2.HelloFrame{})
				end(p)
				p.Closed()
				synctest.Wait()
				if s.Backend.Peers() != 0 || s.Gateway.Sessions() != 0 {
					t.Errorf("%d peers, %d sessions are left", s.Backend.Peers(), s.Gateway.Sessions())
				}
			})
		})
	}
	for name, code := range map[string]websocket.StatusCode{"close without a code": 1005, "close 4000": 4000} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
				p := gatewaytest.Join2(t, s, v2.HelloFrame{})
				_ = p.WS.Close(code, "")
				synctest.Wait()
				if s.Gateway.Sessions() != 1 {
					t.Errorf("the session ended, but its socket was only lost")
				}
			})
		})
	}
}

func TestGrace_UnsettledDeliveriesAreRefusedAtItsEnd(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		a, b := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
		b.Call("start", map[string]any{"protocol": "chat"})
		a.Patience = time.Minute
		first := a.Send(b.Welcome.Peer, "chat", "taken", network.Handled, false)
		b.Want(v2.KindMessage)
		cut(b.WS)
		second := a.Send(b.Welcome.Peer, "chat", "queued", network.Handled, false)
		began := time.Now()
		for range 2 {
			e := a.Want(v2.KindError)
			if (e[0] != first && e[0] != second) || e[1] != "closed" {
				t.Errorf("error %v", e)
			}
		}
		if waited := time.Since(began); waited != 30*time.Second {
			t.Errorf("refused after %v, want 30 s", waited)
		}
	})
}

// mute reads a socket's frames without ever answering a ping, and tells when
// and how it was closed.
func mute(t *testing.T, r *raw) (pings int, o outcome) {
	t.Helper()
	for {
		first, payload, err := r.read()
		switch {
		case err != nil:
			o.code = -1
			return pings, o
		case first&^fin == opPing:
			pings++
		case first&^fin == opClose:
			o.code, o.reason = int(payload[0])<<8|int(payload[1]), string(payload[2:])
			return pings, o
		}
	}
}

func TestKeepAlive_SilentPageIsClosed(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		r := dialRaw(t, s)
		_ = r.conn.SetDeadline(time.Time{})
		began := time.Now()
		pings, o := mute(t, r)
		if took := time.Since(began); o.code != 1001 || took < time.Minute || took > 76*time.Second || pings < 1 {
			t.Errorf("closed with %d %q after %v and %d pings, want 1001 after 60 s or a ping more", o.code, o.reason, took, pings)
		}
	})
}

func TestKeepAlive_QuietPageThatAnswersStays(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		// The library answers pings while it reads.
		if _, msg, err := p.WS.Read(ctx); err == nil || ctx.Err() == nil {
			t.Errorf("read %x, %v within ten minutes", msg, err)
		}
	})
}

func TestHello_ComesWithinTenSeconds(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		p := gatewaytest.Open2(t, s)
		began := time.Now()
		code, reason := p.Closed()
		if took := time.Since(began); code != 1008 || took != 10*time.Second {
			t.Errorf("closed with %d %q after %v, want 1008 after 10 s", code, reason, took)
		}
	})
}

func TestReceived_IsToldWithinFiftyMilliseconds(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		began := time.Now()
		p.Write(v2.AppendCount(nil, v2.KindHandled, 99)) // nothing else answers this
		f, err := p.Read()
		if err != nil || f.Kind != v2.KindReceived {
			t.Fatalf("frame %d, %v", f.Kind, err)
		}
		if n, _ := f.Count(); n != 1 || time.Since(began) != 50*time.Millisecond {
			t.Errorf("received %d after %v, want 1 after 50 ms", n, time.Since(began))
		}
		began = time.Now()
		var many []byte
		for range 32 {
			many = v2.AppendCount(many, v2.KindHandled, 99)
		}
		p.Write(many)
		if f, err = p.Read(); err != nil {
			t.Fatal(err)
		}
		if n, _ := f.Count(); n != 33 || time.Since(began) != 0 {
			t.Errorf("received %d after %v, want 33 at once", n, time.Since(began))
		}
	})
}
