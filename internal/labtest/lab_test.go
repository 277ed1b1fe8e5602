//go:build linux

package labtest

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// listen opens a UDP socket on a host.
func listen(t *testing.T, h *Host, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := h.Within(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr(), uint16(port))))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c *net.UDPConn, to netip.AddrPort, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

// receive gives what comes next and from where it seems to come.
func receive(t *testing.T, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), from
}

// TestKindsOfRouters: each router translates and lets in what its kind says.
func TestKindsOfRouters(t *testing.T) {
	tests := []struct {
		kind           Kind
		hidden         bool // seen at the router's address
		onePort        bool // whoever it talks to
		strangersGetIn bool
	}{
		{kind: Cone, hidden: true, onePort: true},
		{kind: Symmetric, hidden: true},
		{kind: Firewall, onePort: true},
		{kind: Open, onePort: true, strangersGetIn: true},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			lab := New(t)
			r := lab.Router("router", tt.kind)
			inside := listen(t, r.Host("inside"), 4001)
			var publics []*net.UDPConn
			var seen []netip.AddrPort
			for i := range 3 {
				h := lab.Public(fmt.Sprint("public ", i))
				c := listen(t, h, 4001)
				publics = append(publics, c)
				if i == 2 {
					break // a stranger
				}
				send(t, inside, netip.AddrPortFrom(h.Addr(), 4001), "hello")
				_, from := receive(t, c)
				seen = append(seen, from)
			}
			own := inside.LocalAddr().(*net.UDPAddr).AddrPort()
			if hidden := seen[0].Addr() == r.PublicAddr(); hidden != tt.hidden || !hidden && seen[0] != own {
				t.Errorf("%s is seen at %s", own, seen[0])
			}
			if onePort := seen[0].Port() == seen[1].Port(); onePort != tt.onePort {
				t.Errorf("seen at %s and %s", seen[0], seen[1])
			}
			// The answer is asked for by a packet that follows the stranger's.
			send(t, publics[2], seen[0], "stranger")
			send(t, publics[2], netip.AddrPortFrom(publics[0].LocalAddr().(*net.UDPAddr).AddrPort().Addr(), 4001), "go on")
			receive(t, publics[0])
			send(t, publics[0], seen[0], "answer")
			got, _ := receive(t, inside)
			if tt.strangersGetIn {
				second, _ := receive(t, inside)
				got = min(got, second) + ", " + max(got, second)
			}
			if want := map[bool]string{false: "answer", true: "answer, stranger"}[tt.strangersGetIn]; got != want {
				t.Errorf("%s got in, want %s", got, want)
			}
		})
	}
}

// TestDropMapAndMove: what a test changes while programs run.
func TestDropMapAndMove(t *testing.T) {
	t.Parallel()
	lab := New(t)
	public := lab.Public("public")
	r := lab.Router("router", Cone)
	h := r.Host("inside")
	in, out := listen(t, h, 4001), listen(t, public, 4001)
	to := netip.AddrPortFrom(public.Addr(), 4001)

	r.Map("udp", 5000, netip.AddrPortFrom(h.Addr(), 4001))
	send(t, out, netip.AddrPortFrom(r.PublicAddr(), 5000), "mapped")
	if got, _ := receive(t, in); got != "mapped" {
		t.Errorf("got %s", got)
	}
	r.Drop("udp dport 4001")
	send(t, in, to, "dropped")
	r.Allow()
	send(t, in, to, "allowed")
	if got, _ := receive(t, out); got != "allowed" {
		t.Errorf("got %s", got)
	}
	was := h.Addr()
	h.Unplug()
	h.Plug(77)
	if h.Addr() == was {
		t.Fatal("not moved")
	}
	send(t, listen(t, h, 4001), to, "moved")
	if got, _ := receive(t, out); got != "moved" {
		t.Errorf("got %s", got)
	}
}

// TestLabWithoutIPv4: the same with addresses of the other kind.
func TestLabWithoutIPv4(t *testing.T) {
	t.Parallel()
	lab := New6(t)
	public, h := lab.Public("public"), lab.Router("router", Firewall).Host("inside")
	in, out := listen(t, h, 4001), listen(t, public, 4001)
	send(t, in, netip.AddrPortFrom(public.Addr(), 4001), "hello")
	if got, from := receive(t, out); got != "hello" || from.Addr() != h.Addr() {
		t.Errorf("got %s from %s", got, from)
	}
}
