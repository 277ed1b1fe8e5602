package host

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/network"
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

// Numbers of the puncher.
const (
	punchFirst = time.Second     // after the circuit came, four times as long each time …
	punchLast  = 5 * time.Minute // … up to this
	maxPunches = 4               // attempts at once

	// punchTimeout bounds each dial of an attempt. The first is without agreement,
	// and lasts as long as it may where a firewall swallows it.
	punchTimeout = 5 * time.Second
)

// puncher tries again for a direct connection to peers that are reached through a
// relay. libp2p tries once: the side that was called dials, and then agrees on a
// hole with the other; it gives up where either doesn't know yet how it is seen
// from outside, as a node that has just started or has changed networks. And it
// never has the side that called dial again, which a relay has overtaken.
//
//	connected through a relay ── libp2p tries ── 1 s ── again ── 4 s ── again … 5 min ── again
//	  called:  dial, then agree on a hole
//	  calling: dial, where a public address is known
type puncher struct {
	// Static after construction.
	node    *Node
	service *holepunch.Service
	events  event.Subscription // the own addresses changed, or what is spoken
	wake    chan struct{}      // capacity 1
	slots   chan struct{}      // capacity maxPunches

	// Owned by run.
	peers map[peer.ID]*retry
	ready time.Time // from then on holes can be agreed on; zero while the service knows no address for it
}

type retry struct {
	wait time.Duration
	next time.Time
}

// keepService is the option by which the service is had that libp2p makes.
func (n *Node) keepService(s *holepunch.Service) error {
	n.puncher.service = s
	return nil
}

// startPunching makes the puncher run until ctx ends, where there is a service.
func (n *Node) startPunching(ctx context.Context) (err error) {
	p := &n.puncher
	if p.service == nil {
		return nil
	}
	p.node, p.peers = n, make(map[peer.ID]*retry)
	p.wake, p.slots = make(chan struct{}, 1), make(chan struct{}, maxPunches)
	p.events, err = n.host.EventBus().Subscribe([]any{new(event.EvtLocalAddressesUpdated), new(event.EvtLocalProtocolsUpdated)},
		eventbus.Name("parley puncher"))
	if err != nil {
		return err
	}
	n.host.Network().Notify(&libnet.NotifyBundle{ConnectedF: func(_ libnet.Network, c libnet.Conn) {
		if pathOfAddr(c.RemoteMultiaddr()) == network.PathRelay {
			select {
			case p.wake <- struct{}{}:
			default:
			}
		}
	}})
	n.background.Go(func() { p.run(ctx) })
	return nil
}

// run starts the attempts that are due until ctx ends.
func (p *puncher) run(ctx context.Context) {
	defer p.events.Close()
	timer := time.NewTimer(punchLast)
	defer timer.Stop()
	for {
		select {
		case <-p.wake:
		case <-timer.C:
		case e, ok := <-p.events.Out():
			if !ok {
				return
			}
			if _, moved := e.(event.EvtLocalAddressesUpdated); moved {
				clear(p.peers) // what failed before may work now
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return // before the service has, whose calls wait for ever then
		}
		timer.Reset(p.look(time.Now()))
	}
}

// look starts what is due and says when the next is.
func (p *puncher) look(now time.Time) time.Duration {
	next := punchLast
	p.listen(now)
	seen := make(map[peer.ID]bool)
	for _, c := range p.node.host.Network().Conns() {
		id := c.RemotePeer()
		if seen[id] || pathOfAddr(c.RemoteMultiaddr()) != network.PathRelay || p.node.directTo(id) {
			continue
		}
		seen[id] = true
		r := p.peers[id]
		if r == nil {
			r = &retry{wait: punchFirst, next: now.Add(punchFirst)}
			p.peers[id] = r
		}
		due := r.next
		if c.Stat().Direction == libnet.DirInbound {
			if p.ready.IsZero() {
				continue // an event tells when that changes
			}
			due = later(due, p.ready)
		}
		if !due.After(now) && p.try(c) {
			r.wait = min(4*r.wait, punchLast)
			r.next = now.Add(r.wait)
			due = r.next
		}
		next = min(next, max(due.Sub(now), punchFirst/4))
	}
	for id := range p.peers {
		if !seen[id] {
			delete(p.peers, id)
		}
	}
	return next
}

// listen sees whether the service can agree on holes: it says so by its protocol,
// some time before it really can.
func (p *puncher) listen(now time.Time) {
	switch spoken := slices.Contains(p.node.host.Mux().Protocols(), holepunch.Protocol); {
	case !spoken:
		p.ready = time.Time{}
	case p.ready.IsZero():
		p.ready = now.Add(punchFirst)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// try starts an attempt; false where it has to wait for others.
func (p *puncher) try(c libnet.Conn) bool {
	id := c.RemotePeer()
	if c.Stat().Direction == libnet.DirOutbound {
		if slices.ContainsFunc(p.node.host.Peerstore().Addrs(id), isPublicDirect) {
			p.node.Improve(id)
		}
		return true
	}
	select {
	case p.slots <- struct{}{}:
	default:
		return false
	}
	p.node.background.Go(func() { // run's own place in background is held meanwhile
		defer func() { <-p.slots }()
		err := p.service.DirectConnect(id) // ends with the service, which the host closes
		p.node.log.Debug("tried again for a direct path", "peer", id, "err", err)
	})
	return true
}

func isPublicDirect(a ma.Multiaddr) bool {
	return pathOfAddr(a) == network.PathDirect && manet.IsPublicAddr(a)
}

// directTo reports whether there is a connection to a node with nobody between.
func (n *Node) directTo(id peer.ID) bool {
	return slices.ContainsFunc(n.host.Network().ConnsToPeer(id), func(c libnet.Conn) bool {
		return !c.IsClosed() && pathOfAddr(c.RemoteMultiaddr()) == network.PathDirect
	})
}
