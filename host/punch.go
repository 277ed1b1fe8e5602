package host

import (
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	manet "github.com/multiformats/go-multiaddr/net"
)

// punchTracer is the Node as it hears of hole punching.
type punchTracer Node

// Trace notes peers to whom a hole was punched, so that their path can be named.
func (t *punchTracer) Trace(e *holepunch.Event) {
	if end, ok := e.Evt.(*holepunch.EndHolePunchEvt); ok && end.Success {
		t.mu.Lock()
		t.punched[e.Remote] = true
		t.mu.Unlock()
		(*Node)(t).net.watch.changed(e.Remote)
	}
}

// forgetPunch keeps the table to peers that are connected.
func (n *Node) forgetPunch(net libnet.Network, c libnet.Conn) {
	if net.Connectedness(c.RemotePeer()) == libnet.NotConnected {
		n.mu.Lock()
		delete(n.punched, c.RemotePeer())
		n.mu.Unlock()
	}
}

// wasPunched reports whether c, a direct connection, came by hole punching.
func (n *Node) wasPunched(c libnet.Conn) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.punched[c.RemotePeer()] && c.LocalPeer() == n.host.ID() && manet.IsPublicAddr(c.RemoteMultiaddr())
}
