package host

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Delays between kinds of addresses. A kind that has failed makes the next one
// start at once; the delays only matter while an answer is awaited.
const (
	localStep   = 30 * time.Millisecond  // between transports within a LAN or machine
	circuitWait = 250 * time.Millisecond // how long direct dials have before a circuit is tried too
	starWait    = 2 * time.Second        // a star carries everything through a third party
)

// rankDials orders the addresses of one peer: on the machine and in the LAN TCP
// first (faster than QUIC there for bulk), outside as libp2p does; circuits
// after direct addresses, one at a time; stars last.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var local, public, circuits, stars []ma.Multiaddr
	for _, a := range addrs {
		switch {
		case isStar(a):
			stars = append(stars, a)
		case isCircuit(a):
			circuits = append(circuits, a)
		case manet.IsPrivateAddr(a) || manet.IsIPLoopback(a):
			local = append(local, a)
		default:
			public = append(public, a)
		}
	}
	var out []network.AddrDelay
	slices.SortStableFunc(local, func(a, b ma.Multiaddr) int { return localRank(a) - localRank(b) })
	for i, a := range local {
		delay := time.Duration(localRank(a)) * localStep
		if i > 0 && delay == 0 {
			delay = localStep
		}
		out = append(out, network.AddrDelay{Addr: a, Delay: delay})
	}
	out = append(out, swarm.DefaultDialRanker(public)...)
	var wait time.Duration
	if len(out) > 0 {
		wait = circuitWait
	}
	for _, a := range circuits {
		out = append(out, network.AddrDelay{Addr: a, Delay: wait})
		wait += circuitWait
	}
	if len(out) > 0 {
		wait = max(wait, starWait)
	}
	for _, a := range stars {
		out = append(out, network.AddrDelay{Addr: a, Delay: wait})
	}
	slices.SortStableFunc(out, func(a, b network.AddrDelay) int { return int(a.Delay - b.Delay) })
	return out
}

func localRank(a ma.Multiaddr) int {
	last := a.Protocols()[len(a.Protocols())-1].Code
	switch {
	case last == ma.P_TCP:
		return 0
	case last == ma.P_QUIC_V1:
		return 1
	case hasProtocol(a, ma.P_WEBTRANSPORT):
		return 3
	case hasProtocol(a, ma.P_WEBRTC_DIRECT):
		return 4
	}
	return 2
}

func hasProtocol(a ma.Multiaddr, code int) bool {
	_, err := a.ValueForProtocol(code)
	return err == nil
}

func isCircuit(a ma.Multiaddr) bool { return hasProtocol(a, ma.P_CIRCUIT) }

// starProtocols are the names under which star transports register.
var starProtocols = []string{"p2p-websocket-star", "p2p-stardust"}

func isStar(a ma.Multiaddr) bool {
	for _, p := range a.Protocols() {
		if slices.Contains(starProtocols, p.Name) {
			return true
		}
	}
	return false
}
