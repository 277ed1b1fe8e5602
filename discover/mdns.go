package discover

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/identity"
)

// mDNS as libp2p does it: a service entry with a random name, whose TXT strings
// are "dnsaddr=" and a multiaddr that ends in /p2p/<id>. The node announces
// itself under both services. Its pages are announced under the reference's, so
// that the reference's peers, which know nothing of nodes, find them; such an
// entry has the string "parley=page" too, by which parley's nodes know that
// they need not connect to it.
const (
	theirService = "p2p-webapp"   // the reference's
	ourService   = "_parley._udp" // parley's own
	mdnsDomain   = "local"
	mdnsPort     = 4001 // must be given and is of no use: the addresses are in the strings
	dnsaddr      = "dnsaddr="
	pageMark     = "parley=page"
)

// Bounds of mDNS.
const (
	mdnsSettle     = time.Second // how long what is announced must stay the same before it is announced anew
	browseAgain    = 30 * time.Second
	maxMDNSDials   = 16 // nodes of the LAN dealt with at once; the others wait for their next announcement
	maxMDNSText    = 64 // strings of an entry that are looked at
	maxMDNSAddrs   = 4  // addresses announced of one peer
	pagesPerEntry  = 8  // keeps an entry within a packet
	maxPageEntries = 8  // pages beyond pagesPerEntry times this aren't announced
)

// runMDNS announces the node and its pages on the LAN, and meets who is
// announced there.
func (d *Discovery) runMDNS(ctx context.Context) {
	moved, err := d.node.Libp2p().EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("parley mdns"))
	if err != nil {
		d.log.Warn("no mDNS", "err", err)
		return
	}
	defer moved.Close()
	m := &lanMeeter{d: d, slots: make(chan struct{}, maxMDNSDials)}
	for _, service := range []string{theirService, ourService} {
		d.spawn(func(ctx context.Context) { d.browse(ctx, service, m) })
	}
	said := make(announced)
	defer said.change(nil)
	for {
		said.change(d.toAnnounce())
		if !d.waitChange(ctx, moved) {
			return
		}
	}
}

// announcement is one service entry.
type announcement struct {
	service string
	texts   []string
}

func (a announcement) key() string { return a.service + " " + strings.Join(a.texts, " ") }

// announced are the entries that the LAN is told, by their content.
type announced map[string]*zeroconf.Server

// change ends the entries that aren't wanted any more and starts new ones. One
// that changed gets a new name: listeners tell an entry once.
func (s announced) change(want []announcement) {
	keep := make(map[string]bool)
	for _, a := range want {
		keep[a.key()] = true
	}
	for key, server := range s {
		if !keep[key] {
			server.Shutdown()
			delete(s, key)
		}
	}
	for _, a := range want {
		if s[a.key()] != nil {
			continue
		}
		name := strings.ToLower(rand.Text())
		// Without multicast there is nobody to tell; it is tried again at the next
		// change.
		if server, err := zeroconf.RegisterProxy(name, a.service, mdnsDomain, mdnsPort, name, entryIPs(a.texts), a.texts, nil); err == nil {
			s[a.key()] = server
		}
	}
}

// entryIPs are what the address records of an entry say, which every entry must
// have.
func entryIPs(texts []string) []string {
	for _, text := range texts {
		if a, err := ma.NewMultiaddr(strings.TrimPrefix(text, dnsaddr)); err == nil {
			if ip, err := manet.ToIP(a); err == nil {
				return []string{ip.String()}
			}
		}
	}
	return nil
}

// toAnnounce lists the entries of the node and its pages.
func (d *Discovery) toAnnounce() []announcement {
	direct, err := d.node.Libp2p().Network().InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	own := dnsaddrs(d.node.Local(), direct)
	if len(own) == 0 {
		return nil
	}
	out := []announcement{{theirService, own}, {ourService, own}}
	for chunk := range slices.Chunk(d.pages.announced(pagesPerEntry*maxPageEntries), pagesPerEntry) {
		texts := []string{pageMark}
		for _, p := range chunk {
			texts = append(texts, dnsaddrs(p.id, p.addrs)...)
		}
		if len(texts) > 1 {
			out = append(out, announcement{theirService, texts})
		}
	}
	return out
}

