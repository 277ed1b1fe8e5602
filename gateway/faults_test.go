package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// faulty is a Backend whose peers have faults, and which keeps the pages.
type faulty struct {
	*gatewaytest.Backend
	pages chan gateway.Page
	stops chan network.Protocol
	goOn  chan struct{} // starting "slow", and leaving where waits is set, wait for it
	waits bool          // leaving does
}

func newFaulty() *faulty {
	return &faulty{Backend: gatewaytest.NewBackend(), pages: make(chan gateway.Page, 100), stops: make(chan network.Protocol, 100), goOn: make(chan struct{})}
}

func (b *faulty) Join(ctx context.Context, req gateway.JoinRequest, page gateway.Page) (gateway.Peer, error) {
	p, err := b.Backend.Join(ctx, req, page)
	if err != nil {
		return nil, err
	}
	b.pages <- page
	return &faultyPeer{p, b}, nil
}

type faultyPeer struct {
	gateway.Peer
	b *faulty
}

func (p *faultyPeer) Stop(name network.Protocol) error {
	p.b.stops <- name
	return p.Peer.Stop(name)
}

func (p *faultyPeer) Start(name network.Protocol) error {
	switch name {
	case "panic":
		panic("a fault of the backend")
	case "slow":
		<-p.b.goOn
	}
	return p.Peer.Start(name)
}

func (p *faultyPeer) Leave() {
	if p.b.waits {
		<-p.b.goOn
	}
	p.Peer.Leave()
}

func (p *faultyPeer) Publish(ctx context.Context, topic string, c network.Content) error {
	switch topic {
	case "panic":
		panic("a fault of the backend")
	case "never":
		<-ctx.Done()
		return ctx.Err()
	case "odd":
		return fmt.Errorf("secret detail of %w", context.Canceled)
	}
	return p.Peer.Publish(ctx, topic, c)
}

func startFaulty(t *testing.T, opts ...gatewaytest.Option) (*gatewaytest.Server, *faulty) {
	t.Helper()
	b := newFaulty()
	return gatewaytest.Start(t, append(opts, gatewaytest.WithBackend(b.Backend), gatewaytest.Around(b))...), b
}

func TestPanic_EndsOneSessionAlone(t *testing.T) {
	s, _ := startFaulty(t)
	other := gatewaytest.Join2(t, s, v2.HelloFrame{})
	p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	p.Request("start", map[string]any{"protocol": "panic"})
	if code, reason := p.Closed(); code != 1011 || reason != "internal error" {
		t.Errorf("v2 closed with %d %q", code, reason)
	}
	old.Request("start", `{"protocol":"panic"}`)
	if code, _ := old.Closed(); code != 1011 {
		t.Errorf("v1 closed with %d", code)
	}
	if code, text := other.Fail("publish", map[string]any{"topic": "panic", "data": 1}); code != identity.CodeInternal || text != "internal error" {
		t.Errorf("a publication that panics: %s %q", code, text)
	}
	if code, text := other.Fail("publish", map[string]any{"topic": "odd", "data": 1}); code != identity.CodeInternal || text != "internal error" {
		t.Errorf("a fault without a code: %s %q", code, text)
	}
	other.Call("status", map[string]any{})
	gatewaytest.WaitFor(t, "the others to end", func() bool { return s.Gateway.Sessions() == 1 })
}

// TestPublish_WaitsWithoutHoldingUpOthers has a topic that takes nothing.
func TestPublish_WaitsWithoutHoldingUpOthers(t *testing.T) {
	s, _ := startFaulty(t)
	p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	stuck := p.Request("publish", map[string]any{"topic": "never", "data": 1})
	behind := p.Request("publish", map[string]any{"topic": "never", "data": 2})
	p.Call("publish", map[string]any{"topic": "other", "data": 1})
	p.Call("subscribe", map[string]any{"topic": "never"})
	for _, id := range []uint64{stuck, behind} {
		p.Write(v2.AppendCount(nil, v2.KindCancel, id))
		if e := p.Want(v2.KindError); e[0] != id || e[1] != "cancelled" {
			t.Errorf("error %v", e)
		}
	}
	old.Request("publish", `{"topic":"never","data":1}`)
	old.Call("publish", `{"topic":"other","data":1}`)
	// What waits when the page leaves must not hold up its end.
	p.Request("publish", map[string]any{"topic": "never", "data": 3})
	_ = p.WS.Close(websocket.StatusNormalClosure, "")
	_ = old.WS.Close(websocket.StatusNormalClosure, "")
	gatewaytest.WaitFor(t, "both to end", func() bool { return s.Gateway.Sessions() == 0 })
}

