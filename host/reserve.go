package host

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Numbers of the relay client.
const (
	wantRelays    = 2                // reservations held at once
	maxRelayAddrs = 4                // addresses announced for each
	reserveFirst  = 10 * time.Second // wait after a refusal, doubling …
	reserveLast   = 10 * time.Minute // … up to this
	reserveBound  = 20 * time.Second // to reach a relay and ask it
	maxRefusals   = 256              // relays whose refusals are remembered
	relayTag      = "parley-relay"
)

// relayClient keeps reservations at relays, so that a node behind a router can
// be reached. It asks the configured relays first, unless the node is known to
// be publicly reachable; other connected peers that offer relaying only when it
// is known not to be.
//
//	wake (time, connection, reachability) → drop what is lost → renew what is due
//	→ reserve what is missing → announce what changed
type relayClient struct {
	// Static after construction.
	node       *Node
	configured []peer.AddrInfo
	changed    event.Emitter // of event.EvtAutoRelayAddrsUpdated
	again      chan struct{} // capacity 1: say it again, something else has changed
	moved      chan struct{} // capacity 1: the network is another, ask again
	sub        event.Subscription

	// Owned by run.
	reach    libnet.Reachability
	held     map[peer.ID]*heldRelay
	refused  map[peer.ID]*refusal
	lastSaid []ma.Multiaddr

	mu    sync.Mutex
	addrs []ma.Multiaddr // announced; never changed in place
}

type heldRelay struct {
	renew, expires time.Time
	addrs          []ma.Multiaddr
}

type refusal struct {
	wait  time.Duration
	until time.Time
}

func newRelayClient(n *Node) (*relayClient, error) {
	c := &relayClient{
		node: n, held: make(map[peer.ID]*heldRelay), refused: make(map[peer.ID]*refusal), again: make(chan struct{}, 1),
		moved: make(chan struct{}, 1),
	}
	c.configured, _ = parseInfos(n.cfg.Relays) // validated
	var err error
	if c.changed, err = n.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful); err != nil {
		return nil, err
	}
	c.sub, err = n.host.EventBus().Subscribe([]any{
		new(event.EvtLocalReachabilityChanged),
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtPeerIdentificationCompleted),
	}, eventbus.Name("parley relays"), eventbus.BufSize(256))
	return c, err
}

// run keeps reservations until ctx ends.
func (c *relayClient) run(ctx context.Context) {
	defer c.sub.Close()
	defer c.changed.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(c.tend(ctx, time.Now()))
		case e, ok := <-c.sub.Out():
			if !ok {
				return
			}
			if c.matters(e) {
				timer.Reset(0)
			}
		case <-c.moved:
			clear(c.refused)
			timer.Reset(0)
		case <-c.again:
			_ = c.changed.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: slices.Clone(c.lastSaid)})
		case <-ctx.Done():
			return
		}
	}
}

// retry has relays asked that gave no answer in another network. It never blocks.
func (c *relayClient) retry() {
	select {
	case c.moved <- struct{}{}:
	default:
	}
}

// matters reports whether an event can change what is held.
func (c *relayClient) matters(e any) bool {
	switch e := e.(type) {
	case event.EvtLocalReachabilityChanged:
		c.reach = e.Reachability
		c.node.reach.Store(int32(e.Reachability))
		return true
	case event.EvtPeerConnectednessChanged:
		return c.held[e.Peer] != nil && e.Connectedness == libnet.NotConnected
	case event.EvtPeerIdentificationCompleted:
		return len(c.held) < wantRelays && c.reach == libnet.ReachabilityPrivate && slices.Contains(e.Protocols, proto.ProtoIDv2Hop)
	}
	return false
}

// tend does one round and says when the next is due.
func (c *relayClient) tend(ctx context.Context, now time.Time) time.Duration {
	conns := c.node.host.ConnManager()
	for id, h := range c.held {
		if !h.expires.After(now) || c.node.host.Network().Connectedness(id) != libnet.Connected {
			delete(c.held, id)
			conns.Unprotect(id, relayTag)
		}
	}
	for id, h := range c.held {
		if !h.renew.After(now) {
			c.reserve(ctx, peer.AddrInfo{ID: id})
		}
	}
	for _, info := range c.candidates(now) {
		if len(c.held) >= wantRelays || ctx.Err() != nil {
			break
		}
		c.reserve(ctx, info)
	}
	c.announce()
	return c.next(time.Now())
}

