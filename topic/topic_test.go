package topic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestOnePageHearsItself(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	if m := a.subscribe(t, "room"); len(m) != 0 {
		t.Errorf("members are %v", m)
	}
	a.publish(t, "room", `{"b":1,"a":12345678901234567890}`)
	a.publish(t, "other", `1`)
	a.publish(t, "room", `2`)
	a.untilCount(t, 2)
	if got := a.texts(); !slices.Equal(got, []string{`{"b":1,"a":12345678901234567890}`, `2`}) {
		t.Errorf("got %q", got)
	}
	if p := a.got[0]; p.From != a.id || p.Topic != "room" {
		t.Errorf("got %+v", p)
	}
}

func TestMembersOfOneNode(t *testing.T) {
	n := newNode(t)
	a, b, c := n.page(t), n.page(t), n.page(t)
	a.subscribe(t, "room")
	state := []byte{0x61, 'x'}
	found, err := b.Subscribe(context.Background(), "room", state)
	if err != nil || len(found) != 1 || found[0].Peer != a.id {
		t.Errorf("found %v, %v", found, err)
	}
	c.subscribe(t, "room")
	if got := len(c.Members("room")); got != 2 {
		t.Errorf("c sees %d members", got)
	}
	if err := b.Unsubscribe("room"); err != nil {
		t.Error(err)
	}
	c.Leave()
	want := []string{
		presenceText("room", network.Member{Peer: b.id, State: state}, true),
		presenceText("room", network.Member{Peer: c.id}, true),
		presenceText("room", network.Member{Peer: b.id, State: state}, false),
		presenceText("room", network.Member{Peer: c.id}, false),
	}
	a.until(t, "presence", func() bool { return len(a.told()) >= len(want) })
	if got := a.told(); !slices.Equal(got, want) {
		t.Errorf("a was told %q, want %q", got, want)
	}
	if got := a.Members("room"); len(got) != 0 {
		t.Errorf("a still sees %v", got)
	}
}

func TestTwoNodes(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, b, c := m.page(t), n.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	c.subscribe(t, "room")
	a.untilMember(t, "room", b.id, true)
	a.untilMember(t, "room", c.id, true)
	b.untilMember(t, "room", a.id, true)
	a.publish(t, "room", `"from a"`)
	b.publish(t, "room", `"from b"`)
	for _, p := range []*page{a, b, c} {
		p.untilCount(t, 2)
		if got := p.texts(); len(got) != 2 || !slices.Contains(got, `"from a"`) || !slices.Contains(got, `"from b"`) {
			t.Errorf("got %q", got)
		}
	}
	var everyone []identity.PeerID
	for _, p := range a.Members("") {
		everyone = append(everyone, p.Peer)
	}
	if len(everyone) != 2 || !slices.Contains(everyone, b.id) || !slices.Contains(everyone, c.id) {
		t.Errorf("everyone is %v", everyone) // the node itself isn't
	}
	b.Leave()
	a.untilMember(t, "room", b.id, false)
	n.close()
	a.untilMember(t, "room", c.id, false)
}