// dnsaddrs are the strings for the addresses of a peer that make sense on a
// LAN: TCP first and then QUIC, loopback only where there is nothing else.
func dnsaddrs(id identity.PeerID, addrs []ma.Multiaddr) []string {
	rank := func(a ma.Multiaddr) int {
		r := 0
		if manet.IsIPLoopback(a) {
			r = 2
		}
		if a[len(a)-1].Protocol().Code == ma.P_QUIC_V1 {
			r++
		}
		return r
	}
	fit := ma.FilterAddrs(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		if len(a) == 0 || a[0].Protocol().Code != ma.P_IP4 && a[0].Protocol().Code != ma.P_IP6 || manet.IsIP6LinkLocal(a) {
			return false
		}
		last := a[len(a)-1].Protocol().Code
		return last == ma.P_TCP && len(a) == 2 || last == ma.P_QUIC_V1 && len(a) == 3
	})
	slices.SortStableFunc(fit, func(a, b ma.Multiaddr) int { return rank(a) - rank(b) })
	var out []string
	for _, a := range fit {
		if len(out) == maxMDNSAddrs || len(out) > 0 && manet.IsIPLoopback(a) && !manet.IsIPLoopback(fit[0]) {
			break
		}
		out = append(out, dnsaddr+a.String()+"/p2p/"+id.String())
	}
	return out
}

// waitChange returns some time after addresses or pages have changed, and after
// addresses have settled; false when ctx ended.
func (d *Discovery) waitChange(ctx context.Context, moved event.Subscription) bool {
	select {
	case <-moved.Out():
	case <-d.pages.changed:
	case <-ctx.Done():
		return false
	}
	settled := time.NewTimer(mdnsSettle)
	defer settled.Stop()
	for {
		select {
		case _, ok := <-moved.Out():
			if !ok {
				return false
			}
			settled.Reset(mdnsSettle)
		case <-settled.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// browse hands on the entries of one service until ctx ends. It starts over
// when it fails: the network may have been away.
func (d *Discovery) browse(ctx context.Context, service string, m *lanMeeter) {
	for {
		for _, traffic := range []zeroconf.IPType{zeroconf.IPv4AndIPv6, zeroconf.IPv4} { // the first fails without IPv6
			if err := browseOnce(ctx, service, traffic, m); ctx.Err() == nil {
				d.log.Debug("mDNS can't be asked", "service", service, "err", err)
			}
		}
		if !wait(ctx, browseAgain) {
			return
		}
	}
}

// browseOnce ends with ctx, or when the library fails. It closes the channel
// only if it got as far as to ask.
func browseOnce(ctx context.Context, service string, traffic zeroconf.IPType, m *lanMeeter) error {
	entries := make(chan *zeroconf.ServiceEntry, 256)
	ended := make(chan error, 1)
	go func() { ended <- zeroconf.Browse(ctx, service, mdnsDomain, entries, zeroconf.SelectIPTraffic(traffic)) }()
	open := entries
	for {
		select {
		case e, ok := <-open:
			if !ok {
				open = nil // ended follows
				continue
			}
			m.entry(e.Text)
		case err := <-ended:
			return err
		}
	}
}

// lanMeeter connects to nodes that mDNS found.
type lanMeeter struct {
	d     *Discovery
	slots chan struct{}
}

// entry takes the strings of one service entry. They are whoever's on the LAN.
func (m *lanMeeter) entry(texts []string) {
	var addrs []ma.Multiaddr
	for _, text := range texts[:min(len(texts), maxMDNSText)] {
		if rest, ok := strings.CutPrefix(text, dnsaddr); ok && len(rest) <= maxAddrLen {
			if a, err := ma.NewMultiaddr(rest); err == nil {
				addrs = append(addrs, a)
			}
		}
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return
	}
	pages := slices.Contains(texts, pageMark)
	for _, info := range infos {
		switch {
		case info.ID == m.d.node.Local() || m.d.pages.isOwn(info.ID):
		case pages:
			m.d.node.Found(info.ID, info.Addrs, peerstore.AddressTTL)
		default:
			m.meet(info)
		}
	}
}

// meet connects to a node. Of two nodes that find each other the one with the
// lower id dials at once, see Discovery.meet.
func (m *lanMeeter) meet(info peer.AddrInfo) {
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
