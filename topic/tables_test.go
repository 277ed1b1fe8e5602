package topic

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/identity"
)

func TestKept(t *testing.T) {
	at := func(sec int, size int) *publication {
		return &publication{kept: day.Add(time.Duration(sec) * time.Second), text: make([]byte, size)}
	}
	t.Run("by number", func(t *testing.T) {
		var k kept
		lost := 0
		for i := range keepMessages + 3 {
			lost += k.add(at(i, 1))
		}
		if lost != 3 || len(k.list) != keepMessages || !k.list[0].kept.Equal(day.Add(3*time.Second)) {
			t.Errorf("lost %d, keeps %d from %v", lost, len(k.list), k.list[0].kept)
		}
	})
	t.Run("by bytes", func(t *testing.T) {
		var k kept
		if k.add(at(0, keepBytes)) != 0 || k.add(at(1, 10)) != 1 || k.bytes != 10 {
			t.Errorf("keeps %d bytes", k.bytes)
		}
	})
	t.Run("by time", func(t *testing.T) {
		var k kept
		k.add(at(0, 1))
		k.add(at(10, 1))
		if lost, next := k.expire(day.Add(29 * time.Second)); lost != 0 || next != time.Second {
			t.Errorf("after 29 s: lost %d, next in %v", lost, next)
		}
		if lost, next := k.expire(day.Add(30 * time.Second)); lost != 1 || next != 10*time.Second {
			t.Errorf("after 30 s: lost %d, next in %v", lost, next)
		}
		if lost, next := k.expire(day.Add(time.Minute)); lost != 1 || next != 0 || k.bytes != 0 {
			t.Errorf("after a minute: lost %d, next in %v, %d bytes", lost, next, k.bytes)
		}
	})
}

// TestMembersModel holds the table against a plain model: a peer is a member
// while any node says so, and every change is reported once.
func TestMembersModel(t *testing.T) {
	type place struct{ peer, node identity.PeerID }
	rapid.Check(t, func(t *rapid.T) {
		table, model := newMembers(), make(map[place]string)
		known := make(map[identity.PeerID]string) // what was reported
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			at := place{
				identity.PeerID(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "peer")),
				identity.PeerID(rapid.SampledFrom([]string{"", "n", "m"}).Draw(t, "node")),
			}
			state := rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "state")
			if rapid.Bool().Draw(t, "set") {
				model[at] = state
				m, changed, full := table.set(at.peer, at.node, []byte(state))
				if was, there := known[at.peer]; full || changed == (there && was == state) {
					t.Fatalf("set %v to %q: changed %v, was %q %v", at, state, changed, was, there)
				}
				known[m.Peer] = string(m.State)
				continue
			}
			_, there := model[at]
			delete(model, at)
			m, left, changed := table.remove(at.peer, at.node)
			if (left || changed) && !there {
				t.Fatalf("removing %v, which wasn't there, changed something", at)
			}
			if left {
				delete(known, m.Peer)
			} else if changed {
				known[m.Peer] = string(m.State)
			}
		}
		var want, got []string
		for p := range model {
			want = append(want, string(p.peer))
		}
		slices.Sort(want)
		want = slices.Compact(want)
		for _, m := range table.others("nobody") {
			got = append(got, string(m.Peer))
			if known[m.Peer] != string(m.State) {
				t.Fatalf("%s has state %q, told was %q", m.Peer, m.State, known[m.Peer])
			}
			if !slices.ContainsFunc([]identity.PeerID{"", "n", "m"}, func(n identity.PeerID) bool {
				s, there := model[place{m.Peer, n}]
				return there && s == string(m.State)
			}) {
				t.Fatalf("%s has state %q that no node tells", m.Peer, m.State)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("lists %v, want %v", got, want)
		}
	})
}

func TestMembersAreBounded(t *testing.T) {
	table := newMembers()
	for i := range MaxMembers {
		if _, _, full := table.set(identity.PeerID([]byte{byte(i), byte(i >> 8)}), "n", nil); full {
			t.Fatalf("full at %d", i)
		}
	}
	if _, changed, full := table.set("one more", "n", nil); !full || changed {
		t.Error("takes more than the limit")
	}
	if _, changed, full := table.set(identity.PeerID([]byte{0, 0}), "m", []byte("x")); full || !changed {
		t.Error("a member it has can't change")
	}
}