func TestPublishBeforeAnybodyIsConnected(t *testing.T) {
	m, n := newNode(t), newNode(t)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	for i := range 10 {
		a.publish(t, "room", fmt.Sprint(i))
	}
	b.subscribe(t, "room")
	connect(t, m, n)
	b.untilCount(t, 10)
	a.publish(t, "room", `"after"`)
	b.untilCount(t, 11)
	a.untilCount(t, 11)
	want := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", `"after"`}
	if got := b.texts(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := a.texts(); !slices.Equal(got, want) {
		t.Errorf("the publisher got %q", got)
	}
}

// TestGreeting: a page that publishes as soon as it is told of a new member is
// heard by it.
func TestGreeting(t *testing.T) {
	m := newNode(t)
	a := m.page(t)
	a.subscribe(t, "room")
	for range 5 {
		n := newNode(t)
		connect(t, m, n)
		b := n.page(t)
		b.subscribe(t, "room")
		a.untilMember(t, "room", b.id, true)
		a.publish(t, "room", `"welcome"`)
		b.untilCount(t, 1)
		b.untilMember(t, "room", a.id, true)
		b.publish(t, "room", `"thanks"`)
		a.until(t, "thanks", func() bool { return slices.Contains(a.texts(), `"thanks"`) })
		n.close()
		a.untilMember(t, "room", b.id, false)
		a.sink.mu.Lock()
		a.sink.got = nil
		a.sink.mu.Unlock()
	}
}

func TestSharedKey(t *testing.T) {
	n := newNode(t)
	key := newKey(t)
	one, two, other := n.pageOf(key), n.pageOf(key), n.page(t)
	other.subscribe(t, "room")
	one.subscribe(t, "room")
	if m := two.subscribe(t, "room"); len(m) != 1 || m[0].Peer != other.id {
		t.Errorf("second session found %v", m)
	}
	one.publish(t, "room", "1")
	for _, p := range []*page{one, two, other} {
		p.untilCount(t, 1)
	}
	one.Leave()
	if m := other.Members("room"); len(m) != 1 {
		t.Errorf("after one of two sessions left: %v", m)
	}
	two.Leave()
	other.untilMember(t, "room", key.PeerID(), false)
	other.until(t, "told of both", func() bool { return len(other.told()) >= 2 })
	if told := other.told(); len(told) != 2 {
		t.Errorf("told %q", told)
	}
	if told := two.told(); len(told) != 0 {
		t.Errorf("a session was told of its own peer: %q", told)
	}
}

func TestNames(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	for _, c := range []struct {
		name, topic string
		code        identity.Code
		text        string
	}{
		{"empty", "", identity.CodeMalformed, "topic is empty"},
		{"longest", strings.Repeat("x", 256), "", ""},
		{"too long", strings.Repeat("x", 257), identity.CodeMalformed, "topic has 257 bytes, limit 256"},
		{"reserved", "/parley/x", identity.CodeReserved, "topic is reserved: /parley/x"},
		{"of a space", "parley/space/x", identity.CodeReserved, "topic is reserved: parley/space/x"},
		{"not UTF-8", "a\xff", identity.CodeMalformed, "topic is not valid UTF-8"},
		{"right to left text", "שלום", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.Subscribe(context.Background(), c.topic, nil)
			if identity.CodeOf(err) != c.code || err != nil && err.Error() != c.text {
				t.Errorf("subscribe: %v", err)
			}
			err = a.Page.Publish(context.Background(), c.topic, jsonText("1"))
			if identity.CodeOf(err) != c.code {
				t.Errorf("publish: %v", err)
			}
			if err := a.Unsubscribe(c.topic); identity.CodeOf(err) != c.code {
				t.Errorf("unsubscribe: %v", err)
			}
		})
	}
}

