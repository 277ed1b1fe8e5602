package host

import (
	"context"
	"sync"
	"time"

	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Finder looks for the addresses of peers. discover implements it.
type Finder interface {
	// Find calls found, from one goroutine at a time, whenever it learns
	// addresses of id, and returns when nothing is left to ask or ctx ends. It
	// must not call found after it returned. An error says why nothing was
	// found, for people.
	Find(ctx context.Context, id identity.PeerID, found func([]ma.Multiaddr)) error
}

// endpoint is one identity's network.Network: the node's or a page's.
type endpoint struct {
	// Static after construction.
	node  *Node
	host  libhost.Host
	swarm *swarm.Swarm
	watch *watch
	tried *attempts
	trips roundTrips // with a lock of its own

	ctx    context.Context // ends when the endpoint closes
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool
	serving  sync.WaitGroup // calls that came in while open
	handlers map[network.Protocol]*handlerEntry
}

type handlerEntry struct{ h network.Handler }

var _ network.Network = (*endpoint)(nil)

func newEndpoint(node *Node, h libhost.Host) (*endpoint, error) {
	e := &endpoint{
		node: node, host: h, swarm: h.Network().(*swarm.Swarm),
		tried:    newAttempts(),
		handlers: make(map[network.Protocol]*handlerEntry),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	var err error
	e.watch, err = newWatch(h)
	return e, err
}

// Local is the identity that others see.
func (e *endpoint) Local() identity.PeerID { return e.host.ID() }

// Open implements network.Network. The protocols are offered in the order given,
// one round trip each, whatever identify said before: it may be old, and the
// first that the peer speaks now is wanted. With libp2p's WithNoDial in ctx only
// who is connected is asked.
func (e *endpoint) Open(ctx context.Context, to identity.PeerID, protocols ...network.Protocol) (network.Stream, error) {
	if !e.enter() {
		return nil, errClosed
	}
	defer e.serving.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()

	s, err := e.open(ctx, to, protocols)
	if err != nil {
		return nil, e.explain(ctx, err)
	}
	return newStream(e.node, s), nil
}

func (e *endpoint) open(ctx context.Context, to identity.PeerID, protocols []network.Protocol) (libnet.Stream, error) {
	if to == e.Local() {
		return nil, identity.Errorf(identity.CodeUnreachable, "that is the own peer")
	}
	if !e.node.gater.keyAllowed(to) {
		return nil, identity.Errorf(identity.CodeUnreachable, "only peers with ed25519 keys are supported")
	}
	ctx = libnet.WithAllowLimitedConn(ctx, "parley")
	if !e.Connected(to) {
		if no, _ := libnet.GetNoDial(ctx); no {
			return nil, identity.Errorf(identity.CodeUnreachable, "not connected")
		}
		if err := e.connect(ctx, to); err != nil {
			return nil, err
		}
	}
	s, err := e.swarm.NewStream(libnet.WithNoDial(ctx, "connected before"), to)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	offered := make([]protocol.ID, len(protocols))
	for i, p := range protocols {
		offered[i] = protocol.ID(p)
	}
	agreed, err := negotiate(ctx, s, offered)
	if err != nil {
		if isNotSupported(err) {
			_ = e.host.Peerstore().RemoveProtocols(to, offered...)
		}
		return nil, err
	}
	if agreed.Protocol() == offered[0] {
		e.host.Peerstore().RecordLatency(to, time.Since(start)) // it was one round trip
	}
	return agreed, nil
}

// Handle implements network.Network.
func (e *endpoint) Handle(p network.Protocol, h network.Handler) (remove func()) {
	entry := &handlerEntry{h: h}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return func() {}
	}
	e.handlers[p] = entry
	e.host.SetStreamHandler(protocol.ID(p), func(s libnet.Stream) { e.serve(entry, s) })
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.handlers[p] == entry {
			delete(e.handlers, p)
			e.host.RemoveStreamHandler(protocol.ID(p))
		}
	}
}

// serve runs in the goroutine that libp2p has for the stream.
func (e *endpoint) serve(entry *handlerEntry, raw libnet.Stream) {
	if !e.enter() {
		_ = raw.Reset()
		return
	}
	defer e.serving.Done()
	s := newStream(e.node, raw)
	defer s.end()
	entry.h(e.ctx, s)
}

// Notify calls f with a peer's id when something about it changed: an address
// was found, a connection came or went, its protocols or its path changed.
// Calls come from one goroutine, and changes of one peer in quick succession
// make one call. f must not block. stop returns when no call is under way or
// will come; it must not be called from f.
func (e *endpoint) Notify(f func(id identity.PeerID)) (stop func()) { return e.watch.add(f) }

// AddAddrs tells addresses of a peer that came from elsewhere: by hand, or from
// discovery. They are forgotten after ttl without a connection.
func (e *endpoint) AddAddrs(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration) {
	if id == e.Local() || len(addrs) == 0 {
		return
	}
	e.host.Peerstore().AddAddrs(id, addrs, ttl)
	e.watch.changed(id)
}

// Connect makes a connection to a peer if there is none, by any path. Errors
// are those of Open.
func (e *endpoint) Connect(ctx context.Context, to identity.PeerID) error {
	if !e.enter() {
		return errClosed
	}
	defer e.serving.Done()
	ctx, cancel := context.WithCancel(libnet.WithAllowLimitedConn(ctx, "parley"))
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	if to == e.Local() || e.Connected(to) {
		return nil
	}
	if err := e.connect(ctx, to); err != nil {
		return e.explain(ctx, err)
	}
	return nil
}

// Connected reports whether there is a connection to a peer, by whatever path.
func (e *endpoint) Connected(id identity.PeerID) bool {
	return e.swarm.Connectedness(id) != libnet.NotConnected
}

// enter counts a call in, unless the endpoint has closed.
func (e *endpoint) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.serving.Add(1)
	return true
}

// stop ends all calls and handlers, but doesn't wait for them.
func (e *endpoint) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.cancel()
}

// wait returns when nothing of the endpoint runs any more. The host must have
// been closed, so that reads of handlers end.
func (e *endpoint) wait() {
	e.serving.Wait()
	e.watch.close()
}
