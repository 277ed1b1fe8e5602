package gateway_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

const nobody = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

// TestG_D12_StopAnswersWhatIsPending holds §3 row 8: the existing client never
// settles what a closed socket leaves open.
func TestG_D12_StopAnswersWhatIsPending(t *testing.T) {
	s := gatewaytest.Start(t)
	p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	lost := gatewaytest.Join2(t, s, v2.HelloFrame{})
	cut(lost.WS)
	silent := gatewaytest.Open2(t, s)
	id := p.Send(nobody, "x", 1, network.Handled, false)
	oldID := old.Request("send", `{"peer":"`+nobody+`","protocol":"x","data":1,"ack":0}`)
	old.Call("listpeers", `{"topic":"x"}`) // both sends have arrived when these are answered
	p.Call("status", map[string]any{})

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Gateway.Shutdown(ctx) }()
	if e := p.Want(v2.KindError); e[0] != id || e[1] != "closed" {
		t.Errorf("v2: %v", e)
	}
	if bye := p.Want(v2.KindBye); bye[0] != "closed" || bye[1] != "the node stops" {
		t.Errorf("bye %v", bye)
	}
	if f := old.Response(oldID); f.Error == nil || f.Error.Code != 500 || f.Error.Message != "peer closed" {
		t.Errorf("v1: %+v", f)
	}
	for name, closed := range map[string]func() (websocket.StatusCode, string){"v2": p.Closed, "v1": old.Closed, "before hello": silent.Closed} {
		if code, reason := closed(); code != 1001 || reason != "the node stops" {
			t.Errorf("%s closed with %d %q", name, code, reason)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if s.Gateway.Sessions() != 0 || s.Backend.Peers() != 0 {
		t.Errorf("%d sessions, %d peers are left", s.Gateway.Sessions(), s.Backend.Peers())
	}
	_, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+"/ws", &websocket.DialOptions{HTTPHeader: s.Header})
	if err == nil || resp.StatusCode != 503 {
		t.Errorf("a new page while it stops: %v %v", resp, err)
	}
}

func TestRun_ShutsDownWhenItsContextEnds(t *testing.T) {
	s := gatewaytest.Start(t)
	p := gatewaytest.Join1(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Gateway.Run(ctx) }()
	cancel()
	if code, _ := p.Closed(); code != 1001 {
		t.Errorf("closed with %d", code)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestShutdown_CutsPagesThatTakeNothing(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithListener(gatewaytest.NewPipes()))
	r := dialRaw(t, s) // never reads again, and a pipe holds nothing
	r.send(frame(fin|opText, unknown))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = s.Gateway.Shutdown(ctx) // in time or cut: what counts is that it returns
	if n := s.Gateway.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestG_R5_ThousandReloadsLeaveNothing(t *testing.T) {
	const reloads = 1000
	s := gatewaytest.Start(t)
	reload := func(i int) {
		if i%2 == 0 {
			p := gatewaytest.Join1(t, s)
			p.Call("start", `{"protocol":"chat"}`)
			p.Call("subscribe", `{"topic":"room"}`)
			_ = p.WS.Close(websocket.StatusGoingAway, "")
		} else {
			p := gatewaytest.Join2(t, s, v2.HelloFrame{})
			p.Call("start", map[string]any{"protocol": "chat"})
			p.Call("subscribe", map[string]any{"topic": "room"})
			_ = p.WS.Close(websocket.StatusGoingAway, "")
		}
	}
	settle := func() (goroutines int, heap uint64) {
		gatewaytest.WaitFor(t, "all sessions to end", func() bool { return s.Gateway.Sessions() == 0 && s.Gateway.Stats().Sockets == 0 })
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	for i := range 100 {
		reload(i)
	}
	_, before := settle()
	for i := range reloads {
		reload(i)
	}
	gatewaytest.WaitFor(t, "goroutines to end", func() bool { n, _ := settle(); return n < 30 })
	if _, after := settle(); after > before+5<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
}

func TestG_R9_OneOfTwoEqualKeysGetsIn(t *testing.T) {
	s := gatewaytest.Start(t)
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		pages := []*gatewaytest.Page1{gatewaytest.Open1(t, s), gatewaytest.Open1(t, s)}
		for _, p := range pages {
			p.Request("peer", fmt.Sprintf(`{"peerkey":%q}`, key.String()))
		}
		in := 0
		for _, p := range pages {
			switch f := p.Response(1); {
			case f.Error == nil:
				in++
			case f.Error.Message != "peer ID already in use (possible duplicate browser tab)":
				t.Errorf("error %v", *f.Error)
			}
		}
		if in != 1 {
			t.Fatalf("%d of two got in", in)
		}
		for _, p := range pages {
			_ = p.WS.Close(websocket.StatusNormalClosure, "")
		}
		gatewaytest.WaitFor(t, "both sessions to end", func() bool { return s.Gateway.Sessions() == 0 })
	}
}

// TestG_R10_ReloadKeepsItsKey closes and asks for the same key without waiting
// for anything, as a browser does that reloads.
func TestG_R10_ReloadKeepsItsKey(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		p := gatewaytest.Join1(t, s)
		for range 50 {
			next := gatewaytest.Open1(t, s)
			go func(ws *websocket.Conn) { _ = ws.Close(websocket.StatusGoingAway, "") }(p.WS)
			if f := next.Response(next.Request("peer", fmt.Sprintf(`{"peerkey":%q}`, p.Key))); f.Error != nil {
				t.Fatalf("after a reload: %v", *f.Error)
			}
			next.ID, next.Key = p.ID, p.Key
			p = next
		}
	})
}

