package topic

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	lnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	noise "github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

func newKey(t testing.TB) identity.Key {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.Identity(newKey(t).Libp2p()), libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&lnet.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// testNode is a node of a loopback network.
type testNode struct {
	*Node
	host   host.Host
	net    *peertest.Libp2p
	router *Router
	done   chan error
	cancel context.CancelFunc
	once   sync.Once
}

type nodeOption func(*Config, *bool)

func plain(_ *Config, presence *bool) { *presence = false }

func newNode(t testing.TB, options ...nodeOption) *testNode {
	t.Helper()
	return newNodeWithQueue(t, defaultQueue, options...)
}

// newNodeWithQueue makes a node whose router has short queues, so that little is
// enough to fill them.
func newNodeWithQueue(t testing.TB, queue int, options ...nodeOption) *testNode {
	t.Helper()
	config := Config{Log: slog.New(slog.DiscardHandler)}
	presence := true
	for _, o := range options {
		o(&config, &presence)
	}
	return startNode(t, newHost(t), queue, config, presence)
}

// startNode runs a node on h, which is closed with it; its router has the options
// of every node, and more.
func startNode(t testing.TB, h host.Host, queue int, config Config, presence bool, more ...pubsub.Option) *testNode {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &testNode{host: h, done: make(chan error, 1), cancel: cancel}
	options := append(DefaultOptions(), pubsub.WithPeerOutboundQueueSize(queue), pubsub.WithValidateQueueSize(queue))
	router, err := newRouter(ctx, n.host, queue, append(options, more...))
	if err != nil {
		t.Fatal(err)
	}
	n.router = router
	n.net = peertest.FromHost(n.host)
	var net Network
	if presence {
		net = n.net
	}
	n.Node = New(router, net, config)
	go func() { n.done <- n.Node.Run(ctx) }()
	t.Cleanup(n.close)
	return n
}

func (n *testNode) close() {
	n.once.Do(func() {
		n.cancel()
		<-n.done
		n.net.Close()
		_ = n.host.Close()
	})
}

// connect joins nodes, each with each.
func connect(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			connectHosts(t, a.host, b.host)
		}
	}
}

func connectHosts(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(context.Background(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

func disconnect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Network().ClosePeer(b.ID()); err != nil {
		t.Fatal(err)
	}
}

// sink records what a session gets.
type sink struct {
	mu       sync.Mutex
	got      []network.Publication
	presence []string
	changed  chan struct{}
}

func newSink() *sink { return &sink{changed: make(chan struct{}, 1)} }

func (s *sink) Publish(p network.Publication) {
	s.mu.Lock()
	s.got = append(s.got, p)
	s.mu.Unlock()
	s.signal()
}

func (s *sink) Presence(topic string, m network.Member, joined bool) {
	s.mu.Lock()
	s.presence = append(s.presence, presenceText(topic, m, joined))
	s.mu.Unlock()
	s.signal()
}

func presenceText(topic string, m network.Member, joined bool) string {
	return fmt.Sprintf("%s %s %v %x", topic, m.Peer, joined, m.State)
}

func (s *sink) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *sink) texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]string, len(s.got))
	for i, p := range s.got {
		all[i] = string(p.Content.Data)
	}
	return all
}

func (s *sink) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.presence...)
}

// until waits until ok holds, looking whenever the sink got something.
func (s *sink) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-s.changed:
		case <-deadline.C:
			t.Fatalf("waited in vain: %s; got %d publications, presence %q", what, len(s.texts()), s.told())
		}
	}
}

// eventually waits until something holds that nobody tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for !ok() {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// untilCount waits for n publications.
func (s *sink) untilCount(t testing.TB, n int) {
	t.Helper()
	s.until(t, fmt.Sprintf("%d publications", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.got) >= n
	})
}

// page is a session with its sink.
type page struct {
	*Page
	*sink
	key identity.Key
}

func (n *testNode) page(t testing.TB) *page { return n.pageOf(newKey(t)) }

func (n *testNode) pageOf(key identity.Key) *page {
	s := newSink()
	return &page{Page: n.Join(key, s), sink: s, key: key}
}

func (p *page) subscribe(t testing.TB, topic string) []network.Member {
	t.Helper()
	m, err := p.Subscribe(context.Background(), topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (p *page) publish(t testing.TB, topic, text string) {
	t.Helper()
	if err := p.Page.Publish(context.Background(), topic, jsonText(text)); err != nil {
		t.Fatal(err)
	}
}

func jsonText(text string) network.Content {
	return network.Content{Type: network.JSON, Data: []byte(text)}
}

// untilMember waits until other is in the topic, or no longer is.
func (p *page) untilMember(t testing.TB, topic string, other identity.PeerID, there bool) {
	t.Helper()
	p.until(t, fmt.Sprintf("%s in %s: %v", other, topic, there), func() bool {
		for _, m := range p.Members(topic) {
			if m.Peer == other {
				return there
			}
		}
		return !there
	})
}