// candidates are the relays that may be asked now, best first.
func (c *relayClient) candidates(now time.Time) []peer.AddrInfo {
	if c.reach == libnet.ReachabilityPublic {
		return nil
	}
	all := slices.Clone(c.configured)
	if c.reach == libnet.ReachabilityPrivate {
		h := c.node.host
		for _, id := range h.Network().Peers() {
			offers, err := h.Peerstore().SupportsProtocols(id, proto.ProtoIDv2Hop)
			if err == nil && len(offers) > 0 && h.Network().Connectedness(id) == libnet.Connected {
				all = append(all, peer.AddrInfo{ID: id})
			}
		}
	}
	return slices.DeleteFunc(all, func(i peer.AddrInfo) bool {
		r := c.refused[i.ID]
		return c.held[i.ID] != nil || r != nil && r.until.After(now)
	})
}

// reserve asks one relay.
func (c *relayClient) reserve(ctx context.Context, relay peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, reserveBound)
	defer cancel()
	got, err := client.Reserve(ctx, c.node.host, relay)
	now := time.Now()
	if err != nil {
		c.refuse(relay.ID, now)
		c.node.log.Debug("relay gave no reservation", "relay", relay.ID, "err", err)
		return
	}
	delete(c.refused, relay.ID)
	life := got.Expiration.Sub(now)
	c.held[relay.ID] = &heldRelay{
		expires: got.Expiration, renew: now.Add(life / 2),
		addrs: c.through(relay.ID, got.Addrs),
	}
	c.node.host.ConnManager().Protect(relay.ID, relayTag)
}

// refuse remembers a failure, so that the relay isn't asked again soon.
func (c *relayClient) refuse(id peer.ID, now time.Time) {
	r := c.refused[id]
	if r == nil {
		if len(c.refused) >= maxRefusals {
			clear(c.refused)
		}
		r = &refusal{}
		c.refused[id] = r
	}
	r.wait = min(max(2*r.wait, reserveFirst), reserveLast)
	r.until = now.Add(r.wait)
	if h := c.held[id]; h != nil {
		h.renew = r.until
	}
}

// through are the best addresses by which a relay leads to the node. A relay tells
// all of its own: those of its own machine are of use to nobody else.
func (c *relayClient) through(relay peer.ID, told []ma.Multiaddr) []ma.Multiaddr {
	circuit := ma.StringCast("/p2p/" + relay.String()).Encapsulate(circuitAddr)
	if len(told) == 0 {
		told = c.node.host.Peerstore().Addrs(relay)
	}
	here := slices.ContainsFunc(c.node.host.Network().ConnsToPeer(relay), func(c libnet.Conn) bool {
		return manet.IsIPLoopback(c.RemoteMultiaddr())
	})
	var good []ma.Multiaddr
	for _, a := range told {
		if rest, last := ma.SplitLast(a); last != nil && last.Protocol().Code == ma.P_P2P {
			a = rest
		}
		if len(a) > 0 && !isCircuit(a) && (here || !manet.IsIPLoopback(a)) {
			good = append(good, a)
		}
	}
	slices.SortStableFunc(good, func(a, b ma.Multiaddr) int { return viaRank(a) - viaRank(b) })
	good = good[:min(len(good), maxRelayAddrs)]
	for i, a := range good {
		good[i] = a.Encapsulate(circuit)
	}
	return good
}

// announce tells the host which relays lead to it.
func (c *relayClient) announce() {
	var addrs []ma.Multiaddr
	for _, h := range c.held {
		addrs = append(addrs, h.addrs...)
	}
	slices.SortFunc(addrs, ma.Multiaddr.Compare)
	if slices.EqualFunc(addrs, c.lastSaid, ma.Multiaddr.Equal) {
		return
	}
	c.lastSaid = addrs
	c.mu.Lock()
	c.addrs = addrs
	c.mu.Unlock()
	_ = c.changed.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: slices.Clone(addrs)})
}

// announced are the addresses that announce said last.
func (c *relayClient) announced() []ma.Multiaddr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.addrs)
}

// next is when something is due again.
func (c *relayClient) next(now time.Time) time.Duration {
	wait := reserveLast
	for _, h := range c.held {
		wait = min(wait, h.renew.Sub(now), h.expires.Sub(now))
	}
	if len(c.held) < wantRelays {
		for _, r := range c.refused {
			wait = min(wait, r.until.Sub(now))
		}
	}
	return max(wait, time.Second)
}
