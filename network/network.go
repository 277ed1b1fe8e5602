// Package network holds the words of the network. A node is an identity that
// accepts streams of named protocols; everything else is a protocol:
//
//	stream, err := net.Open(ctx, bob, "/parley/msg/1.0.0/chat")   // the caller
//	stop := net.Handle("/parley/msg/1.0.0/chat", handler)         // the handler
//
// The package has no code that talks: host implements Network over libp2p,
// internal/peertest in memory.
package network

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// Protocol names what is spoken on a stream, for example "/parley/msg/1.0.0/chat".
type Protocol string

// Path says how a peer is reached.
type Path string

// The paths, best first. A page sees these words.
const (
	PathSelf   Path = "self"   // the own id
	PathLocal  Path = "local"  // a page of the same node: no stream
	PathDirect Path = "direct" // a connection without anybody between
	PathPunch  Path = "punch"  // direct, after hole punching
	PathRelay  Path = "relay"  // through a circuit relay
	PathStar   Path = "star"   // through a star server
	PathNone   Path = "none"   // not connected
)

// Stream is an ordered, reliable, encrypted stream of bytes to one peer. One
// goroutine may read while another writes; Close, Reset and the deadlines may
// be called by any.
type Stream interface {
	io.Reader
	io.Writer

	// CloseWrite ends the own direction; the other side reads io.EOF.
	CloseWrite() error
	// Close ends both directions in an orderly way.
	Close() error
	// Reset ends both directions at once; both sides see an error.
	Reset() error

	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error

	Local() identity.PeerID  // the own id
	Remote() identity.PeerID // proven by the connection's handshake
	Protocol() Protocol      // what was agreed on
	Path() Path              // how the connection runs now
}

// Addressed is a Stream that knows where the other end is on the internet.
type Addressed interface {
	// RemoteIP is the other end's address, the zero Addr where somebody is
	// between: a relay, a star.
	RemoteIP() netip.Addr
}

// Relayed is a Stream that knows who carries it.
type Relayed interface {
	// Relay is the circuit relay between the two ends; "" where there is none, or
	// where it isn't known.
	Relay() identity.PeerID
}

// Handler serves one stream that a peer opened. It runs in a goroutine of its
// own which the Network waits for; ctx ends when the Network closes. The
// stream is reset when the handler returns without having closed it.
type Handler func(ctx context.Context, s Stream)

// Network is one identity's access to all others.
type Network interface {
	// Local is the identity that others see.
	Local() identity.PeerID

	// Open opens a stream to a peer with the first protocol of the list that
	// the peer speaks, dialling it when there is no connection. It may block
	// until ctx ends. Errors: CodeUnreachable when no path leads there (the
	// text says what was tried), CodeNotStarted when the peer speaks none of
	// the protocols.
	Open(ctx context.Context, to identity.PeerID, protocols ...Protocol) (Stream, error)

	// Handle calls h for every stream of protocol p that a peer opens, until
	// the returned function is called. A second handler for p replaces the
	// first. Streams that h serves already are left alone.
	Handle(p Protocol, h Handler) (remove func())
}
