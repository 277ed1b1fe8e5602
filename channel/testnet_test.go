package channel

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNet is a network in memory. Streams can be delayed and cut.
type testNet struct {
	mu    sync.Mutex
	nodes map[identity.PeerID]*testNode
	cut   func(a, b identity.PeerID) bool // no stream between the two
	delay func() time.Duration            // of each write; nil for none
	// filter is given every record under way and says what arrives instead.
	filter func(from, to identity.PeerID, record []byte) [][]byte
	wg     sync.WaitGroup
}

func newTestNet(t testing.TB) *testNet {
	n := &testNet{nodes: make(map[identity.PeerID]*testNode)}
	t.Cleanup(n.wg.Wait)
	return n
}

// testNode is a network.Network.
type testNode struct {
	net      *testNet
	id       identity.PeerID
	handlers map[network.Protocol]network.Handler
	streams  []*testStream
	path     network.Path
}

func (n *testNet) node(id identity.PeerID) *testNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := &testNode{net: n, id: id, handlers: make(map[network.Protocol]network.Handler), path: network.PathDirect}
	n.nodes[id] = node
	return node
}

func (n *testNode) Local() identity.PeerID { return n.id }

func (n *testNode) Handle(p network.Protocol, h network.Handler) func() {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.handlers[p] = h
	return func() {
		n.net.mu.Lock()
		defer n.net.mu.Unlock()
		delete(n.handlers, p)
	}
}

func (n *testNode) Open(_ context.Context, to identity.PeerID, protocols ...network.Protocol) (network.Stream, error) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	other := n.net.nodes[to]
	if other == nil || other == n || n.net.cut != nil && n.net.cut(n.id, to) {
		return nil, identity.Errorf(identity.CodeUnreachable, "no path to %s", to)
	}
	for _, p := range protocols {
		h := other.handlers[p]
		if h == nil {
			continue
		}
		a, b := net.Pipe()
		near := &testStream{Conn: a, net: n.net, local: n.id, remote: to, protocol: p, path: n.path}
		far := &testStream{Conn: b, net: n.net, local: to, remote: n.id, protocol: p, path: n.path}
		n.streams, other.streams = append(n.streams, near), append(other.streams, far)
		n.net.wg.Add(1)
		go func() {
			defer n.net.wg.Done()
			h(context.Background(), far)
			far.Reset()
		}()
		return near, nil
	}
	return nil, identity.Errorf(identity.CodeNotStarted, "%s speaks none of it", to)
}

// breakStreams cuts the streams between a node and those that f names.
func (n *testNet) breakStreams(id identity.PeerID, f func(other identity.PeerID) bool) {
	n.mu.Lock()
	var broken []*testStream
	for _, s := range n.nodes[id].streams {
		if f(s.remote) {
			broken = append(broken, s)
		}
	}
	n.nodes[id].streams = slices.DeleteFunc(n.nodes[id].streams, func(s *testStream) bool { return f(s.remote) })
	n.mu.Unlock()
	for _, s := range broken {
		s.Reset()
	}
}

type testStream struct {
	net.Conn
	net           *testNet
	local, remote identity.PeerID
	protocol      network.Protocol
	path          network.Path
}

func (s *testStream) Write(p []byte) (int, error) {
	if s.net.delay != nil {
		<-time.After(s.net.delay()) // virtual time
	}
	if s.net.filter == nil {
		return s.Conn.Write(p)
	}
	for rest := p; len(rest) > 0; {
		n, taken, err := wire.ParseSize(rest)
		if err != nil {
			return 0, err
		}
		for _, rec := range s.net.filter(s.local, s.remote, rest[taken:taken+n]) {
			if _, err := s.Conn.Write(append(wire.AppendSize(nil, len(rec)), rec...)); err != nil {
				return 0, err
			}
		}
		rest = rest[taken+n:]
	}
	return len(p), nil
}

func (s *testStream) CloseWrite() error          { return s.Close() }
func (s *testStream) Reset() error               { return s.Close() }
func (s *testStream) Local() identity.PeerID     { return s.local }
func (s *testStream) Remote() identity.PeerID    { return s.remote }
func (s *testStream) Protocol() network.Protocol { return s.protocol }
func (s *testStream) Path() network.Path         { return s.path }

func testKey(t testing.TB, seed int) identity.Key {
	t.Helper()
	key, err := identity.KeyFromSeed([32]byte{byte(seed), byte(seed >> 8), 7})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testPeer is a node that runs until the test ends, or until stop.
type testPeer struct {
	*Node
	key  identity.Key
	stop func()
}

func (n *testNet) start(t testing.TB, seed int, change func(*Config)) *testPeer {
	t.Helper()
	key := testKey(t, seed)
	cfg := Config{Network: n.node(key.PeerID())}
	if change != nil {
		change(&cfg)
	}
	node, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	if err := node.running(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		n.mu.Lock()
		delete(n.nodes, key.PeerID())
		n.mu.Unlock()
	})
	t.Cleanup(stop)
	return &testPeer{Node: node, key: key, stop: stop}
}

func (p *testPeer) join(t testing.TB, space string, agent identity.Key) Member {
	t.Helper()
	m, err := p.Space(space).Join(t.Context(), agent)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func listen(t testing.TB, m Member, protocol string, opts ...ListenOption) Listener {
	t.Helper()
	l, err := m.Listen(protocol, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustOpen(t testing.TB, m Member, to Member, protocol string, opts ...OpenOption) Channel {
	t.Helper()
	ch, err := m.Open(t.Context(), to.Agent(), protocol, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func mustAccept(t testing.TB, l Listener) Channel {
	t.Helper()
	ch, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func send(t testing.TB, ch Channel, text string) {
	t.Helper()
	if err := ch.Send(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, ch Channel, want string) {
	t.Helper()
	got, err := ch.Receive(t.Context())
	if err != nil || string(got) != want {
		t.Fatalf("received %q, %v; want %q", got, err, want)
	}
}

// wantErr checks the kind of an error.
func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// fixedLocator knows where agents are.
type fixedLocator struct {
	mu     sync.Mutex
	places map[identity.AgentID][]Location
}

func (l *fixedLocator) Locate(_ context.Context, _ SpaceHash, a identity.AgentID) ([]Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.places[a], nil
}

func (l *fixedLocator) Announce(SpaceHash, identity.Agent, []identity.PeerID) {}
func (l *fixedLocator) Withdraw(SpaceHash, identity.AgentID)                  {}

func (l *fixedLocator) put(a identity.AgentID, places ...Location) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places == nil {
		l.places = make(map[identity.AgentID][]Location)
	}
	l.places[a] = places
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

var _ io.Reader = (*testStream)(nil)
