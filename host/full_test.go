package host

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/network"
)

// The default node: every transport of gateway.md §5.1, port mapping, AutoNAT
// and hole punching. It is reached by each transport alone, by pages too, and
// nothing is left when it has closed (goleak looks).
func TestDefaultNode(t *testing.T) {
	cfg := Config{}
	for _, text := range DefaultListen() {
		if strings.HasPrefix(text, "/ip4") {
			cfg.Listen = append(cfg.Listen, strings.Replace(text, "0.0.0.0", "127.0.0.1", 1))
		}
	}
	n, other := newNode(t, cfg), newNode(t, loopback())
	n.Handle(echo, echoHandler)
	kinds := map[string]func(ma.Multiaddr) bool{
		"tcp":           func(a ma.Multiaddr) bool { return last(a) == ma.P_TCP },
		"quic":          func(a ma.Multiaddr) bool { return last(a) == ma.P_QUIC_V1 },
		"websocket":     func(a ma.Multiaddr) bool { return last(a) == ma.P_WS },
		"webtransport":  func(a ma.Multiaddr) bool { return hasProtocol(a, ma.P_WEBTRANSPORT) },
		"webrtc-direct": func(a ma.Multiaddr) bool { return hasProtocol(a, ma.P_WEBRTC_DIRECT) },
	}
	for name, is := range kinds {
		t.Run(name, func(t *testing.T) {
			h := plainHost(t)
			var at []ma.Multiaddr
			for _, a := range bareAddrs(n.Addrs()) {
				if is(a) {
					at = append(at, a)
				}
			}
			if len(at) == 0 {
				t.Fatalf("no such address among %v", n.Addrs())
			}
			if err := h.Connect(deadline(t), peer.AddrInfo{ID: n.Local(), Addrs: at}); err != nil {
				t.Fatal(err)
			}
			if r := <-ping.Ping(deadline(t), h, n.Local()); r.Error != nil {
				t.Error(r.Error)
			}
			p := newPage(t, other) // a page dials what a node does
			tell(p.endpoint, n.Local(), at)
			if got := roundTrip(t, p, n.Local()); got != network.PathDirect {
				t.Errorf("a page reaches it by path %s", got)
			}
			for _, c := range p.swarm.ConnsToPeer(n.Local()) {
				if !is(c.RemoteMultiaddr()) {
					t.Errorf("a page dialled %s", c.RemoteMultiaddr())
				}
			}
		})
	}
}

// What the zero Config means: on all interfaces, with port mapping.
func TestZeroConfig(t *testing.T) {
	n := newNode(t, Config{})
	p := newPage(t, n)
	if len(n.Addrs()) == 0 || len(p.Addrs()) == 0 {
		t.Errorf("addresses of the node %v, of a page %v", n.Addrs(), p.Addrs())
	}
	for name, kind := range map[string]int{"TCP": ma.P_TCP, "QUIC": ma.P_QUIC_V1} {
		if !slices.ContainsFunc(p.bare.directAddrs(), func(a ma.Multiaddr) bool { return last(a) == kind }) {
			t.Errorf("a page doesn't listen on %s but on %v", name, p.bare.directAddrs())
		}
	}
	conns, ok := n.Libp2p().ConnManager().(*connmgr.BasicConnMgr)
	if !ok {
		t.Fatalf("connections are managed by %T", n.Libp2p().ConnManager())
	}
	if i := conns.GetInfo(); i.LowWater != 192 || i.HighWater != 384 || i.GracePeriod != time.Minute {
		t.Errorf("connections are kept by %+v", i)
	}
}

func last(a ma.Multiaddr) int {
	p := a.Protocols()
	return p[len(p)-1].Code
}
