package host

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Circuits as a page dials them:
//
//	1. the address names a relay: /…/p2p/RELAY/p2p-circuit
//	2. RELAY is the own node: the peer is a page of the same node; both get an
//	   end of a pipe
//	3. otherwise the own node's host opens a hop stream to RELAY, over whatever
//	   connection it has or can make, and asks for the peer
//	4. the page's own handshake runs on the pipe or stream
//
// A page is dialled the same way round: its node hands it the stream (hop.go).

const (
	maxHopMessage = 4096             // bytes, as the circuit specification has it
	hopTimeout    = time.Minute      // for the whole conversation before the handshake
	relayTimeout  = 10 * time.Second // to reach the relay
	acceptBacklog = 64               // circuits handed to a page and not yet shaken hands with
)

var circuitAddr = ma.StringCast("/p2p-circuit")

// scopeAddr is what the resource manager is told of circuits instead of where
// they come from: they count as connections of their peer, but not against the
// address of the other node, to which all its pages' circuits would add up. As
// streams between the nodes they have been counted already.
var scopeAddr = ma.StringCast("/ip4/127.0.0.1/p2p-circuit")

// circuits is the libp2p transport of one page for circuit addresses.
type circuits struct {
	node     *Node
	local    peer.ID
	upgrader transport.Upgrader

	arrived chan *circuitConn // handed over by the node
	done    chan struct{}
	closing sync.Once

	mu      sync.Mutex
	dialing map[circuitDial]chan struct{} // closed when that dial is over
}

type circuitDial struct{ relay, to peer.ID }

var _ transport.Transport = (*circuits)(nil)
var _ transport.SkipResolver = (*circuits)(nil)

func newCircuits(node *Node, local peer.ID) *circuits {
	return &circuits{
		node: node, local: local,
		arrived: make(chan *circuitConn, acceptBacklog),
		done:    make(chan struct{}),
		dialing: make(map[circuitDial]chan struct{}),
	}
}

func (c *circuits) Proxy() bool      { return true }
func (c *circuits) Protocols() []int { return []int{ma.P_CIRCUIT} }
func (c *circuits) CanDial(a ma.Multiaddr) bool {
	return isCircuit(a)
}

// SkipResolve leaves names to the node's host, which dials the relay.
func (c *circuits) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

// Dial is steps 1 to 4.
func (c *circuits) Dial(ctx context.Context, a ma.Multiaddr, to peer.ID) (transport.CapableConn, error) {
	relay, err := c.relayOf(a, to)
	if err != nil {
		return nil, err
	}
	scope, err := c.node.limits.OpenConnection(network.DirOutbound, false, scopeAddr)
	if err != nil {
		return nil, err
	}
	if err := scope.SetPeer(to); err != nil {
		scope.Done()
		return nil, err
	}
	raw, err := c.dialOnce(ctx, relay, to)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return c.upgrader.Upgrade(ctx, c, raw, network.DirOutbound, to, scope) // ends scope when it fails
}

// dialOnce lets only one of several addresses of one relay ask it; the others
// try when that one failed.
func (c *circuits) dialOnce(ctx context.Context, relay peer.AddrInfo, to peer.ID) (*circuitConn, error) {
	key := circuitDial{relay: relay.ID, to: to}
	for {
		c.mu.Lock()
		other, busy := c.dialing[key]
		if !busy {
			c.dialing[key] = make(chan struct{})
			c.mu.Unlock()
			break
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.dialing[key])
		delete(c.dialing, key)
	}()
	if relay.ID == c.node.host.ID() {
		return c.dialLocal(to)
	}
	return c.dialRelay(ctx, relay, to)
}

// dialLocal is step 2.
func (c *circuits) dialLocal(to peer.ID) (*circuitConn, error) {
	page := c.node.page(to)
	if page == nil {
		return nil, fmt.Errorf("no page %s on this node", to)
	}
	mine, theirs := net.Pipe()
	base := c.node.circuitBase()
	here := &circuitLink{own: true}
	if !page.circuits.offer(&circuitConn{Conn: theirs, local: base, remote: base, link: here}) {
		_ = mine.Close()
		_ = theirs.Close()
		return nil, fmt.Errorf("page %s accepts no more connections now", to)
	}
	return &circuitConn{Conn: mine, local: base, remote: base, link: here}, nil
}

// dialRelay is step 3.
func (c *circuits) dialRelay(ctx context.Context, relay peer.AddrInfo, to peer.ID) (*circuitConn, error) {
	h := c.node.host
	if len(relay.Addrs) > 0 {
		h.Peerstore().AddAddrs(relay.ID, relay.Addrs, peerstore.TempAddrTTL)
	}
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, "circuit"), relayTimeout)
	defer cancel()
	if err := c.node.net.Connect(ctx, relay.ID); err != nil {
		return nil, fmt.Errorf("reach node %s: %w", relay.ID, err)
	}
	s, err := c.node.net.swarm.NewStream(network.WithNoDial(ctx, "connected before"), relay.ID)
	if err == nil {
		s, err = negotiate(ctx, s, []protocol.ID{proto.ProtoIDv2Hop})
	}
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", relay.ID, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	link, err := askRelay(s, to)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	return c.node.newCircuitConn(s, link), nil
}

