//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// place is where a node is.
type place string

const (
	public    place = "public"
	cone      place = "cone"
	symmetric place = "symmetric"
	firewall  place = "firewall"
	noUDP     place = "no UDP" // behind a home router that drops UDP
)

// at makes a host at a place.
func (p place) host(lab *labtest.Lab, name string) *labtest.Host {
	switch p {
	case public:
		return lab.Public(name)
	case noUDP:
		r := lab.Router(name+"'s router", labtest.Cone)
		r.Drop("meta l4proto udp")
		return r.Host(name)
	}
	return lab.Router(name+"'s router", labtest.Kind(p)).Host(name)
}

// pairs is the table: by what path two pages reach each other whose nodes have a
// relay in common and know nothing else. Where an end has a public address behind
// a firewall, calls may cross by chance, without an appointment: "direct". And
// where one end is public, the relay may have arranged the call before the other's
// own is through: "punch".
var pairs = []struct {
	a, b place
	want string
}{
	{public, public, "direct"},
	{public, cone, "direct, punch"},
	{public, symmetric, "direct, punch"},
	{public, firewall, "direct, punch"},
	{public, noUDP, "direct, punch"},
	{cone, cone, "punch"},
	{cone, symmetric, "relay"},
	{cone, firewall, "punch, direct"},
	{cone, noUDP, "punch"},
	{symmetric, symmetric, "relay"},
	{symmetric, firewall, "relay"},
	{symmetric, noUDP, "relay"},
	{firewall, firewall, "punch, direct"},
	// DCUtR has the called end dial first. Where that is behind a NAT, and only TCP
	// goes through, the NAT may take what it remembers of that call for a reason to
	// drop the answer of the next: then all goes on through the relay.
	{firewall, noUDP, "punch, direct, relay"},
	{noUDP, noUDP, "punch"},
}

// TestAbuse42_NATMatrix: pages of every pair of places reach each other, whoever
// calls, and are told how: without anybody between where the routers allow it.
func TestAbuse42_NATMatrix(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	relay := startRelay(t, lab)
	starting := map[place][]func() *node{}
	for _, p := range []place{public, cone, symmetric, firewall, noUDP} {
		for i := range 2 {
			h := p.host(lab, fmt.Sprintf("%s %d", p, i+1))
			starting[p] = append(starting[p], begin(t, h, append(alone, "--set", "p2p.relays="+relay.at("tcp/4001"))...))
		}
	}
	nodes := map[place][]*node{}
	for p, all := range starting {
		for _, started := range all {
			n := started()
			n.relayed(relay)
			nodes[p] = append(nodes[p], n)
		}
	}
	t.Run("pairs", func(t *testing.T) {
		for _, pair := range pairs {
			for _, ends := range [][2]place{{pair.a, pair.b}, {pair.b, pair.a}} {
				t.Run(fmt.Sprintf("%s calls %s", ends[0], ends[1]), func(t *testing.T) {
					t.Parallel()
					a, b := open(t, nodes[ends[0]][0]), open(t, nodes[ends[1]][1])
					a.tell(b)
					settle(t, a, b, pair.want)
				})
				if pair.a == pair.b {
					break
				}
			}
		}
	})
}

// settle has messages handled both ways until both pages are told a path that is
// wanted, and a few more on that path: it has to stay.
func settle(t *testing.T, a, b *page, want string) {
	t.Helper()
	var seen []string
	stays, number := 0, uint64(0)
	defer func() { t.Log("told: " + strings.Join(seen, ", then ")) }()
	until(t, "both are told "+want, func() bool {
		number++
		exchange(t, a, b, number)
		there, back := a.path(b), b.path(a)
		if now := there.Path + " and " + back.Path; !slices.Contains(seen, now) {
			seen = append(seen, now)
		}
		if there.Path == back.Path && strings.Contains(want, there.Path) {
			stays++
		} else {
			stays = 0
		}
		return stays == 10
	})
	var sent []uint64
	for n := range number {
		sent = append(sent, n+1)
	}
	if !slices.Equal(a.received(b), sent) || !slices.Equal(b.received(a), sent) {
		t.Errorf("%d messages each way, got %v and %v", number, a.received(b), b.received(a))
	}
	t.Log("address: " + a.path(b).Address)
}
