package discover

import (
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// Nodes that were seen on a star (docs/decisions/0009-nodes-on-a-star.md). A star tells
// of all its members, so a connection is kept to few of them; the others are asked
// when a page is looked for.
const (
	maxStarKept = 16   // nodes that a connection is kept to
	maxStarSeen = 4096 // nodes that are remembered
)

// Seen is told of a node that claims to be reached at addr, on a star. It is
// believed for life; 0 means that it has left. It doesn't block.
func (d *Discovery) Seen(id identity.PeerID, addr ma.Multiaddr, life time.Duration) {
	if _, err := identity.AgentOf(id); err != nil || id == d.node.Local() {
		return // no node of parley has another kind of key
	}
	if life <= 0 {
		d.node.Libp2p().Peerstore().SetAddrs(id, []ma.Multiaddr{addr}, 0)
		d.mu.Lock()
		delete(d.seen, id)
		d.mu.Unlock()
		d.stars.Remove(id)
		return
	}
	now := time.Now()
	d.mu.Lock()
	_, known := d.seen[id]
	if !known && len(d.seen) >= maxStarSeen {
		d.forgetSeen(now)
	}
	if known || len(d.seen) < maxStarSeen {
		d.seen[id] = now.Add(life)
	}
	d.mu.Unlock()
	d.node.Found(id, []ma.Multiaddr{addr}, life)
	if len(d.stars.Peers()) >= maxStarKept {
		return
	}
	var after time.Duration
	if d.node.Local() > id { // as in meet: one of the two dials first
		after = machineFirst
	}
	_ = d.stars.keep(id, after) // after the end nothing is kept
}

// forgetSeen drops whose time is over. The caller holds mu.
func (d *Discovery) forgetSeen(now time.Time) {
	for id, until := range d.seen {
		if until.Before(now) {
			delete(d.seen, id)
		}
	}
}

// starsToAsk are nodes on stars that may know a page and aren't connected: some at
// random where there are many.
func (d *Discovery) starsToAsk(page identity.PeerID, most int) []identity.PeerID {
	now := time.Now()
	d.mu.Lock()
	var out []peer.ID
	for id, until := range d.seen {
		if id != page && until.After(now) {
			out = append(out, id)
		}
	}
	d.mu.Unlock()
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	picked := out[:0]
	for _, id := range out {
		if len(picked) < most && !d.node.Connected(id) {
			picked = append(picked, id)
		}
	}
	return picked
}
