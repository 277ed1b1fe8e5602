package host

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// errIfTaken says which TCP port of the configuration another process has.
// libp2p shares ports (SO_REUSEPORT, for hole punching), so without this two
// nodes of one user would start on one port and each get half of the callers.
func errIfTaken(listen []string) error {
	addrs, err := parseAddrs(listen)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		tcp := tcpPart(a)
		if tcp == nil {
			continue
		}
		l, err := manet.Listen(tcp)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("p2p.listen: %s: address already in use", a)
		case err == nil:
			_ = l.Close()
		}
	}
	return nil
}

// tcpPart is the /ip…/tcp/… of an address with a fixed TCP port, or nil.
func tcpPart(a ma.Multiaddr) ma.Multiaddr {
	if len(a) < 2 || a[1].Protocol().Code != ma.P_TCP || a[1].Value() == "0" {
		return nil
	}
	return a[:2:2]
}

// listen opens the node's sockets, after the host is made: a libp2p constructor
// that can't listen leaves half a host running.
func (n *Node) listen() error {
	addrs, _ := parseAddrs(n.cfg.Listen) // validated
	if len(addrs) == 0 {
		return nil
	}
	if err := n.host.Network().Listen(addrs...); err != nil {
		return fmt.Errorf("p2p.listen: %w", err)
	}
	n.warnUnheard()
	return nil
}

// warnUnheard logs which of the wanted addresses the node doesn't listen on:
// libp2p is content with one. Without IPv6 on the machine that is usual for the
// addresses with free ports, so only fixed ones are told.
func (n *Node) warnUnheard() {
	net, ok := n.host.Network().(transport.TransportNetwork)
	if !ok {
		return
	}
	addrs, _ := parseAddrs(n.cfg.Listen) // validated
	for _, a := range addrs {
		port, err := a.ValueForProtocol(ma.P_UDP)
		if err != nil {
			port, err = a.ValueForProtocol(ma.P_TCP)
		}
		if err != nil || port == "0" {
			continue
		}
		heard := false
		for _, l := range net.ListenAddresses() {
			heard = heard || l.Equal(a) || len(l) > len(a) && l[:len(a)].Equal(a) // certificate hashes follow
		}
		if !heard {
			n.log.Warn("not listening on a configured address", "address", a)
		}
	}
}