// TestPresence_FloodDoesNotGrowWithoutACap tells a page that isn't there of ever
// more members: changes of membership are never dropped, so the session goes.
func TestPresence_FloodDoesNotGrowWithoutACap(t *testing.T) {
	for _, connected := range []bool{false, true} {
		t.Run(fmt.Sprint("connected ", connected), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, b := startFaulty(t, gatewaytest.WithListener(gatewaytest.NewPipes()),
					gatewaytest.WithConfig(gateway.Config{SessionBuffer: 64 << 10, MaxMessage: 64 << 10}))
				p := gatewaytest.Join2(t, s, v2.HelloFrame{})
				page := <-b.pages
				p.Call("subscribe", map[string]any{"topic": "room"})
				if !connected {
					cut(p.WS)
					synctest.Wait()
				}
				for i := range 10_000 {
					page.Presence("room", network.Member{Peer: identity.PeerID(fmt.Sprint("member ", i))}, true)
				}
				synctest.Wait()
				if s.Gateway.Stats().Flooded == 0 {
					t.Error("nothing was noticed")
				}
				if connected {
					time.Sleep(31 * time.Second) // its grace
				}
				if n := s.Gateway.Sessions(); n != 0 {
					t.Errorf("%d sessions are left", n)
				}
			})
		})
	}
}

func TestHello_WhatIsRefused(t *testing.T) {
	s := gatewaytest.Start(t)
	hello := v2.AppendHello(nil, v2.HelloFrame{Version: 2})
	for name, first := range map[string][]byte{
		"nothing":       {},
		"not CBOR":      {0xff},
		"another frame": v2.AppendCount(nil, v2.KindPing, 1),
		"two frames":    append(append([]byte{}, hello...), hello...),
		"no map":        {0x82, 0x00, 0x02},
		"a key twice":   {0x82, 0x00, 0xa2, 0x61, 'v', 2, 0x61, 'v', 2},
		"v as text":     {0x82, 0x00, 0xa1, 0x61, 'v', 0x61, '2'},
	} {
		t.Run(name, func(t *testing.T) {
			p := gatewaytest.Open2(t, s)
			p.Write(first)
			if code, reason := p.Closed(); code != 1002 || reason == "" {
				t.Errorf("closed with %d %q, want 1002", code, reason)
			}
		})
	}
	t.Run("a session of 15 bytes", func(t *testing.T) {
		p := gatewaytest.Open2(t, s)
		p.Write(v2.AppendHello(nil, v2.HelloFrame{Version: 2, Session: make([]byte, 15)}))
		if bye := p.Want(v2.KindBye); bye[0] != "malformed" {
			t.Errorf("bye %v", bye)
		}
		if code, _ := p.Closed(); code != 1008 {
			t.Errorf("closed with %d", code)
		}
	})
	if n := s.Backend.Joins(); n != 0 {
		t.Errorf("%d peers were made", n)
	}
}

func TestSockets_AreLimitedBeforeTheUpgrade(t *testing.T) {
	const sessions, spare = 1, 256
	inBubble(t, gateway.Config{Sessions: sessions}, func(t *testing.T, s *gatewaytest.Server) { // nobody's time for a hello passes
		for range sessions + spare {
			dialRaw(t, s, "Sec-WebSocket-Protocol", v2.Subprotocol) // says nothing
		}
		_, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+"/ws", &websocket.DialOptions{HTTPHeader: s.Header, HTTPClient: s.Client})
		if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%v, %v; want 503 with Retry-After", resp, err)
		}
	})
}