// TestReload_WaitsForItsPeer has a peer that takes its time to leave: the page
// that reloads gets its key as soon as it is free, and another tab is told at once.
func TestReload_WaitsForItsPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := startFaulty(t, gatewaytest.WithListener(gatewaytest.NewPipes()))
		b.waits = true
		p := gatewaytest.Join1(t, s)
		key := fmt.Sprintf(`{"peerkey":%q}`, p.Key)
		began := time.Now()
		next := gatewaytest.Open1(t, s)
		if e := next.Fail("peer", key); !strings.Contains(e.Message, "already in use") || time.Since(began) > time.Second {
			t.Errorf("while it is there: %v after %v", e, time.Since(began))
		}
		_ = p.WS.Close(websocket.StatusGoingAway, "")
		time.AfterFunc(10*time.Second, func() { close(b.goOn) })
		if f := next.Response(next.Request("peer", key)); f.Error != nil {
			t.Errorf("after a reload: %v", *f.Error)
		}
	})
}

func TestSharePeers_LetsTabsOfV1ShareTheirPeer(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{SharePeers: true}))
	p := gatewaytest.Join1(t, s)
	tab := gatewaytest.Open1(t, s)
	tab.Call("peer", fmt.Sprintf(`{"peerkey":%q}`, p.Key))
	if s.Backend.Peers() != 1 {
		t.Errorf("%d peers", s.Backend.Peers())
	}
}

// savedKeys keeps keys in memory.
type savedKeys struct {
	mu   sync.Mutex
	keys map[[2]string]identity.Key
}

func (k *savedKeys) Key(_ context.Context, origin, name string) (identity.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name == "broken" {
		return identity.Key{}, fmt.Errorf("disk /secret/path is full")
	}
	key, ok := k.keys[[2]string{origin, name}]
	if !ok {
		var err error
		if key, err = identity.NewKey(); err != nil {
			return key, err
		}
		k.keys[[2]string{origin, name}] = key
	}
	return key, nil
}

