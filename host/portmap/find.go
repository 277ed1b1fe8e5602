package portmap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-netroute"
)

// beyond is an address that is nowhere (RFC 5737): the route to it is the default
// one. Nothing is sent to it.
var beyond = netip.MustParseAddr("192.0.2.1")

// wayOut asks the system for the default route of IPv4.
func wayOut() (way, error) {
	table, err := netroute.New()
	if err != nil {
		return way{}, fmt.Errorf("read the routes: %w", err)
	}
	_, gateway, inside, err := table.Route(net.IP(beyond.AsSlice()))
	if err != nil {
		return way{}, fmt.Errorf("no way out: %w", err)
	}
	g, _ := netip.AddrFromSlice(gateway) // none on a line without one
	i, _ := netip.AddrFromSlice(inside)
	return way{inside: i.Unmap(), gateway: g.Unmap()}, nil
}

// find asks the gateway by both protocols at once, and gives what answers, NAT-PMP
// first, until take says that it is enough.
func find(ctx context.Context, at way, take func(router) bool) {
	ctx, cancel := context.WithTimeout(ctx, findBound)
	byUPnP := make(chan []router, 1)
	go func() { byUPnP <- findUPnP(ctx, ssdp(at)) }()
	r := findPMP(ctx, netip.AddrPortFrom(at.gateway, pmpPort))
	done := r != nil && take(r)
	if done {
		cancel()
	}
	others := <-byUPnP
	cancel()
	if !done {
		_ = slices.ContainsFunc(others, take)
	}
}
