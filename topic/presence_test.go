package topic

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	lnet "github.com/libp2p/go-libp2p/core/network"

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
	<-claims // each node has told it
	<-claims
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
	if m := p.next(t); m.GetFrom() != a.id || string(m.Data) != `{"z":1,"a":2}` {
		t.Errorf("got %s from %s", m.Data, m.GetFrom())
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
	if got := n.Stats().Dropped[DropNotJSON]; got != 1 {
		t.Errorf("counted %d that aren't JSON", got)
	}
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

// liar speaks presence as it likes.
type liar struct {
	host host.Host
	key  identity.Key
}

func newLiar(t *testing.T, n *testNode) *liar {
	l := &liar{host: newHost(t), key: newKey(t)}
	t.Cleanup(func() { _ = l.host.Close() })
	connectHosts(t, l.host, n.host)
	return l
}

func (l *liar) record(t *testing.T, change func(*claim)) []byte {
	t.Helper()
	c := claim{topic: "room", node: l.host.ID(), seq: 1, expires: time.Now().Add(time.Minute)}
	if change != nil {
		change(&c)
	}
	raw, err := signClaim(l.key, c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// tell writes frames on a stream of its own.
func (l *liar) tell(t *testing.T, n *testNode, frames []byte) network.Stream {
	t.Helper()
	s, err := hostNetwork{l.host}.Open(context.Background(), n.host.ID(), presenceProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	_, _ = s.Write(frames) // it may be cut off before it has said all
	return s
}

// untilEnded waits until the other side has ended the stream.
func untilEnded(t *testing.T, s network.Stream) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	_, err := s.Read(make([]byte, 1))
	if timeout, ok := err.(interface{ Timeout() bool }); err == nil || ok && timeout.Timeout() {
		t.Errorf("the stream goes on: %v", err)
	}
}

func TestAbuse32_FalsePresence(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	l := newLiar(t, n)
	good := l.record(t, nil)
	forged := slices.Clone(good)
	forged[len(forged)-1] ^= 1
	stranger := l.record(t, func(c *claim) { c.node = a.id })
	for name, frames := range map[string][]byte{
		"forged":           appendFrame(nil, frameAnnounce, forged),
		"of another node":  appendFrame(nil, frameAnnounce, stranger),
		"expired":          appendFrame(nil, frameAnnounce, l.record(t, func(c *claim) { c.expires = time.Now() })),
		"empty frame":      {0},
		"huge frame":       binary.AppendUvarint(nil, 1<<62),
		"endless length":   {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
		"broken leave":     appendFrame(nil, frameLeave, []byte{1}),
		"broken forget":    appendFrame(nil, frameForget, []byte{9, 'x'}),
		"record of 100 KB": appendFrame(nil, frameAnnounce, make([]byte, 100_000)),
	} {
		t.Run(name, func(t *testing.T) {
			untilEnded(t, l.tell(t, n, frames))
			if got := a.Members("room"); len(got) != 0 {
				t.Errorf("lists %v", got)
			}
		})
	}
	if n.Stats().Dropped[DropRecord] == 0 {
		t.Error("nothing was counted")
	}
	// The same peer may still tell the truth.
	s := l.tell(t, n, appendFrame(appendFrame(nil, 99, []byte("to come")), frameAnnounce, good))
	a.untilMember(t, "room", l.key.PeerID(), true)
	if _, err := s.Write(appendFrame(nil, frameLeave, leaveBody("room", l.key.Agent()))); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", l.key.PeerID(), false)
	if _, err := s.Write(appendFrame(nil, frameAnnounce, l.record(t, func(c *claim) { c.seq = 2 }))); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", l.key.PeerID(), true)
	if _, err := s.Write(appendFrame(nil, frameForget, appendPrefixed(nil, "room"))); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", l.key.PeerID(), false)
}

// TestAbuse32_PresenceFlood: a node can't fill this one's memory.
func TestAbuse32_PresenceFlood(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	l := newLiar(t, n)
	var frames []byte
	for i := range maxUnknownClaims + 50 {
		frames = appendFrame(frames, frameAnnounce, l.record(t, func(c *claim) { c.topic = fmt.Sprint("topic", i) }))
	}
	frames = appendFrame(frames, frameAnnounce, l.record(t, nil)) // one that is wanted
	l.tell(t, n, frames)
	a.untilMember(t, "room", l.key.PeerID(), true)
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := n.told.links[l.host.ID()].claims; got != maxUnknownClaims+1 {
		t.Errorf("keeps %d claims", got)
	}
}

// TestNewerStreamReplaces: what an older stream of a node told is gone when a
// newer one begins, and its end takes nothing of the newer one's back.
func TestNewerStreamReplaces(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	l := newLiar(t, n)
	first := l.tell(t, n, appendFrame(nil, frameAnnounce, l.record(t, nil)))
	a.untilMember(t, "room", l.key.PeerID(), true)
	l.key = newKey(t)
	second := l.tell(t, n, appendFrame(nil, frameAnnounce, l.record(t, nil)))
	a.untilMember(t, "room", l.key.PeerID(), true)
	untilEnded(t, first)
	if got := a.Members("room"); len(got) != 1 || got[0].Peer != l.key.PeerID() {
		t.Errorf("members are %v", got)
	}
	_ = second.Close()
	a.untilMember(t, "room", l.key.PeerID(), false)
}

func FuzzPresenceFrames(f *testing.F) {
	f.Add(appendFrame(nil, frameForget, appendPrefixed(nil, "room")))
	f.Add(appendFrame(nil, frameLeave, leaveBody("room", identity.AgentID{})))
	n := New(&Router{meter: newMeter(f.Context(), defaultQueue)}, hostNetwork{}, Config{})
	f.Fuzz(func(t *testing.T, frames []byte) {
		s := &readStream{rest: frames}
		n.mu.Lock()
		l := n.link(bob)
		l.stream = s
		n.mu.Unlock()
		_ = n.hear(t.Context(), l, s, nil)
		if l.claims != 0 {
			t.Fatal("believes an unsigned claim")
		}
	})
}

// readStream is a stream whose other side has written all it will.
type readStream struct {
	network.Stream
	rest []byte
}

func (s *readStream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *readStream) Reset() error { return nil }
