//go:build linux

package lab

import (
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
			n.stop()
			if got := home.Mapped(); len(got) != 0 {
				t.Errorf("the node has ended, and the router still maps %q", got)
			}
		})
	}
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
