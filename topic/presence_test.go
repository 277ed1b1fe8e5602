package topic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	lnet "github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestStateOfMembers(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	ctx := context.Background()
	for _, s := range []string{"x", "y"} {
		if _, err := b.Subscribe(ctx, "room", append([]byte{0x61}, s...)); err != nil {
			t.Fatal(err)
		}
		want := presenceText("room", network.Member{Peer: b.id, State: append([]byte{0x61}, s...)}, true)
		a.until(t, want, func() bool { return slices.Contains(a.told(), want) })
	}
	for name, state := range map[string][]byte{"not CBOR": {0xff}, "two items": {1, 1}} {
		if _, err := b.Subscribe(ctx, "room", state); identity.CodeOf(err) != identity.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := append([]byte{0x59, 4, 0}, make([]byte, 1024)...)
	if _, err := b.Subscribe(ctx, "room", large); identity.CodeOf(err) != identity.CodeTooLarge {
		t.Errorf("large: %v", err)
	}
}

func TestConnectionLossAndReturn(t *testing.T) {
	m, n := newNode(t), newNode(t)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	for range 3 {
		connect(t, m, n)
		a.untilMember(t, "room", b.id, true)
		b.untilMember(t, "room", a.id, true)
		disconnect(t, m.host, n.host)
		a.untilMember(t, "room", b.id, false)
		b.untilMember(t, "room", a.id, false)
	}
}

// TestQuickReturn: a room that is left and entered again at once still has its
// members, whatever of it the other node notices.
func TestQuickReturn(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	for range 20 {
		b.subscribe(t, "room")
		if err := b.Unsubscribe("room"); err != nil {
			t.Fatal(err)
		}
	}
	b.subscribe(t, "room")
	a.untilMember(t, "room", b.id, true)
	b.untilMember(t, "room", a.id, true)
	if err := b.Unsubscribe("room"); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", b.id, false)
}

// TestPrivacy: a node hears of no topic that it isn't in itself.
func TestPrivacy(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "secret")
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	b.untilMember(t, "room", a.id, true)
	n.mu.Lock()
	for topic := range n.told.links[m.host.ID()].theirs {
		if topic != "room" {
			t.Errorf("was told of %q", topic)
		}
	}
	n.mu.Unlock()
	if err := b.Unsubscribe("room"); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", b.id, false)
	b.subscribe(t, "secret") // now it is in it
	b.untilMember(t, "secret", a.id, true)
}

func TestAddressesAreLearned(t *testing.T) {
	learned := make(chan string, 10)
	m := newNode(t, func(c *Config, _ *bool) {
		c.Learned = func(p identity.PeerID, addresses []string) { learned <- fmt.Sprint(p, addresses) }
	})
	address := "/ip4/192.0.2.1/tcp/1"
	n := newNode(t, func(c *Config, _ *bool) {
		c.Addresses = func(identity.PeerID) []string { return []string{address} }
	})
	connect(t, m, n)
	a, b := m.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	expect := func() {
		t.Helper()
		select {
		case got := <-learned:
			if want := fmt.Sprint(b.id, []string{address}); got != want {
				t.Errorf("learned %s, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatal("learned nothing")
		}
	}
	expect()
	n.Refresh(b.id)
	expect()
}

func TestOneKeyOnTwoNodes(t *testing.T) {
	claims := make(chan identity.PeerID, 10)
	addressed := func(c *Config, _ *bool) {
		c.Addresses = func(identity.PeerID) []string { return []string{"/ip4/192.0.2.1/tcp/1"} }
	}
	m, n := newNode(t, addressed), newNode(t, addressed)
	o := newNode(t, func(c *Config, _ *bool) { c.Learned = func(p identity.PeerID, _ []string) { claims <- p } })
	connect(t, m, n, o)
	key := newKey(t)
	one, two, other := m.pageOf(key), n.pageOf(key), o.page(t)
	other.subscribe(t, "room")
	one.subscribe(t, "room")
	two.subscribe(t, "room")
	<-claims
	eventually(t, "both nodes to have told of it", func() bool { return len(o.Where("room", key.PeerID())) == 2 })
	o.untilReady(t, "room", 2)
	other.untilMember(t, "room", key.PeerID(), true)
	one.Leave()
	other.publish(t, "room", "1")
	two.untilCount(t, 1)
	if got := other.Members("room"); len(got) != 1 {
		t.Errorf("after one of two left: %v", got)
	}
	two.Leave()
	other.untilMember(t, "room", key.PeerID(), false)
}

// plainPeer is a GossipSub peer that isn't parley's, as the reference is.
type plainPeer struct {
	host  host.Host
	topic *pubsub.Topic
	sub   *pubsub.Subscription
}

func newPlainPeer(t testing.TB, name string, options ...pubsub.Option) *plainPeer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &plainPeer{host: newHost(t)}
	t.Cleanup(func() { cancel(); _ = p.host.Close() })
	ps, err := pubsub.NewGossipSub(ctx, p.host, options...)
	if err != nil {
		t.Fatal(err)
	}
	if p.topic, err = ps.Join(name); err != nil {
		t.Fatal(err)
	}
	if p.sub, err = p.topic.Subscribe(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plainPeer) next(t testing.TB) *pubsub.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		m, err := p.sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.ReceivedFrom != p.host.ID() {
			return m
		}
	}
}