func TestG_S8_KeysStayInTheNode(t *testing.T) {
	keys := &savedKeys{keys: map[[2]string]identity.Key{}}
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{Keys: keys}),
		gatewaytest.WithAccess(access.Config{Bearer: "test-token", Origins: []string{"https://app.example.org"}}))
	foreign := s.Header.Clone()
	foreign.Set("Origin", "https://app.example.org")
	guest := &gatewaytest.Server{URL: s.URL, Header: foreign}
	own := s.Header.Clone()
	own.Set("Origin", s.URL)
	page := &gatewaytest.Server{URL: s.URL, Header: own}

	peer := func(s *gatewaytest.Server, h v2.HelloFrame) string { return gatewaytest.Join2(t, s, h).Welcome.Peer }
	first := peer(page, v2.HelloFrame{})
	for name, other := range map[string]string{
		"another tab": peer(page, v2.HelloFrame{}), "named": peer(page, v2.HelloFrame{Identity: "default"}), "a program": peer(s, v2.HelloFrame{}),
	} {
		if other != first {
			t.Errorf("%s has another peer", name)
		}
	}
	for name, other := range map[string]string{
		"another identity": peer(page, v2.HelloFrame{Identity: "work"}), "another origin": peer(guest, v2.HelloFrame{}), "a key that nobody keeps": peer(page, v2.HelloFrame{Keyless: true}),
	} {
		if other == first {
			t.Errorf("%s has the same peer", name)
		}
	}
	if len(keys.keys) != 3 {
		t.Errorf("%d keys are kept, want 3", len(keys.keys))
	}
	p := gatewaytest.Join2(t, page, v2.HelloFrame{})
	exported := p.Call("exportKey", map[string]any{}).(map[any]any)["key"].(string)
	if got := peer(guest, v2.HelloFrame{Key: exported}); got != first {
		t.Errorf("the exported key is %s", got)
	}
	for name, tt := range map[string]struct {
		hello v2.HelloFrame
		code  string
	}{
		"a bad key":     {v2.HelloFrame{Key: "!!"}, "malformed"},
		"a bad name":    {v2.HelloFrame{Identity: "../../etc"}, "malformed"},
		"a failed disk": {v2.HelloFrame{Identity: "broken"}, "internal"},
	} {
		p := gatewaytest.Open2(t, page)
		tt.hello.Version = 2
		p.Write(v2.AppendHello(nil, tt.hello))
		bye := p.Want(v2.KindBye)
		if bye[0] != tt.code || strings.Contains(bye[1].(string), "secret") {
			t.Errorf("%s: %v", name, bye)
		}
		if code, _ := p.Closed(); code != 1008 {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
}

func TestResume_IsForTheOriginThatHasTheToken(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithAccess(access.Config{Bearer: "test-token", Origins: []string{"https://app.example.org"}}))
	foreign := s.Header.Clone()
	foreign.Set("Origin", "https://app.example.org")
	guest := &gatewaytest.Server{URL: s.URL, Header: foreign}
	p := gatewaytest.Join2(t, s, v2.HelloFrame{})
	if stolen := p.Resume(guest, p.Got); stolen.Welcome.Resumed {
		t.Error("a token of one origin resumes in another")
	}
	guess := append([]byte{}, p.Welcome.Session...)
	guess[15] ^= 1
	if other := gatewaytest.Join2(t, s, v2.HelloFrame{Session: guess}); other.Welcome.Resumed {
		t.Error("a token that is nearly right resumes")
	}
	p.Call("status", map[string]any{}) // and nobody disturbed the page
}

func TestResume_PageThatLostCountStartsAnew(t *testing.T) {
	s := gatewaytest.Start(t)
	p := gatewaytest.Join2(t, s, v2.HelloFrame{})
	p.Call("start", map[string]any{"protocol": "chat"})
	cut(p.WS)
	if again := p.Resume(s, 1000); again.Welcome.Resumed || again.Welcome.Peer == p.Welcome.Peer {
		t.Errorf("welcome %+v", again.Welcome)
	}
	gatewaytest.WaitFor(t, "the old session to end", func() bool { return s.Gateway.Sessions() == 1 })
}
