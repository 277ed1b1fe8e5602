package discover

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/identity"
)

// runRegistry registers this instance and meets the others of this user.
func (d *Discovery) runRegistry(ctx context.Context) {
	reg, err := OpenRegistry(d.cfg.RuntimeDir)
	if err != nil {
		d.log.Warn("other instances of this user won't be found", "err", err)
		return
	}
	updates, err := d.node.Libp2p().EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("parley registry"))
	if err != nil {
		d.log.Warn("other instances of this user won't be found", "err", err)
		return
	}
	defer updates.Close()
	if !d.register(reg) {
		return
	}
	defer d.unregister()
	d.spawn(func(ctx context.Context) {
		for {
			select {
			case _, ok := <-updates.Out():
				if !ok {
					return
				}
				d.Describe(func(*Instance) {}) // addresses are filled in
			case <-ctx.Done():
				return
			}
		}
	})
	_ = reg.Watch(ctx, d.meet)
}

func (d *Discovery) register(reg *Registry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fill(&d.inst)
	own, err := reg.Register(d.inst)
	if err != nil {
		d.log.Warn("other instances of this user won't find this one", "err", err)
		return false
	}
	d.reg = own
	return true
}

func (d *Discovery) unregister() {
	d.mu.Lock()
	own := d.reg
	d.reg = nil
	d.mu.Unlock()
	if err := own.Close(); err != nil {
		d.log.Warn("registration not removed", "err", err)
	}
}

// Describe changes what the registry says of this instance: its port, its site.
func (d *Discovery) Describe(change func(*Instance)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.inst)
	d.fill(&d.inst)
	if d.reg == nil {
		return // said when it is registered
	}
	err := d.reg.Update(func(i *Instance) {
		i.Port, i.Site, i.Version, i.Peer, i.Addrs = d.inst.Port, d.inst.Site, d.inst.Version, d.inst.Peer, d.inst.Addrs
	})
	if err != nil {
		d.log.Warn("registration not updated", "err", err)
	}
}

func (d *Discovery) fill(i *Instance) {
	i.Peer = d.node.Local()
	i.Addrs = i.Addrs[:0:0]
	for _, a := range d.node.Libp2p().Addrs() {
		i.Addrs = append(i.Addrs, a.String())
	}
}

// meet keeps connections to the other instances of this user. Each of them does
// the same; the one with the lower id dials at once, the other only if that
// didn't work. (Two that dial each other from their listening ports at the same
// moment end up on one TCP connection with two clients and no server.)
func (d *Discovery) meet(all []Instance) {
	here := make(map[identity.PeerID]bool)
	for _, inst := range all {
		if inst.Peer == d.node.Local() || len(here) >= maxMet {
			continue
		}
		var addrs []ma.Multiaddr
		for _, text := range inst.Addrs {
			if a, err := ma.NewMultiaddr(text); err == nil && len(addrs) < maxPageAddrs {
				addrs = append(addrs, a)
			}
		}
		if len(addrs) == 0 {
			continue
		}
		here[inst.Peer] = true
		d.node.Found(inst.Peer, addrs, peerstore.AddressTTL)
		var after time.Duration
		if d.node.Local() > inst.Peer {
			after = machineFirst
		}
		if err := d.machine.keep(inst.Peer, after); err != nil {
			return
		}
	}
	for _, id := range d.machine.Peers() {
		if !here[id] {
			d.machine.Remove(id)
		}
	}
}

// plausible leaves out addresses of a third party that can't be meant for us:
// those of its own machine when it isn't ours, and private ones from outside.
func (d *Discovery) plausible(from peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	var here, lan bool
	for _, c := range d.node.Libp2p().Network().ConnsToPeer(from) {
		here = here || manet.IsIPLoopback(c.RemoteMultiaddr())
		lan = lan || manet.IsPrivateAddr(c.RemoteMultiaddr())
	}
	return ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool {
		switch {
		case here:
			return true
		case manet.IsIPLoopback(a):
			return false
		case manet.IsPrivateAddr(a):
			return lan
		}
		return true
	})
}
