package host

import (
	"fmt"
	"net/netip"

	libnet "github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/host/portmap"
)

// ports has the router map what the node listens on, and tells libp2p the outer
// addresses, which announces them and lets others try them (AutoNAT).
type ports struct {
	net    libnet.Network
	keeper *portmap.Keeper
	watch  *libnet.NotifyBundle
}

var _ basichost.NATManager = (*ports)(nil)

// mapPorts makes the node's ports. The host owns it: it closes it.
func (n *Node) mapPorts(on libnet.Network) basichost.NATManager {
	p := &ports{net: on, keeper: portmap.New(portmap.Config{Changed: n.Readdress, Log: n.log})}
	p.watch = &libnet.NotifyBundle{
		ListenF:      func(libnet.Network, ma.Multiaddr) { p.wanted() },
		ListenCloseF: func(libnet.Network, ma.Multiaddr) { p.wanted() },
	}
	on.Notify(p.watch)
	p.wanted()
	n.ports.Store(p)
	return p
}

func (p *ports) wanted() {
	var want []portmap.Port
	for _, a := range p.net.ListenAddresses() {
		if port, _, ok := portOf(a); ok {
			want = append(want, port)
		}
	}
	p.keeper.Want(want)
}

// portOf splits a listen address into the socket, if a router could lead to it, and
// what is spoken there.
func portOf(a ma.Multiaddr) (_ portmap.Port, rest ma.Multiaddr, _ bool) {
	if len(a) < 2 || a[0].Protocol().Code != ma.P_IP4 {
		return portmap.Port{}, nil, false
	}
	ip, ok := netip.AddrFromSlice(a[0].RawValue())
	if !ok || !ip.IsUnspecified() && !ip.IsGlobalUnicast() {
		return portmap.Port{}, nil, false
	}
	proto := map[int]string{ma.P_TCP: portmap.TCP, ma.P_UDP: portmap.UDP}[a[1].Protocol().Code]
	number := a[1].RawValue()
	if proto == "" || len(number) != 2 {
		return portmap.Port{}, nil, false
	}
	at := netip.AddrPortFrom(ip, uint16(number[0])<<8|uint16(number[1]))
	return portmap.Port{Proto: proto, At: at}, a[2:], true
}

// GetMapping gives the address at which a listen address is reached from outside;
// nil for none.
func (p *ports) GetMapping(listen ma.Multiaddr) ma.Multiaddr {
	port, rest, ok := portOf(listen)
	if !ok {
		return nil
	}
	outside, ok := p.keeper.Outside(port)
	if !ok {
		return nil
	}
	a, err := manet.FromIP(outside.Addr().AsSlice())
	if err != nil {
		return nil
	}
	last, err := ma.NewComponent(port.Proto, fmt.Sprint(outside.Port()))
	if err != nil {
		return nil
	}
	return ma.Join(a, last.Multiaddr(), rest)
}

// HasDiscoveredNAT reports whether a router maps ports.
func (p *ports) HasDiscoveredNAT() bool { return p.keeper.Router() != "" }

// Close has the router end the mappings.
func (p *ports) Close() error {
	p.net.StopNotify(p.watch)
	return p.keeper.Close()
}

// Router names the router that leads ports to the node, with the protocol and the
// outer addresses by it; "" where none does.
func (n *Node) Router() (name string, outside []string) {
	p := n.ports.Load()
	if p == nil {
		return "", nil
	}
	seen := make(map[string]bool)
	for _, a := range p.net.ListenAddresses() {
		port, _, ok := portOf(a)
		if !ok {
			continue
		}
		if out, ok := p.keeper.Outside(port); ok {
			if text := port.Proto + " " + out.String(); !seen[text] {
				seen[text] = true
				outside = append(outside, text)
			}
		}
	}
	return p.keeper.Router(), outside
}
