package topic

import (
	"bytes"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// MaxMembers is how many members of a topic are listed. More are counted only.
const MaxMembers = 10_000

// members says who is in a room, and through which nodes: a peer is a member
// while any of its sessions is, here or elsewhere.
type members struct {
	list map[identity.PeerID]*member
}

type member struct {
	state []byte                     // the one told last
	via   map[identity.PeerID][]byte // node → state told by it
}

func newMembers() members { return members{list: make(map[identity.PeerID]*member)} }

// set records that p is here through node. changed is false where nothing is
// new; full is true where there are too many.
func (t members) set(p, node identity.PeerID, state []byte) (m network.Member, changed, full bool) {
	entry, known := t.list[p]
	if !known {
		if len(t.list) >= MaxMembers {
			return network.Member{}, false, true
		}
		entry = &member{via: make(map[identity.PeerID][]byte, 1)}
		t.list[p] = entry
	}
	changed = !known || !bytes.Equal(entry.state, state)
	entry.via[node], entry.state = state, state
	return network.Member{Peer: p, State: state}, changed, false
}

// remove records that p is no longer here through node. left is true where that
// was the last; changed where another node's state holds now.
func (t members) remove(p, node identity.PeerID) (m network.Member, left, changed bool) {
	entry, known := t.list[p]
	if !known {
		return network.Member{}, false, false
	}
	if _, there := entry.via[node]; !there {
		return network.Member{}, false, false
	}
	delete(entry.via, node)
	m = network.Member{Peer: p, State: entry.state}
	if len(entry.via) == 0 {
		delete(t.list, p)
		return m, true, false
	}
	for _, state := range entry.via {
		if bytes.Equal(state, entry.state) {
			return m, false, false
		}
		m.State = state
	}
	entry.state = m.State
	return m, false, true
}

// others lists all but self, in no order.
func (t members) others(self identity.PeerID) []network.Member {
	all := make([]network.Member, 0, len(t.list))
	for p, entry := range t.list {
		if p != self {
			all = append(all, network.Member{Peer: p, State: entry.state})
		}
	}
	return all
}
