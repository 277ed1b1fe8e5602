//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// TestReachabilityIsFoundOut: nodes with the same relay find out by others that
// dial them back whether they can be reached: one with an address of its own lets
// the relay's address go, which it had while it didn't know, one behind a router
// keeps it.
func TestReachabilityIsFoundOut(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	relay := startRelay(t, lab)
	args := append(slices.Clone(alone), "--set", fixed, "--set", "p2p.relays="+relay.at("tcp/4001"))
	for i := range 4 {
		other := run(t, lab.Public(fmt.Sprint("other ", i)), append(slices.Clone(alone), "--set", fixed)...)
		args = append(args, "--connect", other.at("tcp/4001"))
	}
	open, hidden := begin(t, lab.Public("open"), args...), begin(t, lab.Router("home", labtest.Cone).Host("hidden"), args...)
	public, private := open(), hidden()
	private.relayed(relay)
	circuits := func(n *node) bool {
		return slices.ContainsFunc(n.addresses(), func(a string) bool { return strings.Contains(a, "/p2p-circuit") })
	}
	until(t, "the node that can be reached announces no relay", func() bool { return !circuits(public) })
	if !circuits(private) {
		t.Errorf("the node behind a router announces %v", private.addresses())
	}
}
