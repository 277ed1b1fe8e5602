package host

import (
	libnet "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/network"
)

// A page's connection runs on the connection that its node had to the other node
// when it was made: maybe one through a relay, minutes before a hole was punched.
// When there is a direct one, the side that made the page's connection closes it,
// and the conversations on it go on over the next, which takes the better way:
// what is on its way is sent again, and what came twice is dropped
// (docs/spec/gateway.md §5.4).

// moveCircuits is called with each new connection of the node.
func (n *Node) moveCircuits(_ libnet.Network, c libnet.Conn) {
	if pathOfAddr(c.RemoteMultiaddr()) != network.PathDirect {
		return
	}
	for _, p := range n.livePages() {
		for _, pc := range p.swarm.Conns() {
			n.moveCircuit(pc)
		}
	}
}

// moveCircuit closes a page's connection that could run on a direct connection
// now. It never blocks.
func (n *Node) moveCircuit(pc libnet.Conn) {
	link, ok := pc.Stat().Extra[linkKey{}].(*circuitLink)
	if !ok || !link.own || link.via == nil || pc.Stat().Direction != libnet.DirOutbound ||
		pathOfAddr(link.via.RemoteMultiaddr()) == network.PathDirect || !n.directTo(link.via.RemotePeer()) {
		return
	}
	n.spawn(func() { _ = pc.Close() })
}
