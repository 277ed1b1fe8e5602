//go:build linux

package lab

import (
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// TestConnectByHand: two hosts, and all that one node knows is the other's
// address on its command line.
func TestConnectByHand(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	first := run(t, lab.Public("first"), append(alone, "--set", fixed)...)
	second := run(t, lab.Public("second"), append(alone, "--connect", first.at("tcp/4001"))...)
	a, b := open(t, first), open(t, second)
	exchange(t, b, a, 1)
	exchange(t, a, b, 2)
	if p := a.path(b); p.Path != "direct" {
		t.Errorf("path %+v", p)
	}
}

// TestMDNSOnOneSegment: two hosts on one segment find each other without being
// told anything.
func TestMDNSOnOneSegment(t *testing.T) {
	t.Parallel()
	segment := labtest.New(t).Router("home", labtest.Cone)
	first := begin(t, segment.Host("first"), "--set", "p2p.dht=false")
	second := begin(t, segment.Host("second"), "--set", "p2p.dht=false")
	a, b := open(t, first()), open(t, second())
	exchange(t, a, b, 1)
	if p := a.path(b); p.Path != "direct" {
		t.Errorf("path %+v", p)
	}
}

// TestRegistryWithoutMulticast: two programs of one user on one machine without
// any network meet by the registry.
func TestRegistryWithoutMulticast(t *testing.T) {
	t.Parallel()
	h := labtest.New(t).Public("host")
	h.Unplug()
	first := begin(t, h, "--set", "p2p.dht=false")
	second := begin(t, h, "--set", "p2p.dht=false", "--port", "10050")
	a, b := open(t, first()), open(t, second())
	exchange(t, a, b, 1)
	if p := a.path(b); p.Path != "direct" {
		t.Errorf("path %+v", p)
	}
}
