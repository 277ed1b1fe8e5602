package peer

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// maxGuarded bounds the tables of the guard. A flood of identities beyond it
// shares one allowance of streams, and the oldest offender is forgotten.
const maxGuarded = 4096

// guard decides which remotes may open message streams: so many a second each,
// and none for a while after repeated bad input (gateway.md G-S7).
type guard struct {
	streams *flow.Buckets[identity.PeerID]

	blocked atomic.Pointer[map[identity.PeerID]struct{}] // replaced whole; nil when there are none

	offenders *flow.Offenders[identity.PeerID]

	mu sync.Mutex // changes of blocked are one at a time
}

func newGuard(cfg Config) *guard {
	rule := flow.Offences{Count: cfg.Offences, Within: cfg.OffenceWindow, Refusal: cfg.Refusal, Most: cfg.RefusalMax}
	return &guard{offenders: flow.NewOffenders[identity.PeerID](rule, maxGuarded),
		streams: flow.NewBuckets[identity.PeerID](cfg.StreamRate, float64(cfg.StreamBurst), maxGuarded)}
}

// admit reports whether id may open a stream now.
func (g *guard) admit(id identity.PeerID, now time.Time) bool {
	return !g.blocks(id) && !g.offenders.Refused(id, now) && allowed(g.streams.Allow(id, 1, now))
}

func allowed(ok bool, _ time.Duration) bool { return ok }

// offence counts a remote's bad frame.
func (n *Node) offence(id identity.PeerID) {
	n.count.badFrames.Add(1)
	if n.guard.offenders.Offend(id, time.Now()) {
		n.count.refusedRemotes.Add(1)
		n.cfg.Log.Warn("a peer is refused for a while: too much bad input", "peer", id)
	}
}

// blocks reports whether the operator blocked id. It takes no lock.
func (g *guard) blocks(id identity.PeerID) bool {
	set := g.blocked.Load()
	if set == nil {
		return false
	}
	_, ok := (*set)[id]
	return ok
}

// setBlocked adds id to those blocked, or takes it out.
func (g *guard) setBlocked(id identity.PeerID, blocked bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	set := make(map[identity.PeerID]struct{})
	if old := g.blocked.Load(); old != nil {
		maps.Copy(set, *old)
	}
	delete(set, id)
	if blocked {
		set[id] = struct{}{}
	}
	if len(set) == 0 {
		g.blocked.Store(nil)
		return
	}
	g.blocked.Store(&set)
}

// Block lets no message pass between id and the peers of this node: its streams
// end, what is on the way to it fails with CodeForbidden, and so does every Send
// until Unblock.
func (n *Node) Block(id identity.PeerID) {
	n.guard.setBlocked(id, true)
	for _, p := range n.list() {
		p.block(id)
	}
}

// Unblock ends Block.
func (n *Node) Unblock(id identity.PeerID) {
	n.guard.setBlocked(id, false)
	n.Changed(id)
}

// block ends what there is between p and id.
func (p *Peer) block(id identity.PeerID) {
	var settled settlements
	var plain []*refStream
	p.mu.Lock()
	for _, c := range p.conversations {
		if c.to == id || p.id == id {
			c.blocked = true
			c.fail(errBlocked(c.to), nil, &settled)
		}
	}
	for key, st := range p.current {
		if key.remote == id {
			st.end(byeClosed, "")
		}
	}
	for key, lane := range p.references {
		if key.remote == id {
			plain = append(plain, lane.streams...)
		}
	}
	p.mu.Unlock()
	for _, st := range plain {
		st.lose()
	}
	settled.tell()
}
