//go:build linux

package labtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// Lab is a public network and what is attached to it. Its methods fail the test
// when the kernel refuses; they are for the test's goroutine.
type Lab struct {
	t    testing.TB
	v6   bool
	core *space
	next int // the next public network, from 1
}

// New makes a lab that speaks IPv4 and ends with the test.
func New(t testing.TB) *Lab { return newLab(t, false) }

// New6 makes a lab without IPv4.
func New6(t testing.TB) *Lab { return newLab(t, true) }

func newLab(t testing.TB, v6 bool) *Lab {
	t.Helper()
	l := &Lab{t: t, v6: v6, next: 1}
	l.core = l.space("the public network")
	l.forward(l.core)
	return l
}

func (l *Lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// space makes a namespace with a loopback interface.
func (l *Lab) space(name string) *space {
	l.t.Helper()
	s, err := newSpace(name)
	l.check(err)
	l.t.Cleanup(func() { _ = s.file.Close() })
	l.ip(s, nil, "link set lo up")
	return s
}

func (l *Lab) forward(s *space) {
	l.t.Helper()
	l.check(s.set("net/ipv4/ip_forward", "1"))
	l.check(s.set("net/ipv6/conf/all/forwarding", "1"))
}

// ip runs commands of ip in a namespace; PEER is the namespace that a command
// names.
func (l *Lab) ip(s, peer *space, commands ...string) {
	l.t.Helper()
	var files []*os.File
	if peer != nil {
		files = append(files, peer.file)
	}
	var batch string
	for _, c := range commands {
		batch += c + "\n"
	}
	l.check(s.run(batch, files, "ip", "-batch", "-"))
}

// peerSpace names the namespace that ip was given.
const peerSpace = "/proc/self/fd/3"

// network is one public network: the attached side is .2, or ::2.
type network struct {
	gateway, host, inside netip.Prefix // inside is what a firewall without NAT has behind it
}

func (l *Lab) network() network {
	n := l.next
	l.next++
	if n > 60 {
		l.t.Fatal("the lab has 60 public networks at most")
	}
	if l.v6 {
		at := func(net, host int) netip.Prefix {
			return netip.MustParsePrefix(fmt.Sprintf("3fff:%x:%x::%x/64", n, net, host))
		}
		return network{at(0, 1), at(0, 2), at(1, 0)}
	}
	// A first number each: nodes count the networks that others are in.
	at := func(net, host int) netip.Prefix {
		return netip.MustParsePrefix(fmt.Sprintf("%d.77.%d.%d/24", 20+n, net, host))
	}
	return network{at(0, 1), at(0, 2), at(1, 0)}
}

// attach joins a namespace to the public network by an interface of a name.
func (l *Lab) attach(s *space, link string) network {
	l.t.Helper()
	n := l.network()
	up := fmt.Sprintf("core%d", l.next-1)
	l.join(l.core, up, n.gateway, s, link, n.host)
	l.ip(s, nil, "route add default via "+n.gateway.Addr().String())
	return n
}

// join makes a cable between two namespaces. An end without an address belongs
// to a bridge.
func (l *Lab) join(a *space, linkA string, addrA netip.Prefix, b *space, linkB string, addrB netip.Prefix) {
	l.t.Helper()
	l.ip(a, b, fmt.Sprintf("link add %s type veth peer name %s netns %s", linkA, linkB, peerSpace))
	l.up(a, linkA, addrA)
	l.up(b, linkB, addrB)
}

func (l *Lab) up(s *space, link string, addr netip.Prefix) {
	l.t.Helper()
	// Link-local addresses come at once, without looking for doubles.
	l.check(s.set("net/ipv6/conf/"+link+"/accept_dad", "0"))
	commands := []string{"link set " + link + " up"}
	if addr.IsValid() {
		nodad := ""
		if addr.Addr().Is6() {
			nodad = " nodad"
		}
		commands = append(commands, fmt.Sprintf("addr add %s dev %s%s", addr, link, nodad))
	}
	l.ip(s, nil, commands...)
}

// Public makes a host on the public network.
func (l *Lab) Public(name string) *Host {
	l.t.Helper()
	s := l.space(name)
	n := l.attach(s, hostLink)
	return &Host{lab: l, space: s, Name: name, Dir: l.t.TempDir(), prefix: n.host, gateway: n.gateway.Addr()}
}

// hostLink is the interface of every host.
const hostLink = "eth0"

// Host is a machine of the lab.
type Host struct {
	Name string
	Dir  string // an empty folder, for what its programs share

	lab     *Lab
	space   *space
	prefix  netip.Prefix
	gateway netip.Addr
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.prefix.Addr() }

// Start starts a program on the host, which the end of the test kills.
func (h *Host) Start(cmd *exec.Cmd) {
	h.lab.t.Helper()
	h.lab.check(h.space.start(cmd))
	h.lab.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// Dial connects from the host to an address without a name. Safe for several
// goroutines.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return h.space.dial(ctx, network, address)
}

// Within runs f on the host: sockets that f makes are there. f must not start
// goroutines that make some.
func (h *Host) Within(f func() error) error { return h.space.within(f) }

// IP runs commands of ip on the host, such as "link set eth0 mtu 1280".
func (h *Host) IP(commands ...string) {
	h.lab.t.Helper()
	h.lab.ip(h.space, nil, commands...)
}

// Unplug takes the host off its network: its address and its routes go.
func (h *Host) Unplug() {
	h.lab.t.Helper()
	h.IP("link set "+hostLink+" down", "addr flush dev "+hostLink)
}

// Plug puts the host back on its network, at another address of it: the last
// number is n, which nobody else has.
func (h *Host) Plug(n int) {
	h.lab.t.Helper()
	bytes := h.prefix.Addr().AsSlice()
	bytes[len(bytes)-1] = byte(n)
	addr, _ := netip.AddrFromSlice(bytes)
	h.prefix = netip.PrefixFrom(addr, h.prefix.Bits())
	h.lab.up(h.space, hostLink, h.prefix)
	h.IP("route add default via " + h.gateway.String())
}
