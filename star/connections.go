package star

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// Connections that carry no WebSocket, or not yet one, are bounded too: one that
// says nothing costs a descriptor for as long as a header may take.
const (
	connsPerSession = 2   // a poll and a post
	spareConns      = 512 // for the page, and those that have not said what they want
	spareConnsPerIP = 64
)

// connections counts those of one port by http.Server.ConnState, and closes at
// once what is above the limits. Limits of sessions see to WebSockets.
type connections struct {
	// Static after construction.
	all, perIP int
	trusted    []netip.Prefix // proxies, whose connections are many people's
	hit        func(limit string)

	mu   sync.Mutex
	now  map[net.Conn]netip.Prefix // an invalid one does not count in ofIP
	ofIP map[netip.Prefix]int
}

func newConnections(o *Options, hit func(limit string)) *connections {
	return &connections{all: connsPerSession*o.Limits.Sessions + spareConns, perIP: connsPerSession*o.Limits.SessionsPerIP + spareConnsPerIP,
		trusted: o.TrustedProxies, hit: hit, now: map[net.Conn]netip.Prefix{}, ofIP: map[netip.Prefix]int{}}
}

// state is for http.Server.ConnState.
func (c *connections) state(nc net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		if limit := c.enter(nc); limit != "" {
			c.hit(limit)
			_ = nc.Close() // it is told by that
		}
	case http.StateHijacked, http.StateClosed:
		c.leave(nc)
	}
}

// origin is where a connection comes from; invalid for a trusted proxy, and where
// it isn't known.
func (c *connections) origin(nc net.Conn) netip.Prefix {
	at, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap().WithZone("")
	if within(c.trusted, addr) {
		return netip.Prefix{}
	}
	return network(addr)
}

func (c *connections) enter(nc net.Conn) (limit string) {
	ip := c.origin(nc)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.now) >= c.all:
		return limitConns
	case ip.IsValid() && c.ofIP[ip] >= c.perIP:
		return limitConnsPerIP
	}
	c.now[nc] = ip
	if ip.IsValid() {
		c.ofIP[ip]++
	}
	return ""
}

func (c *connections) leave(nc net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ip, there := c.now[nc]
	if !there {
		return
	}
	delete(c.now, nc)
	if ip.IsValid() {
		count(c.ofIP, ip)
	}
}