// askRelay asks the relay at the other end of s to connect it to a peer.
func askRelay(s network.Stream, to peer.ID) (*circuitLink, error) {
	if err := s.SetDeadline(time.Now().Add(hopTimeout)); err != nil {
		return nil, err
	}
	ask := &pb.HopMessage{
		Type: pb.HopMessage_CONNECT.Enum(),
		Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: to}),
	}
	if err := util.NewDelimitedWriter(s).WriteMsg(ask); err != nil {
		return nil, err
	}
	rd := util.NewDelimitedReader(s, maxHopMessage)
	defer rd.Close()
	var answer pb.HopMessage
	if err := rd.ReadMsg(&answer); err != nil {
		return nil, err
	}
	if answer.GetType() != pb.HopMessage_STATUS {
		return nil, fmt.Errorf("relay answered with message type %d", answer.GetType())
	}
	if answer.GetStatus() != pb.Status_OK {
		return nil, fmt.Errorf("relay says %s", answer.GetStatus())
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &circuitLink{
		via:     s.Conn(),
		own:     peer.ID(answer.GetPeer().GetId()) == to,
		limited: answer.GetLimit() != nil,
	}, nil
}

// firstRelay is the relay that this end is connected to, of a circuit's address.
func firstRelay(a ma.Multiaddr) peer.ID {
	for i, c := range a {
		if c.Protocol().Code != ma.P_CIRCUIT || i == 0 {
			continue
		}
		if id, err := peer.AddrInfoFromP2pAddr(a[:i:i]); err == nil {
			return id.ID
		}
	}
	return ""
}

// relayOf gives the relay of a circuit address: what stands before its last
// /p2p-circuit. The relay may itself be behind another, which its own address
// then says.
func relayOf(a ma.Multiaddr) (peer.AddrInfo, error) {
	var relay ma.Multiaddr
	for i, c := range a {
		if c.Protocol().Code == ma.P_CIRCUIT {
			relay = a[:i:i]
		}
	}
	if len(relay) == 0 {
		return peer.AddrInfo{}, fmt.Errorf("circuit address %s names no relay", a)
	}
	info, err := peer.AddrInfoFromP2pAddr(relay)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("circuit address %s: %w", a, err)
	}
	return *info, nil
}

// relayOf is relayOf with all that the page knows of where that relay is: with
// the one address alone the node might reach it through another relay, and stay
// there, although a direct address was known too.
func (c *circuits) relayOf(a ma.Multiaddr, to peer.ID) (peer.AddrInfo, error) {
	relay, err := relayOf(a)
	page := c.node.page(c.local)
	if err != nil || page == nil {
		return relay, err
	}
	for _, other := range page.bare.peers.Addrs(to) {
		if same, err := relayOf(other); err == nil && same.ID == relay.ID {
			relay.Addrs = append(relay.Addrs, same.Addrs...)
		}
	}
	relay.Addrs = ma.Unique(relay.Addrs)
	return relay, nil
}

// Listen gives the circuits that the node hands over, after the handshake.
func (c *circuits) Listen(ma.Multiaddr) (transport.Listener, error) {
	return c.upgrader.UpgradeGatedMaListener(c, (*circuitListener)(c)), nil
}

// offer hands a raw circuit to the page; false when its backlog is full or it
// has closed. It never blocks.
func (c *circuits) offer(conn *circuitConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		return false
	default:
	}
	select {
	case c.arrived <- conn:
		return true
	default:
		return false
	}
}

// circuitListener is circuits as a listener of raw connections.
type circuitListener circuits

var _ transport.GatedMaListener = (*circuitListener)(nil)

// Accept passes over what the gater or the resource manager refuse.
func (l *circuitListener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	for {
		select {
		case c := <-l.arrived:
			scope, err := l.admit(c)
			if err != nil {
				_ = c.Close()
				continue
			}
			return c, scope, nil
		case <-l.done:
			return nil, nil, transport.ErrListenerClosed
		}
	}
}

func (l *circuitListener) admit(c *circuitConn) (network.ConnManagementScope, error) {
	if !l.node.gater.InterceptAccept(c) {
		return nil, swarm.ErrGaterDisallowedConnection
	}
	scope, err := l.node.limits.OpenConnection(network.DirInbound, false, scopeAddr)
	if err != nil {
		return nil, err
	}
	return &shakenScope{ConnManagementScope: scope, conn: c}, nil
}

// shakenScope tells its circuit when the handshake is over.
type shakenScope struct {
	network.ConnManagementScope
	conn *circuitConn
}

func (s *shakenScope) SetPeer(id peer.ID) error {
	s.conn.shaken()
	return s.ConnManagementScope.SetPeer(id)
}

func (l *circuitListener) Close() error {
	l.closing.Do(func() {
		l.mu.Lock()
		close(l.done) // after this nothing is offered any more
		l.mu.Unlock()
		for {
			select {
			case c := <-l.arrived:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *circuitListener) Addr() net.Addr          { return circuitNetAddr(l.local.String()) }
func (l *circuitListener) Multiaddr() ma.Multiaddr { return circuitAddr }