// TestCookie_LetsThePageIn goes a browser's way: the launch link, its cookie, and
// an upgrade with the page's origin.
func TestCookie_LetsThePageIn(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithAccess(access.Config{}))
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Get(s.Policy.LaunchURL(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	s.Header = http.Header{"Origin": {s.URL}, "Cookie": {resp.Cookies()[0].String()}}
	gatewaytest.Join1(t, s)
	gatewaytest.Join2(t, s, v2.HelloFrame{})
}

// TestHungHandler_HoldsUpItsOwnConversation sends more than a page may hold of
// one conversation, and none of it is settled.
func TestHungHandler_HoldsUpItsOwnConversation(t *testing.T) {
	const most = 1024
	inBubble(t, gateway.Config{Requests: 4096}, func(t *testing.T, s *gatewaytest.Server) {
		a, b, page := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
		page.Call("start", map[string]any{"protocol": "hangs"})
		page.Call("start", map[string]any{"protocol": "works"})
		for range most + 100 {
			a.Send(page.Welcome.Peer, "hangs", 1, network.Handled, false)
		}
		var first []uint64 // deliveries of the conversation that hangs
		confirm := func() { page.Write(v2.AppendCount(nil, v2.KindReceived, page.Got)) }
		for range most {
			first = append(first, page.Want(v2.KindMessage)[0].(uint64))
			confirm()
		}
		for _, from := range []*gatewaytest.Page2{a, b} {
			from.Send(page.Welcome.Peer, "works", 2, network.Handled, false)
			m := page.Want(v2.KindMessage)
			if m[2] != "works" {
				t.Fatalf("message %v: more than %d of one conversation", m, most)
			}
			confirm()
		}
		page.Write(v2.AppendCount(nil, v2.KindHandled, first[0]))
		if m := page.Want(v2.KindMessage); m[2] != "hangs" {
			t.Errorf("message %v, want the next one of the conversation", m)
		}
	})
}

// TestRefusal_HoldsUpNoPage has a message of a sender to whom nothing gets through,
// for a protocol that the page has stopped: the page's other frames don't wait for
// the refusal.
func TestRefusal_HoldsUpNoPage(t *testing.T) {
	s, b := startFaulty(t, gatewaytest.WithConfig(gateway.Config{SessionBuffer: 64 << 10, MaxMessage: 64 << 10}))
	p := gatewaytest.Join2(t, s, v2.HelloFrame{})
	page := <-b.pages
	p.Call("start", map[string]any{"protocol": "chat"})
	p.Call("subscribe", map[string]any{"topic": "room"})
	text, err := cbor.Marshal(strings.Repeat("x", 32<<10))
	if err != nil {
		t.Fatal(err)
	}
	page.Publish(network.Publication{Topic: "room", From: someone(t), Content: network.Content{Type: network.CBOR, Data: text}})
	p.Want(v2.KindPublication) // which the page doesn't confirm, so that nothing more is written to it
	d := &stuckDelivery{from: someone(t), refusing: make(chan struct{}), goOn: make(chan struct{})}
	goOn := sync.OnceFunc(func() { close(d.goOn) })
	defer goOn() // the server waits for it, also when the test has failed
	if err := page.Receive(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	id := p.Request("stop", map[string]any{"protocol": "chat"})
	<-b.stops // the session knows by then
	p.Write(v2.AppendCount(nil, v2.KindReceived, p.Got))
	if got := p.Want(v2.KindResult); got[0] != id {
		t.Errorf("result %v", got)
	}
	<-d.refusing
	goOn()
}

// TestChannel_PageGoesWhileContentsCome: a page that is on its way out takes no
// content any more; the other end is told that it is gone, and not that the channel
// was closed in order.
func TestChannel_PageGoesWhileContentsCome(t *testing.T) {
	s, b := startFaulty(t)
	ann, bob := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
	page := <-b.pages
	ann.JoinSpace("s")
	ann.Listen("s", "p")
	ann.Call("start", map[string]any{"protocol": "chat"})
	bob.JoinSpace("s")
	bob.Open("s", ann.Welcome.Peer, "p", 1)
	d := &stuckDelivery{from: someone(t), refusing: make(chan struct{}), goOn: make(chan struct{})}
	goOn := sync.OnceFunc(func() { close(d.goOn) })
	defer goOn()
	if err := page.Receive(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	_ = ann.WS.Close(websocket.StatusNormalClosure, "")
	<-d.refusing // its session takes nothing any more, and has not left its channels yet
	bob.Content(1, []byte("late"))
	if code, text := bob.WantEnd(1); code != identity.CodeUnknown || text != "the page is gone" {
		t.Errorf("ended with %q %q", code, text)
	}
}

func someone(t *testing.T) identity.PeerID {
	t.Helper()
	id, err := identity.ParsePeerID(nobody)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// stuckDelivery is refused when it may go on.
type stuckDelivery struct {
	from           identity.PeerID
	refusing, goOn chan struct{}
}

func (d *stuckDelivery) From() identity.PeerID      { return d.from }
func (d *stuckDelivery) Protocol() network.Protocol { return "chat" }
func (d *stuckDelivery) Content() network.Content {
	return network.Content{Type: network.JSON, Data: []byte("1")}
}
func (d *stuckDelivery) WantsReply() bool      { return false }
func (d *stuckDelivery) Handled()              {}
func (d *stuckDelivery) Reply(network.Content) {}
func (d *stuckDelivery) Refuse(error) {
	if d.refusing != nil {
		close(d.refusing)
		<-d.goOn
	}
}

func TestShutdown_WhileAPeerIsMade(t *testing.T) {
	b := &slowJoin{Backend: gatewaytest.NewBackend(), joining: make(chan struct{}), goOn: make(chan struct{})}
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b.Backend), gatewaytest.Around(b))
	p := gatewaytest.Open2(t, s)
	p.Write(v2.AppendHello(nil, v2.HelloFrame{Version: 2}))
	<-b.joining
	stopped := make(chan error, 1)
	go func() { stopped <- s.Gateway.Shutdown(t.Context()) }()
	gatewaytest.WaitFor(t, "the session to be ended", func() bool { return s.Gateway.Sessions() == 0 })
	close(b.goOn)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := s.Backend.Peers(); n != 0 {
		t.Errorf("%d peers are left", n)
	}
	p.Closed()
}

// TestShutdown_SessionsWithoutSocketHoldUpNobody: they end side by side, however long
// each takes.
func TestShutdown_SessionsWithoutSocketHoldUpNobody(t *testing.T) {
	b := &slowLeave{Backend: gatewaytest.NewBackend()}
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b.Backend), gatewaytest.Around(b))
	const pages = 10
	b.leaving.Add(pages)
	for range pages {
		cut(gatewaytest.Join2(t, s, v2.HelloFrame{}).WS)
	}
	gatewaytest.WaitFor(t, "the sockets to be gone", func() bool { return s.Gateway.Stats().Sockets == 0 })
	if err := s.Gateway.Shutdown(t.Context()); err != nil || s.Gateway.Sessions() != 0 {
		t.Errorf("%d sessions are left: %v", s.Gateway.Sessions(), err)
	}
}

