//go:build linux

package lab

import (
	"fmt"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/labtest"
)

// TestWhyASendFailed: a send to a peer that can't be reached fails with a code,
// and the page can read what was tried and how each way failed.
func TestWhyASendFailed(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	relay := startRelay(t, lab)
	home := lab.Router("home", labtest.Cone)
	first := begin(t, lab.Public("ann"), append(alone, "--set", "p2p.relays="+relay.at("tcp/4001"), "--set", "peer.sendTimeout=4s")...)
	second := begin(t, home.Host("bob"), append(alone, "--set", fixed, "--set", "p2p.relays="+relay.at("tcp/4001"))...)
	ann, bob := open(t, first()), open(t, second())
	bob.node.relayed(relay)
	ann.node.relayed(relay) // whom she asks

	nowhere := &page{id: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"}
	want := "peer unreachable: " + nowhere.id + ": no addresses found: asked 1 nodes"
	if a := <-ann.send(nowhere, 1); a.code != identity.CodeUnreachable || a.text != want {
		t.Errorf("a peer that is nowhere: %s\nwant %s", a, want)
	}
	if p := ann.path(nowhere); p.Path != "none" || len(p.Tried) == 0 || p.Tried[0] != "none: no addresses found: asked 1 nodes" {
		t.Errorf("path %+v", p)
	}

	ann.tell(bob) // its addresses; then its network goes
	bob.node.Unplug()
	home.Drop("meta l4proto { tcp, udp }")
	a := <-ann.send(bob, 2)
	if a.code != identity.CodeUnreachable || !strings.HasPrefix(a.text, "peer unreachable: "+bob.id+": ") {
		t.Errorf("a peer that is gone: %s", a)
	}
	p := ann.path(bob)
	tried := strings.Join(p.Tried, "\n")
	if p.Path != "none" || p.Address != "" {
		t.Errorf("path %+v", p)
	}
	for _, part := range []string{"/p2p/" + relay.id + "/p2p-circuit/p2p/" + bob.node.id, "no answer in time"} {
		if !strings.Contains(tried, part) || !strings.Contains(a.text, part) {
			t.Errorf("%q isn't in both:\n%s\n%s", part, a, tried)
		}
	}
	if !strings.HasPrefix(tried, "relay: dial ") {
		t.Errorf("tried %s", tried)
	}
}

// TestWhyADialFailed: each address that was tried is named with its own reason.
func TestWhyADialFailed(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t)
	ann := open(t, run(t, lab.Public("ann"), append(alone, "--set", "peer.sendTimeout=8s")...))
	empty, guarded := lab.Public("empty"), lab.Router("guard", labtest.Firewall).Host("guarded")
	ghost := "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	refuses, swallows := fmt.Sprintf("/ip4/%s/tcp/4001", empty.Addr()), fmt.Sprintf("/ip4/%s/tcp/4001", guarded.Addr())
	ann.call("addPeers", map[string]any{"peers": []string{ghost}, "addresses": []string{refuses, swallows}})
	a := <-ann.send(&page{id: ghost}, 1)
	if a.code != identity.CodeUnreachable {
		t.Errorf("failed with %s", a)
	}
	tried := strings.Join(ann.path(&page{id: ghost}).Tried, "\n")
	for _, want := range []string{"direct: dial " + refuses + ": connection refused", "direct: dial " + swallows + ": i/o timeout"} {
		if !strings.Contains(tried, want) {
			t.Errorf("%q isn't in\n%s", want, tried)
		}
	}
	if !strings.Contains(a.text, refuses) || !strings.Contains(a.text, swallows) {
		t.Errorf("the error names not both: %s", a)
	}
}