func (p *plainPeer) publish(t testing.TB, text string) {
	t.Helper()
	if err := p.topic.Publish(context.Background(), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestPlainGossipSubPeer(t *testing.T) {
	n := newNode(t, func(c *Config, _ *bool) { c.Namespace = "app" })
	p := newPlainPeer(t, "app/room", pubsub.WithFloodPublish(true))
	a := n.page(t)
	a.subscribe(t, "room")
	connectHosts(t, n.host, p.host)
	a.untilMember(t, "room", p.host.ID(), true)
	if got := a.Members(""); len(got) != 1 || got[0].Peer != p.host.ID() {
		t.Errorf("everyone is %v", got)
	}
	a.publish(t, "room", `{"z":1,"a":2}`)
	m := p.next(t)
	if m.GetFrom() != a.id || string(m.Data) != `{"z":1,"a":2}` || len(m.Seqno) != 8 || m.GetTopic() != "app/room" {
		t.Errorf("got %s from %s in %s, number %x", m.Data, m.GetFrom(), m.GetTopic(), m.Seqno)
	}
	unsigned := &pb.Message{From: m.From, Data: m.Data, Topic: m.Topic, Seqno: m.Seqno}
	raw, err := proto.Marshal(unsigned)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := a.key.Libp2p().GetPublic().Verify(append([]byte(pubsub.SignPrefix), raw...), m.Signature); err != nil || !ok {
		t.Errorf("not signed by the page: %v", err)
	}
	if err := a.Page.Publish(context.Background(), "room", network.Content{Type: network.Bytes, Data: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if m := p.next(t); string(m.Data) != ` {"$bytes":"AQ=="}` {
		t.Errorf("bytes came as %s", m.Data)
	}
	p.publish(t, "not JSON")
	p.publish(t, `{"$bytes":"AQ=="}`)
	a.untilCount(t, 3)
	if got := a.got[2]; got.From != p.host.ID() || got.Content.Type != network.JSON || string(got.Content.Data) != `{"$bytes":"AQ=="}` {
		t.Errorf("got %+v", got)
	}
	eventually(t, "one that isn't JSON to be counted", func() bool { return n.Stats().Dropped[DropNotJSON] == 1 }) // it may come behind the other
	disconnect(t, n.host, p.host)
	a.untilMember(t, "room", p.host.ID(), false)
}

// TestPlainPeerBeforeMesh: a plain peer gets what was published before it came.
func TestPlainPeerBeforeMesh(t *testing.T) {
	n := newNode(t)
	p := newPlainPeer(t, "room")
	a := n.page(t)
	a.publish(t, "room", `"early"`) // not even subscribed
	connectHosts(t, n.host, p.host)
	if m := p.next(t); string(m.Data) != `"early"` {
		t.Errorf("got %s", m.Data)
	}
}

// TestStreamLoss: a stream that breaks while the connection holds is made anew,
// and neither side forgets what the other subscribes to.
func TestStreamLoss(t *testing.T) {
	n, other := newNode(t), newNode(t)
	p := newPlainPeer(t, "room", pubsub.WithFloodPublish(true))
	a, b := n.page(t), other.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	connectHosts(t, n.host, p.host)
	connect(t, n, other)
	a.untilMember(t, "room", p.host.ID(), true)
	a.untilMember(t, "room", b.id, true)
	for _, h := range []host.Host{p.host, other.host} {
		for _, c := range h.Network().ConnsToPeer(n.host.ID()) {
			for _, s := range c.GetStreams() {
				if strings.HasPrefix(string(s.Protocol()), "/meshsub/") && s.Stat().Direction == lnet.DirInbound {
					_ = s.Reset()
				}
			}
		}
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		p.next(t)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done || len(b.texts()) == 0; {
		a.publish(t, "room", `"still there"`)
		select {
		case <-heard:
			done, heard = true, nil
		case <-tick.C:
		}
	}
	p.publish(t, `"I too"`)
	a.until(t, "the plain peer", func() bool { return slices.Contains(a.texts(), `"I too"`) })
	b.publish(t, "room", `"and I"`)
	a.until(t, "the other node", func() bool { return slices.Contains(a.texts(), `"and I"`) })
}
