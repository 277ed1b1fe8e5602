package host

import (
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

type circuitNetAddr string

func (circuitNetAddr) Network() string  { return "libp2p-circuit-relay" }
func (a circuitNetAddr) String() string { return string(a) }

// circuitLink tells what a circuit runs on.
type circuitLink struct {
	via     network.Conn // the node's connection that carries it; nil inside the process
	own     bool         // the relay is the node of the page behind it
	limited bool         // the relay counts time or bytes
}

// linkKey is where a connection's statistics hold its circuitLink.
type linkKey struct{}

// circuitConn is a raw circuit, before the handshake.
type circuitConn struct {
	net.Conn // a pipe or a streamConn
	local    ma.Multiaddr
	remote   ma.Multiaddr
	link     *circuitLink
	release  func() // called once, when it closes
	closing  sync.Once

	handshake func() // called once, when the handshake is over, well or not
	shaking   sync.Once
}

var _ manet.Conn = (*circuitConn)(nil)
var _ network.ConnStat = (*circuitConn)(nil)

// newCircuitConn makes a circuit of a hop stream, and marks the connection that
// carries it as worth keeping.
func (n *Node) newCircuitConn(s network.Stream, link *circuitLink) *circuitConn {
	via := ma.StringCast("/p2p/" + s.Conn().RemotePeer().String()).Encapsulate(circuitAddr)
	return &circuitConn{
		Conn:    streamConn{s},
		local:   s.Conn().LocalMultiaddr(),
		remote:  s.Conn().RemoteMultiaddr().Encapsulate(via),
		link:    link,
		release: n.carry(s.Conn().RemotePeer()),
	}
}

// carryValue is what a connection with circuits on it is worth to the
// connection manager, against 0 for a stranger's and 100 of the ready list.
const carryValue = 50

// carry counts a circuit on the connection to a node.
func (n *Node) carry(id peer.ID) (release func()) {
	const tag = "parley-circuits"
	n.mu.Lock()
	defer n.mu.Unlock()
	n.carried[id]++
	n.host.ConnManager().TagPeer(id, tag, carryValue)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.carried[id]--; n.carried[id] == 0 {
			delete(n.carried, id)
			n.host.ConnManager().UntagPeer(id, tag)
		}
	}
}

// shaken notes that the handshake is over.
func (c *circuitConn) shaken() {
	c.shaking.Do(func() {
		if c.handshake != nil {
			c.handshake()
		}
	})
}

func (c *circuitConn) Close() error {
	c.shaken()
	c.closing.Do(func() {
		if c.release != nil {
			c.release()
		}
	})
	return c.Conn.Close()
}

func (c *circuitConn) LocalMultiaddr() ma.Multiaddr  { return c.local }
func (c *circuitConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }
func (c *circuitConn) LocalAddr() net.Addr           { return circuitNetAddr(c.local.String()) }
func (c *circuitConn) RemoteAddr() net.Addr          { return circuitNetAddr(c.remote.String()) }

// Stat marks the connection as limited when the relay or the carrying
// connection is.
func (c *circuitConn) Stat() network.ConnStats {
	limited := c.link.limited || c.link.via != nil && c.link.via.Stat().Limited
	return network.ConnStats{Stats: network.Stats{
		Limited: limited,
		Extra:   map[any]any{linkKey{}: c.link},
	}}
}

// streamConn is a stream as net.Conn.
type streamConn struct{ network.Stream }

func (s streamConn) LocalAddr() net.Addr  { return circuitNetAddr(s.Conn().LocalMultiaddr().String()) }
func (s streamConn) RemoteAddr() net.Addr { return circuitNetAddr(s.Conn().RemoteMultiaddr().String()) }
