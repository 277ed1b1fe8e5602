package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/consent"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

type kept struct{}

func (kept) Load() ([]byte, error) { return nil, nil }
func (kept) Save([]byte) error     { return nil }

// allowed starts a gateway that a page of another site may use for some names,
// and gives the server as that page sees it.
func allowed(t *testing.T, scope consent.Scope, opts ...gatewaytest.Option) (s, theirs *gatewaytest.Server, book *consent.Book) {
	t.Helper()
	book, err := consent.Open(kept{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := book.Put("https://a.example", scope, true)
	if err != nil {
		t.Fatal(err)
	}
	s = gatewaytest.Start(t, append(opts, gatewaytest.WithAccess(access.Config{Bearer: "test-token", Grants: book}))...)
	book.OnEnd(s.Gateway.Dismiss)
	return s, s.As(http.Header{"Origin": {"https://a.example"}}, access.GrantPrefix+a.Token), book
}

// TestAbuse06_NamesOfAnotherApp: with its grant a page reaches its own protocols
// and topics; every other is denied by name, and the session goes on.
func TestAbuse06_NamesOfAnotherApp(t *testing.T) {
	s, theirs, _ := allowed(t, consent.Scope{Protocols: []string{"chat"}, Topics: []string{"room/*"}})
	b := gatewaytest.Join2(t, s, v2.HelloFrame{}) // a page of the node: no bounds
	b.Call("start", map[string]any{"protocol": "bank"})
	b.Call("start", map[string]any{"protocol": "chat"})
	a := gatewaytest.Join2(t, theirs, v2.HelloFrame{})
	for _, tt := range []struct {
		method string
		params map[string]any
		names  string // in the error
	}{
		{"start", map[string]any{"protocol": "bank"}, `protocol "bank"`},
		{"subscribe", map[string]any{"topic": "secret"}, `topic "secret"`},
		{"subscribe", map[string]any{"topic": "room"}, `topic "room"`},
		{"publish", map[string]any{"topic": "secret", "data": 1}, `topic "secret"`},
		{"members", map[string]any{"topic": "secret"}, `topic "secret"`},
		{"members", map[string]any{"topic": ""}, `topic ""`},
		{"addPeers", map[string]any{"peers": []string{b.Welcome.Peer}, "addresses": []string{"/ip4/10.0.0.1/tcp/22/p2p/" + b.Welcome.Peer}}, "addresses"},
	} {
		if code, text := a.Fail(tt.method, tt.params); code != identity.CodeForbidden || !strings.Contains(text, tt.names) {
			t.Errorf("%s %v: %s %s", tt.method, tt.params, code, text)
		}
	}
	id := a.Send(b.Welcome.Peer, "bank", "give", network.Handled, false)
	if e := a.Want(v2.KindError); e[0] != id || e[1] != "forbidden" || !strings.Contains(e[2].(string), `"bank"; it was allowed: chat`) {
		t.Errorf("send to another app: %v", e)
	}

	a.Call("start", map[string]any{"protocol": "chat"})
	a.Call("subscribe", map[string]any{"topic": "room/1"})
	a.Call("addPeers", map[string]any{"peers": []string{b.Welcome.Peer}})
	id = a.Send(b.Welcome.Peer, "chat", "hello", network.Handled, false)
	b.Want(v2.KindMessage)
	b.Write(v2.AppendCount(nil, v2.KindHandled, 1))
	if r := a.Want(v2.KindResult); r[0] != id {
		t.Errorf("send: %v", r)
	}
}

// A permission that is taken back ends the sessions that live by it, those in
// their grace too, and no others.
func TestConsent_TakenBackEndsSessions(t *testing.T) {
	s, theirs, book := allowed(t, consent.Scope{Protocols: []string{"chat"}})
	own := gatewaytest.Join2(t, s, v2.HelloFrame{})
	a, lost := gatewaytest.Join2(t, theirs, v2.HelloFrame{}), gatewaytest.Join2(t, theirs, v2.HelloFrame{})
	_ = lost.WS.CloseNow()
	if err := book.Forget("https://a.example"); err != nil {
		t.Fatal(err)
	}
	if code, reason := a.Closed(); code != 1008 {
		t.Errorf("closed with %d %s", code, reason)
	}
	gatewaytest.WaitFor(t, "the other session to end, whether or not its socket was known to be lost", func() bool { return s.Gateway.Sessions() == 1 })
	own.Call("status", map[string]any{})
}

// A session whose socket has ended, though its reader is busy still, goes with the
// permission: it gets no grace.
func TestConsent_TakenBackWhileASocketEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty()
		scope := consent.Scope{Protocols: []string{"slow"}, Topics: []string{"room"}}
		s, theirs, book := allowed(t, scope, gatewaytest.WithListener(gatewaytest.NewPipes()), gatewaytest.WithBackend(b.Backend), gatewaytest.Around(b),
			gatewaytest.WithConfig(gateway.Config{SessionBuffer: 64 << 10, MaxMessage: 64 << 10}))
		p := gatewaytest.Join2(t, theirs, v2.HelloFrame{})
		page := <-b.pages
		p.Call("subscribe", map[string]any{"topic": "room"})
		p.Request("start", map[string]any{"protocol": "slow"})
		for range 2 { // the page confirms nothing, and is let go
			page.Publish(network.Publication{Topic: "room", From: someone(t), Content: network.Content{Type: network.JSON, Data: []byte(strings.Repeat("1", 20<<10))}})
		}
		time.Sleep(31 * time.Second)
		if err := book.Forget("https://a.example"); err != nil {
			t.Fatal(err)
		}
		close(b.goOn)
		synctest.Wait()
		if n := s.Gateway.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// Pages of other sites speak v2; v1 has no words for what is not allowed.
func TestConsent_V2Alone(t *testing.T) {
	_, theirs, _ := allowed(t, consent.Scope{})
	p := gatewaytest.Open1(t, theirs)
	if _, err := p.Read(); err == nil {
		t.Fatal("v1 is spoken")
	} else if code, _ := gatewaytest.CloseOf(err); code != 1008 {
		t.Errorf("closed with %d", code)
	}
}

// TestAbuse06_NoSpacesForPagesWithAScope: what the person allowed names protocols
// and topics. A channel of such a protocol would reach agents that it doesn't
// cover, so there are no channels.
func TestAbuse06_NoSpacesForPagesWithAScope(t *testing.T) {
	s, theirs, _ := allowed(t, consent.Scope{Protocols: []string{"chat"}, Topics: []string{"s"}})
	own, p := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, theirs, v2.HelloFrame{})
	own.JoinSpace("s")
	own.Listen("s", "chat")
	refused := func(want identity.Code, method string, params map[string]any) {
		t.Helper()
		if code, text := p.Fail(method, params); code != want {
			t.Errorf("%s: %s %q, want %s", method, code, text, want)
		}
	}
	refused(identity.CodeForbidden, "join", map[string]any{"space": "s"})
	refused(identity.CodeNotJoined, "open", gatewaytest.OpenParams("s", own.Welcome.Peer, "chat", 1))
	refused(identity.CodeNotJoined, "listen", map[string]any{"space": "s", "protocol": "chat", "window": gatewaytest.PageWindow})
	if n := s.Backend.Rooms(); n != 1 {
		t.Errorf("%d rooms are held", n)
	}
}