func TestAbuse24_TopicNames(t *testing.T) {
	for _, name := range []string{"a\x00b", strings.Repeat("x", 64<<10), "gnp.\u202Eexe", "a\u2066b", "line\nbreak", "\u0085"} {
		if err := checkName(name); identity.CodeOf(err) != identity.CodeMalformed {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

func TestAbuse23_TopicsOfOnePage(t *testing.T) {
	n := newNode(t, func(c *Config, _ *bool) { c.MaxPageTopics = 3; c.MaxTopics = 5 })
	a, b := n.page(t), n.page(t)
	for i := range 3 {
		a.subscribe(t, fmt.Sprint("a", i))
	}
	_, err := a.Subscribe(context.Background(), "one more", nil)
	if identity.CodeOf(err) != identity.CodeLimit || err.Error() != "too many topics subscribed, limit 3" {
		t.Errorf("fourth topic: %v", err)
	}
	a.subscribe(t, "a0") // again
	b.subscribe(t, "b0")
	b.subscribe(t, "b1")
	if _, err := b.Subscribe(context.Background(), "b2", nil); err == nil || err.Error() != "too many topics on this node, limit 5" {
		t.Errorf("sixth topic of the node: %v", err)
	}
}

func TestAbuse25_PublishTooLarge(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	a.untilMember(t, "room", b.id, true)
	largest := `"` + strings.Repeat("x", MaxMessage-2) + `"`
	err := a.Page.Publish(context.Background(), "room", jsonText(largest[:2]+largest[1:]))
	if identity.CodeOf(err) != identity.CodeTooLarge || err.Error() != "message too large: 1048577 bytes, limit 1048576" {
		t.Errorf("one byte more: %v", err)
	}
	raw := make([]byte, MaxMessage-100)
	if err := a.Page.Publish(context.Background(), "room", network.Content{Type: network.Bytes, Data: raw}); identity.CodeOf(err) != identity.CodeTooLarge {
		t.Errorf("bytes that are too large as JSON: %v", err)
	}
	a.publish(t, "room", largest)
	b.untilCount(t, 1)
	if got := b.texts()[0]; got != largest {
		t.Errorf("got %d bytes", len(got))
	}
}

func TestContentOnItsWay(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, here, there := m.page(t), m.page(t), n.page(t)
	for _, p := range []*page{a, here, there} {
		p.subscribe(t, "room")
	}
	a.untilMember(t, "room", there.id, true)
	item := []byte{0xa1, 0x61, 'd', 0x43, 1, 2, 3}
	lookalike := `{"$bytes":"AQID"}`
	for _, c := range []network.Content{
		{Type: network.CBOR, Data: item}, {Type: network.Bytes, Data: []byte{9}}, jsonText(lookalike),
	} {
		if err := a.Page.Publish(context.Background(), "room", c); err != nil {
			t.Fatal(err)
		}
	}
	here.untilCount(t, 3)
	there.untilCount(t, 3)
	check := func(who string, p *page, want ...network.Content) {
		for i, w := range want {
			if got := p.got[i].Content; got.Type != w.Type || string(got.Data) != string(w.Data) {
				t.Errorf("%s: content %d is %d %x, want %d %x", who, i, got.Type, got.Data, w.Type, w.Data)
			}
		}
	}
	check("same node", here, network.Content{Type: network.CBOR, Data: item}, network.Content{Type: network.Bytes, Data: []byte{9}}, jsonText(lookalike))
	check("other node", there, network.Content{Type: network.CBOR, Data: item}, network.Content{Type: network.CBOR, Data: []byte{0x41, 9}}, jsonText(lookalike))
}

func TestClosedNode(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	n.close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := a.Subscribe(ctx, "other", nil); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("subscribe: %v", err)
	}
	if err := a.Page.Publish(ctx, "room", jsonText("1")); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("publish: %v", err)
	}
	a.Leave()
	if got := a.Members("room"); len(got) != 0 {
		t.Errorf("members: %v", got)
	}
}

func TestCancelledContext(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.Subscribe(ctx, "room", nil); err != nil && identity.CodeOf(err) != identity.CodeCancelled {
		t.Errorf("subscribe: %v", err)
	}
	a.subscribe(t, "room")
	if _, err := a.Subscribe(ctx, "room", nil); err != nil && identity.CodeOf(err) != identity.CodeCancelled {
		t.Errorf("again: %v", err)
	}
	a.publish(t, "room", "1")
	a.untilCount(t, 1) // a cancelled second subscribe takes nothing away
}

func TestLeaveIsFinal(t *testing.T) {
	n := newNode(t)
	a, b := n.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	b.Leave()
	b.Leave()
	a.publish(t, "room", "1")
	a.untilCount(t, 1)
	if got := b.texts(); len(got) != 0 {
		t.Errorf("after leaving: %q", got)
	}
	if _, err := b.Subscribe(context.Background(), "room", nil); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("subscribe: %v", err)
	}
	if err := b.Page.Publish(context.Background(), "room", jsonText("1")); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("publish: %v", err)
	}
}

func TestRouterLessPresence(t *testing.T) {
	m, n := newNode(t, plain), newNode(t, plain)
	connect(t, m, n)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	a.untilMember(t, "room", n.host.ID(), true)
	if got := a.Members(""); len(got) != 1 || got[0].Peer != n.host.ID() {
		t.Errorf("everyone is %v", got)
	}
}
