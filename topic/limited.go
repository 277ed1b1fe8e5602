package topic

import (
	"context"
	"slices"

	libp2p "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/identity"
)

// GossipSub leaves connections alone whose bytes are limited: a foreign relay gives
// 128 KiB. A star gives some hundred MiB, and is used where nothing else works, so
// there topics go on.

// starProtocol is the name of a star in multiaddrs.
const starProtocol = "p2p-websocket-star"

// overStar reports whether a peer is reached over a star.
func overStar(n libp2p.Network, p identity.PeerID) bool {
	return slices.ContainsFunc(n.ConnsToPeer(p), func(c libp2p.Conn) bool {
		for _, part := range c.RemoteMultiaddr() {
			if part.Protocol().Name == starProtocol {
				return true
			}
		}
		return false
	})
}

// starNetwork is a network in which a peer over a star counts as connected.
type starNetwork struct{ libp2p.Network }

// Connectedness says Connected of whom publications can reach.
func (n starNetwork) Connectedness(p identity.PeerID) libp2p.Connectedness {
	c := n.Network.Connectedness(p)
	if c == libp2p.Limited && overStar(n.Network, p) {
		return libp2p.Connected
	}
	return c
}

// Network is the host's, as the router sees it.
func (h meteredHost) Network() libp2p.Network { return starNetwork{h.Host.Network()} }

// allowStar lets a stream to p use a limited connection where that is a star's.
func (h meteredHost) allowStar(ctx context.Context, p identity.PeerID) context.Context {
	if overStar(h.Host.Network(), p) {
		return libp2p.WithAllowLimitedConn(ctx, "topics")
	}
	return ctx
}