// slowLeave has peers that leave when all of them do.
type slowLeave struct {
	*gatewaytest.Backend
	leaving sync.WaitGroup
}

func (b *slowLeave) Join(ctx context.Context, req gateway.JoinRequest, page gateway.Page) (gateway.Peer, error) {
	p, err := b.Backend.Join(ctx, req, page)
	return &slowPeer{p, b}, err
}

type slowPeer struct {
	gateway.Peer
	of *slowLeave
}

func (p *slowPeer) Leave() {
	p.of.leaving.Done()
	p.of.leaving.Wait()
	p.Peer.Leave()
}

// slowJoin makes peers when it is told to go on.
type slowJoin struct {
	*gatewaytest.Backend
	joining, goOn chan struct{}
}

func (b *slowJoin) Join(ctx context.Context, req gateway.JoinRequest, page gateway.Page) (gateway.Peer, error) {
	close(b.joining)
	<-b.goOn
	return b.Backend.Join(ctx, req, page)
}

func TestPanic_InJoinIsAnError(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.Around(panicJoin{}))
	if e := gatewaytest.Open1(t, s).Fail("peer", "{}"); e.Code != 500 || e.Message != "internal error" {
		t.Errorf("v1: %v", e)
	}
	p := gatewaytest.Open2(t, s)
	p.Write(v2.AppendHello(nil, v2.HelloFrame{Version: 2}))
	if bye := p.Want(v2.KindBye); bye[0] != "internal" {
		t.Errorf("v2: %v", bye)
	}
}

type panicJoin struct{}

func (panicJoin) Join(context.Context, gateway.JoinRequest, gateway.Page) (gateway.Peer, error) {
	panic("a fault of the backend")
}
