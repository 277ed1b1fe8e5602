//go:build linux

package lab

import (
	"slices"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// meet starts a node on the public network and one at home behind a router, which
// is told of the first, and gives a page on each.
func meet(t *testing.T, lab *labtest.Lab, home *labtest.Router, listen string, transports ...string) *talk {
	t.Helper()
	args := append(slices.Clone(alone), "--set", "peer.sendTimeout=60s")
	bob := run(t, lab.Public("bob"), append(slices.Clone(args), "--set", listen)...)
	for _, transport := range transports {
		args = append(args, "--connect", bob.at(transport))
	}
	return &talk{a: open(t, run(t, home.Host("ann"), args...)), b: open(t, bob)}
}

// TestAbuse41_UDPBlocked: all that gets through is TCP, or a WebSocket.
func TestAbuse41_UDPBlocked(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp/4001", "tcp/4002/ws"} {
		lab := labtest.New(t)
		home := lab.Router("home", labtest.Cone)
		home.Drop("meta l4proto udp")
		c := meet(t, lab, home, "p2p.listen=/ip4/0.0.0.0/udp/4001/quic-v1,/ip4/0.0.0.0/"+transport, transport)
		c.on(t, 100)
		c.complete(t)
		if p := c.a.path(c.b); p.Path != "direct" || !strings.Contains(p.Address, "/tcp/") {
			t.Errorf("path %+v", p)
		}
	}
}

// TestAbuse41_NoDNS: names can't be resolved, and nobody says so; what has an
// address is used meanwhile.
func TestAbuse41_NoDNS(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	home := lab.Router("home", labtest.Cone)
	home.Drop("meta l4proto { tcp, udp } th dport 53")
	bob := run(t, lab.Public("bob"), append(slices.Clone(alone), "--set", fixed)...)
	ann := run(t, home.Host("ann"), "--set", "p2p.mdns=false", // with the DHT, whose public list has names alone
		"--connect", "/dns4/bob.example/tcp/4001/p2p/"+bob.id, "--connect", bob.at("tcp/4001"),
		"--set", "p2p.relays=/dns4/relay.example/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	c := &talk{a: open(t, ann), b: open(t, bob)}
	c.on(t, 100)
	c.complete(t)
	if p := c.a.path(c.b); p.Path != "direct" {
		t.Errorf("path %+v", p)
	}
}

// TestAbuse41_IPv6Only: no IPv4 but on loopback.
func TestAbuse41_IPv6Only(t *testing.T) {
	t.Parallel()
	lab := labtest.New6(t)
	home := lab.Router("home", labtest.Firewall)
	c := meet(t, lab, home, "p2p.listen=/ip6/::/tcp/4001,/ip6/::/udp/4001/quic-v1", "tcp/4001")
	c.on(t, 100)
	c.complete(t)
	for _, p := range []path{c.a.path(c.b), c.b.path(c.a)} {
		if p.Path != "direct" || !strings.HasPrefix(p.Address, "/ip6/3fff:") {
			t.Errorf("path %+v", p)
		}
	}
}

// TestAbuse41_IPv6OnlyByMulticast: two hosts of one segment without IPv4 find each
// other.
func TestAbuse41_IPv6OnlyByMulticast(t *testing.T) {
	t.Parallel()
	segment := labtest.New6(t).Router("home", labtest.Open)
	first := begin(t, segment.Host("first"), "--set", "p2p.dht=false")
	second := begin(t, segment.Host("second"), "--set", "p2p.dht=false")
	c := &talk{a: open(t, first()), b: open(t, second())}
	c.on(t, 10)
	c.complete(t)
}

// TestAbuse41_SmallMTU: packets of 1,400 bytes, as in a tunnel; of 1,280, the least
// of IPv6, and of 576, the least of IPv4, which are too small for QUIC, as
// libp2p has it: its first packets have 1,308.
func TestAbuse41_SmallMTU(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ mtu, want string }{{"1400", "/udp/"}, {"1280", "/tcp/"}, {"576", "/tcp/"}} {
		t.Run(tt.mtu, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t)
			home := lab.Router("home", labtest.Cone)
			home.IP("link set wan mtu " + tt.mtu)
			c := meet(t, lab, home, fixed, "udp/4001/quic-v1", "tcp/4001")
			c.on(t, 100)
			c.complete(t)
			if p := c.a.path(c.b); p.Path != "direct" || !strings.Contains(p.Address, tt.want) {
				t.Errorf("path %+v", p)
			}
		})
	}
}

// TestAbuse41_Loss: a fifth, then half of the packets is lost on the way, and every
// message is handled once and in order.
func TestAbuse41_Loss(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp/4001", "udp/4001/quic-v1"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t)
			home := lab.Router("home", labtest.Cone)
			c := meet(t, lab, home, fixed, transport)
			c.on(t, 10)
			home.Drop("numgen random mod 100 < 20")
			for range 20 {
				c.on(t, 5)
			}
			home.Drop("numgen random mod 100 < 37") // half together
			c.on(t, 10)
			if lost := home.Dropped(); lost < 10 {
				t.Errorf("only %d packets were lost", lost)
			}
			home.Allow()
			c.on(t, 100)
			c.complete(t)
		})
	}
}
