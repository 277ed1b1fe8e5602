package host

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// gater refuses identities other than ed25519 (an RSA key of 16,384 bits costs
// its checker seconds), then asks the configured gater. Only peers that the
// operator named by their id may have other keys: the public bootstrap nodes
// are of the time of RSA.
type gater struct {
	next connmgr.ConnectionGater // nil allows all

	mu     sync.RWMutex
	others map[peer.ID]bool // allowed although not ed25519
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func (g *gater) keyAllowed(id peer.ID) bool {
	if ed25519Only(id) {
		return true
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.others[id]
}

// AllowOtherKeys lets peers connect although their keys aren't ed25519. It is
// for peers that the operator named, such as bootstrap nodes of the public DHT.
func (n *Node) AllowOtherKeys(ids ...identity.PeerID) {
	n.gater.mu.Lock()
	defer n.gater.mu.Unlock()
	for _, id := range ids {
		n.gater.others[id] = true
	}
}

func ed25519Only(id peer.ID) bool {
	_, err := identity.AgentOf(id)
	return err == nil
}

func (g *gater) InterceptPeerDial(p peer.ID) bool {
	return g.keyAllowed(p) && (g.next == nil || g.next.InterceptPeerDial(p))
}

func (g *gater) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return g.next == nil || g.next.InterceptAddrDial(p, a)
}

func (g *gater) InterceptAccept(c network.ConnMultiaddrs) bool {
	return g.next == nil || g.next.InterceptAccept(c)
}

func (g *gater) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return g.keyAllowed(p) && (g.next == nil || g.next.InterceptSecured(dir, p, c))
}

func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if g.next == nil {
		return true, 0
	}
	return g.next.InterceptUpgraded(c)
}
