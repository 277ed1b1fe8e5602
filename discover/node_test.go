package discover

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// testNode is the least of a Node: a libp2p host on the own machine.
type testNode struct {
	h libhost.Host

	mu    sync.Mutex
	funcs map[int]func(identity.PeerID)
	next  int
	done  sync.WaitGroup
}

var _ Node = (*testNode)(nil)

func newTestNode(t testing.TB, key identity.Key, more ...libp2p.Option) *testNode {
	t.Helper()
	h, err := libp2p.New(append(more, libp2p.Identity(key.Libp2p()), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.DisableMetrics())...)
	if err != nil {
		t.Fatalf("make host: %v", err)
	}
	n := &testNode{h: h, funcs: make(map[int]func(identity.PeerID))}
	sub, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged), new(event.EvtPeerIdentificationCompleted)})
	if err != nil {
		t.Fatal(err)
	}
	n.done.Go(func() {
		for e := range sub.Out() {
			switch e := e.(type) {
			case event.EvtPeerConnectednessChanged:
				n.changed(e.Peer)
			case event.EvtPeerIdentificationCompleted:
				n.changed(e.Peer)
			}
		}
	})
	t.Cleanup(func() {
		_ = sub.Close()
		n.done.Wait()
		if err := h.Close(); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	return n
}

func (n *testNode) changed(id identity.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.funcs {
		f(id)
	}
}

func (n *testNode) Local() identity.PeerID { return n.h.ID() }
func (n *testNode) Libp2p() libhost.Host   { return n.h }

func (n *testNode) Connect(ctx context.Context, id identity.PeerID) error {
	return n.h.Connect(ctx, peer.AddrInfo{ID: id})
}

func (n *testNode) Connected(id identity.PeerID) bool {
	return n.h.Network().Connectedness(id) == libnet.Connected
}

func (n *testNode) AddAddrs(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration) {
	n.h.Peerstore().AddAddrs(id, addrs, ttl)
	n.changed(id)
}

func (n *testNode) Found(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration) {
	n.AddAddrs(id, addrs, ttl)
}

func (n *testNode) AllowOtherKeys(...identity.PeerID) {}

func (n *testNode) Notify(f func(identity.PeerID)) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.next
	n.next++
	n.funcs[id] = f
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.funcs, id)
	}
}

func (n *testNode) Open(ctx context.Context, to identity.PeerID, ps ...network.Protocol) (network.Stream, error) {
	s, err := n.h.NewStream(ctx, to, protocol.ID(ps[0]))
	if err != nil {
		return nil, err
	}
	return testStream{s, new(bool)}, nil
}

func (n *testNode) Handle(p network.Protocol, h network.Handler) (remove func()) {
	n.h.SetStreamHandler(protocol.ID(p), func(s libnet.Stream) {
		closed := false
		h(context.Background(), testStream{s, &closed})
		if !closed {
			_ = s.Reset()
		}
	})
	return func() { n.h.RemoveStreamHandler(protocol.ID(p)) }
}

type testStream struct {
	libnet.Stream
	closed *bool
}

func (s testStream) Close() error {
	*s.closed = true
	return s.Stream.Close()
}

func (s testStream) Local() identity.PeerID     { return s.Conn().LocalPeer() }
func (s testStream) Remote() identity.PeerID    { return s.Conn().RemotePeer() }
func (s testStream) Protocol() network.Protocol { return network.Protocol(s.Stream.Protocol()) }
func (s testStream) Path() network.Path         { return network.PathDirect }
