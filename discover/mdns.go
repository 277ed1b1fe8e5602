package discover

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// The service strings: the reference's, and parley's own.
var mdnsServices = []string{"p2p-webapp", "_parley._udp"}

// maxMDNSDials bounds the dials of nodes met on the LAN at once; the others are
// remembered by address only.
const maxMDNSDials = 8

// runMDNS announces the node on the LAN and meets who is announced.
func (d *Discovery) runMDNS(ctx context.Context) {
	m := &lanMeeter{d: d, slots: make(chan struct{}, maxMDNSDials)}
	for _, name := range mdnsServices {
		service := mdns.NewMdnsService(d.node.Libp2p(), name, m)
		if err := service.Start(); err != nil {
			d.log.Info("no mDNS here", "service", name, "err", err)
		}
		defer service.Close()
	}
	<-ctx.Done()
}

// lanMeeter connects to nodes that mDNS found.
type lanMeeter struct {
	d     *Discovery
	slots chan struct{}
}

// HandlePeerFound is called in a goroutine of its own.
func (m *lanMeeter) HandlePeerFound(info peer.AddrInfo) {
	m.d.spawn(func(ctx context.Context) {
		m.d.node.Found(info.ID, info.Addrs, peerstore.AddressTTL)
		select {
		case m.slots <- struct{}{}:
			defer func() { <-m.slots }()
		default:
			return
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		_ = m.d.node.Connect(ctx, info.ID) // announced again later
	})
}
