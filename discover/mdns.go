package discover

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// The service strings: the reference's, and parley's own.
var mdnsServices = []string{"p2p-webapp", "_parley._udp"}

// maxMDNSDials bounds the nodes of the LAN that are dealt with at once; the
// others wait for their next announcement.
const maxMDNSDials = 16

// mdnsSettle is how long addresses must stay before they are announced anew: an
// uplink that changes does so in several steps.
const mdnsSettle = 5 * time.Second

// runMDNS announces the node on the LAN and meets who is announced. When the
// node's addresses change it starts over, for the library announces those of
// its start.
func (d *Discovery) runMDNS(ctx context.Context) {
	m := &lanMeeter{d: d, slots: make(chan struct{}, maxMDNSDials)}
	moved, err := d.node.Libp2p().EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("parley mdns"))
	if err != nil {
		d.log.Warn("no mDNS", "err", err)
		return
	}
	defer moved.Close()
	select {
	case <-moved.Out(): // what holds already
	default:
	}
	for ctx.Err() == nil {
		stop := d.startMDNS(m)
		waitMoved(ctx, moved)
		stop()
	}
}

func (d *Discovery) startMDNS(m *lanMeeter) (stop func()) {
	var services []mdns.Service
	for _, name := range mdnsServices {
		service := mdns.NewMdnsService(d.node.Libp2p(), name, m)
		if err := service.Start(); err != nil {
			d.log.Info("no mDNS here", "service", name, "err", err)
		}
		services = append(services, service)
	}
	return func() {
		for _, s := range services {
			_ = s.Close()
		}
	}
}

// waitMoved returns when addresses have changed and stayed so for a while, or
// ctx ended.
func waitMoved(ctx context.Context, moved event.Subscription) {
	select {
	case <-moved.Out():
	case <-ctx.Done():
		return
	}
	settled := time.NewTimer(mdnsSettle)
	defer settled.Stop()
	for {
		select {
		case _, ok := <-moved.Out():
			if !ok {
				return
			}
			settled.Reset(mdnsSettle)
		case <-settled.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// lanMeeter connects to nodes that mDNS found.
type lanMeeter struct {
	d     *Discovery
	slots chan struct{}
}

// HandlePeerFound is called in a goroutine of its own. Of two nodes that find
// each other the one with the lower id dials at once, see meet.
func (m *lanMeeter) HandlePeerFound(info peer.AddrInfo) {
	select {
	case m.slots <- struct{}{}:
	default:
		return // announced again later
	}
	started := m.d.spawn(func(ctx context.Context) {
		defer func() { <-m.slots }()
		node := m.d.node
		node.Found(info.ID, info.Addrs, peerstore.AddressTTL)
		if node.Local() > info.ID && !wait(ctx, machineFirst) || node.Connected(info.ID) {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		_ = node.Connect(ctx, info.ID)
	})
	if !started {
		<-m.slots
	}
}
