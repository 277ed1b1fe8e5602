//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// TestRouterLeadsPortsIn: a node behind a home router asks it for its ports, and
// is then reached at the router's address by a node that knows nothing else, with
// no relay and no hole. The mappings end with the node.
func TestRouterLeadsPortsIn(t *testing.T) {
	for _, way := range []string{"upnp", "natpmp"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t)
			home := lab.Router("home", labtest.Cone)
			home.MapsPorts(way)
			n := run(t, home.Host("mapped"), append(slices.Clone(alone), "--set", fixed)...)
			at := n.mapped(home)
			if got, want := home.Mapped(), []string{"tcp 4001", "udp 4001"}; !slices.Equal(got, want) {
				t.Errorf("the router has mapped %q, want %q", got, want)
			}
			for i, at := range at {
				other := run(t, lab.Public("other "+at), append(slices.Clone(alone), "--connect", at+"/p2p/"+n.id)...)
				a, b := open(t, n), open(t, other)
				exchange(t, b, a, uint64(2*i))
				exchange(t, a, b, uint64(2*i+1))
				if p := b.path(a); p.Path != "direct" {
					t.Errorf("path %+v", p)
				}
			}
			if got := n.fact("ports by the router"); !strings.Contains(got, "tcp "+home.PublicAddr().String()+":4001") {
				t.Errorf("the status says of the router: %s", got)
			}
			n.stop()
			if got := home.Mapped(); len(got) != 0 {
				t.Errorf("the node has ended, and the router still maps %q", got)
			}
		})
	}
}

// TestMappedNodeIsReachable: nodes that dial back find that the router lets them in,
// so the node behind it lets its relay's address go. A router that has restarted and
// knows nothing is asked again.
func TestMappedNodeIsReachable(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	home := lab.Router("home", labtest.Cone)
	mapper := home.MapsPorts("upnp", "natpmp")
	relay := startRelay(t, lab)
	args := append(slices.Clone(alone), "--set", fixed, "--set", "p2p.relays="+relay.at("tcp/4001"))
	for i := range 4 {
		other := run(t, lab.Public(fmt.Sprint("other ", i)), append(slices.Clone(alone), "--set", fixed)...)
		args = append(args, "--connect", other.at("tcp/4001"))
	}
	n := run(t, home.Host("mapped"), args...)
	n.mapped(home)
	until(t, "the node knows that it is reached", func() bool { return n.fact("reached from outside") == "yes" })
	until(t, "it announces no relay", func() bool {
		return !slices.ContainsFunc(n.addresses(), func(a string) bool { return strings.Contains(a, "/p2p-circuit") })
	})
	mapper.Stop()
	if got := home.Mapped(); len(got) != 0 {
		t.Fatalf("a router without the program maps %q", got)
	}
	mapper.Start()
	want := []string{"tcp 4001", "udp 4001"}
	until(t, "the router that has restarted maps the same ports", func() bool { return slices.Equal(home.Mapped(), want) })
}

// mapped waits until the node announces the router's address, by TCP and by QUIC,
// and gives both.
func (n *node) mapped(r *labtest.Router) (at []string) {
	n.t.Helper()
	until(n.t, n.Name+" announces ports of the router", func() bool {
		at = nil
		for _, kind := range []string{"/tcp/", "/udp/"} {
			for _, a := range n.addresses() {
				if strings.HasPrefix(a, "/ip4/"+r.PublicAddr().String()+kind) {
					at = append(at, strings.TrimSuffix(a, "/p2p/"+n.id))
					break
				}
			}
		}
		return len(at) == 2
	})
	return at
}
