//go:build linux

package lab

import (
	"slices"
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// startRelay starts a relay on the public network that serves whoever asks.
func startRelay(t *testing.T, lab *labtest.Lab) *node {
	t.Helper()
	return run(t, lab.Public("relay"), append(alone, "--relay", "--set", "relay.allow=*", "--set", fixed)...)
}

// TestPagesBehindSymmetricNATs: no hole can be punched, so all goes through the
// relay, and every message is handled once and in order.
func TestPagesBehindSymmetricNATs(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	relay := startRelay(t, lab)
	home, office := lab.Router("home", labtest.Symmetric), lab.Router("office", labtest.Symmetric)
	first := begin(t, home.Host("ann"), append(alone, "--set", "p2p.relays="+relay.at("tcp/4001"))...)
	second := begin(t, office.Host("bob"), append(alone, "--set", "p2p.relays="+relay.at("tcp/4001"))...)
	ann, bob := open(t, first()), open(t, second())
	bob.node.relayed(relay)
	ann.tell(bob)
	var sent []uint64
	var answers []<-chan answer
	for number := range uint64(100) {
		sent = append(sent, number)
		answers = append(answers, ann.send(bob, number))
	}
	for i, c := range answers {
		if a := <-c; a != handled {
			t.Fatalf("message %d: %s", i, a)
		}
	}
	exchange(t, bob, ann, 1000)
	if got := bob.received(ann); !slices.Equal(got, append(sent, 1000)) {
		t.Errorf("got %v", got)
	}
	for _, p := range []path{ann.path(bob), bob.path(ann)} {
		if p.Path != "relay" {
			t.Errorf("path %+v", p)
		}
	}
}
