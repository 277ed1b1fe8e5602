//go:build linux

package labtest

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
)

// Kind is what a router does with packets.
type Kind string

const (
	// Cone is the usual home router: one host and port is seen from outside as
	// one port, whoever it talks to (endpoint-independent mapping); in comes what
	// answers (address-and-port-dependent filtering).
	Cone Kind = "cone"
	// Symmetric gives each conversation a random port of its own
	// (address-and-port-dependent mapping), as many offices and phones' networks
	// do: nobody can tell a port that others could use.
	Symmetric Kind = "symmetric"
	// Firewall translates nothing and lets in what answers.
	Firewall Kind = "firewall"
	// Open forwards everything.
	Open Kind = "open"
)

// Names of a router's interfaces.
const (
	wanLink = "wan"
	lanLink = "lan"
)

// homeNet is behind every router that translates: as at home, they all have the
// same addresses.
var homeNet = netip.MustParsePrefix("192.168.1.1/24")

// Router joins a LAN, on which multicast works, to the public network.
type Router struct {
	Name string

	lab   *Lab
	space *space
	wan   network
	lan   netip.Prefix // with the router's own address
	ports int          // of the LAN
}

// Router makes one; its LAN is empty.
func (l *Lab) Router(name string, kind Kind) *Router {
	l.t.Helper()
	r := &Router{Name: name, lab: l, space: l.space(name), lan: homeNet}
	l.forward(r.space)
	r.wan = l.attach(r.space, wanLink)
	if kind == Firewall || kind == Open {
		r.lan = netip.PrefixFrom(r.wan.inside.Addr().Next(), r.wan.inside.Bits())
		l.ip(l.core, nil, fmt.Sprintf("route add %s via %s", r.wan.inside, r.wan.host.Addr()))
	}
	l.ip(r.space, nil, "link add "+lanLink+" type bridge forward_delay 0 mcast_snooping 0")
	l.up(r.space, lanLink, r.lan)
	r.nft(rules(kind))
	return r
}

// rules are those of a kind. A packet that nobody asked for is dropped before
// the kernel remembers it: else it would take the port that the LAN's own packet
// wants a moment later.
func rules(kind Kind) string {
	in := "accept"
	if kind != Open {
		in = "drop"
	}
	nat := map[Kind]string{
		Cone: "oifname wan masquerade", Symmetric: "oifname wan meta l4proto { tcp, udp } masquerade random,fully-random",
	}[kind]
	return fmt.Sprintf(`
		table inet lab {
			chain blocked { type filter hook forward priority -10; policy accept; }
			chain forward {
				type filter hook forward priority 0; policy accept;
				ct state invalid drop
				iifname != wan accept
				ct state established,related accept
				ct status dnat accept
				meta l4proto { icmp, ipv6-icmp } accept
				%s
			}
			chain input {
				type filter hook input priority 0; policy accept;
				iifname wan ct state new meta l4proto { tcp, udp } %s
			}
			chain mapped { type nat hook prerouting priority -100; policy accept; }
			chain nat { type nat hook postrouting priority 100; policy accept; %s; }
		}`, in, in, nat)
}

func (r *Router) nft(script string) {
	r.lab.t.Helper()
	r.lab.check(r.space.run(script, nil, "nft", "-f", "-"))
}

// Drop makes the router drop what fits an expression of nftables, such as
// "meta l4proto udp".
func (r *Router) Drop(match string) {
	r.lab.t.Helper()
	r.nft("add rule inet lab blocked " + match + " counter drop")
}

// Dropped is how many packets the rules of Drop have dropped.
func (r *Router) Dropped() (packets int) {
	r.lab.t.Helper()
	out, err := r.space.output("", nil, "nft", "list", "chain", "inet", "lab", "blocked")
	r.lab.check(err)
	for _, m := range countedPackets.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		r.lab.check(err)
		packets += n
	}
	return packets
}

var countedPackets = regexp.MustCompile(`counter packets (\d+)`)

// Map leads a public port of the router to a host of its LAN, as an entry of the
// router's table does.
func (r *Router) Map(proto string, port int, to netip.AddrPort) {
	r.lab.t.Helper()
	r.nft(mapping(proto, port, to))
}

func mapping(proto string, port int, to netip.AddrPort) string {
	return fmt.Sprintf("add rule inet lab mapped iifname wan %s dport %d dnat ip to %s", proto, port, to)
}

// Allow undoes all of Drop.
func (r *Router) Allow() {
	r.lab.t.Helper()
	r.nft("flush chain inet lab blocked")
}

// IP runs commands of ip on the router, whose interfaces are wan and lan.
func (r *Router) IP(commands ...string) {
	r.lab.t.Helper()
	r.lab.ip(r.space, nil, commands...)
}

// PublicAddr is the address that the router is seen at from outside.
func (r *Router) PublicAddr() netip.Addr { return r.wan.host.Addr() }

// Host makes a host on the router's LAN.
func (r *Router) Host(name string) *Host {
	r.lab.t.Helper()
	s := r.lab.space(name)
	r.ports++
	bytes := r.lan.Addr().AsSlice()
	bytes[len(bytes)-1] = byte(1 + r.ports)
	addr, _ := netip.AddrFromSlice(bytes)
	h := &Host{lab: r.lab, space: s, Name: name, Dir: r.lab.t.TempDir(), prefix: netip.PrefixFrom(addr, r.lan.Bits()), gateway: r.lan.Addr()}
	port := fmt.Sprintf("port%d", r.ports)
	r.lab.join(r.space, port, netip.Prefix{}, s, hostLink, h.prefix)
	r.lab.ip(r.space, nil, "link set "+port+" master "+lanLink)
	h.IP("route add default via " + h.gateway.String())
	return h
}
