package peertest

import (
	"context"
	"errors"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Libp2p is a libp2p host as a network.Network: no more than a test needs of
// what the package host does. Addresses of others are taken from the host's
// peerstore.
type Libp2p struct {
	host    host.Host
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	handlers map[network.Protocol]*registration
}

var _ network.Network = (*Libp2p)(nil)

// FromHost makes a Network of h. The host stays the caller's to close, after
// Close of the Network.
func FromHost(h host.Host) *Libp2p {
	ctx, cancel := context.WithCancel(context.Background())
	return &Libp2p{host: h, ctx: ctx, cancel: cancel, handlers: make(map[network.Protocol]*registration)}
}

// Host is the libp2p host itself.
func (n *Libp2p) Host() host.Host { return n.host }

// Local is the host's id.
func (n *Libp2p) Local() identity.PeerID { return n.host.ID() }

// Open opens a stream; see network.Network.
func (n *Libp2p) Open(ctx context.Context, to identity.PeerID, protocols ...network.Protocol) (network.Stream, error) {
	ids := make([]protocol.ID, len(protocols))
	for i, p := range protocols {
		ids[i] = protocol.ID(p)
	}
	s, err := n.open(ctx, to, ids)
	switch {
	case err == nil:
		return &libp2pStream{Stream: s}, nil
	case errors.As(err, &multistream.ErrNotSupported[protocol.ID]{}):
		return nil, &identity.Error{Code: identity.CodeNotStarted, Text: "peer speaks none of the protocols", Err: err}
	case errors.Is(err, context.Canceled):
		return nil, err
	}
	return nil, &identity.Error{Code: identity.CodeUnreachable, Text: err.Error(), Err: err}
}

// open asks for the protocols on a raw stream: what the peerstore believes of
// them may be old.
func (n *Libp2p) open(ctx context.Context, to identity.PeerID, ids []protocol.ID) (libnet.Stream, error) {
	s, err := n.host.Network().NewStream(ctx, to)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	agreed, err := multistream.SelectOneOf(ids, s)
	if !stop() {
		err = ctx.Err()
	}
	if err == nil {
		err = s.SetProtocol(agreed)
	}
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

// Handle registers a handler; see network.Network.
func (n *Libp2p) Handle(p network.Protocol, handler network.Handler) (remove func()) {
	reg := &registration{handler: handler}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[p] = reg
	n.host.SetStreamHandler(protocol.ID(p), func(s libnet.Stream) { n.serve(reg, s) })
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.handlers[p] == reg {
			delete(n.handlers, p)
			n.host.RemoveStreamHandler(protocol.ID(p))
		}
	}
}

func (n *Libp2p) serve(reg *registration, s libnet.Stream) {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		_ = s.Reset()
		return
	}
	n.serving.Add(1)
	n.mu.Unlock()
	defer n.serving.Done()
	reg.handler(n.ctx, &libp2pStream{Stream: s})
	_ = s.Reset() // nothing happens to a stream that was closed
}

// Close ends the handlers' context and waits for them.
func (n *Libp2p) Close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	n.serving.Wait()
}

type libp2pStream struct{ libnet.Stream }

func (s *libp2pStream) Local() identity.PeerID     { return s.Conn().LocalPeer() }
func (s *libp2pStream) Remote() identity.PeerID    { return s.Conn().RemotePeer() }
func (s *libp2pStream) Protocol() network.Protocol { return network.Protocol(s.Stream.Protocol()) }
func (s *libp2pStream) Path() network.Path         { return network.PathDirect }
