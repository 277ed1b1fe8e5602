package host

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// gater refuses identities other than ed25519 (an RSA key of 16,384 bits costs
// its checker seconds), then asks the configured gater. The peer id carries the
// key, so nothing has to be verified for that.
type gater struct {
	next connmgr.ConnectionGater // nil allows all
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func ed25519Only(id peer.ID) bool {
	_, err := identity.AgentOf(id)
	return err == nil
}

func (g *gater) InterceptPeerDial(p peer.ID) bool {
	return ed25519Only(p) && (g.next == nil || g.next.InterceptPeerDial(p))
}

func (g *gater) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return g.next == nil || g.next.InterceptAddrDial(p, a)
}

func (g *gater) InterceptAccept(c network.ConnMultiaddrs) bool {
	return g.next == nil || g.next.InterceptAccept(c)
}

func (g *gater) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return ed25519Only(p) && (g.next == nil || g.next.InterceptSecured(dir, p, c))
}

func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if g.next == nil {
		return true, 0
	}
	return g.next.InterceptUpgraded(c)
}
