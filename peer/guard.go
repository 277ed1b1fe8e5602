package peer

import (
	"sync"
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
	cfg     Config
	streams *flow.Buckets[identity.PeerID]

	mu        sync.Mutex
	offenders map[identity.PeerID]*offender
}

type offender struct {
	first   time.Time     // of the offences counted
	count   int           // within the window
	until   time.Time     // refused until then
	refusal time.Duration // the last one's length
}

func newGuard(cfg Config) *guard {
	return &guard{cfg: cfg, offenders: make(map[identity.PeerID]*offender),
		streams: flow.NewBuckets[identity.PeerID](cfg.StreamRate, float64(cfg.StreamBurst), maxGuarded)}
}

// admit reports whether id may open a stream now.
func (g *guard) admit(id identity.PeerID, now time.Time) bool {
	return !g.refused(id, now) && allowed(g.streams.Allow(id, 1, now))
}

func allowed(ok bool, _ time.Duration) bool { return ok }

func (g *guard) refused(id identity.PeerID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.offenders[id]
	return o != nil && now.Before(o.until)
}

// offend counts a bad frame and reports whether id is refused from now on.
func (g *guard) offend(id identity.PeerID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.offenders[id]
	if o == nil {
		g.makeRoom(now)
		o = &offender{first: now}
		g.offenders[id] = o
	}
	if now.Sub(o.first) > g.cfg.OffenceWindow {
		o.first, o.count = now, 0
	}
	if o.count++; o.count < g.cfg.Offences {
		return false
	}
	o.count = 0
	if now.Sub(o.until) > g.cfg.RefusalMax {
		o.refusal = 0
	}
	o.refusal = min(max(2*o.refusal, g.cfg.Refusal), g.cfg.RefusalMax)
	o.until = now.Add(o.refusal)
	return true
}

// makeRoom forgets those whose last refusal is long over, and if that is not
// enough the one with the oldest offence.
func (g *guard) makeRoom(now time.Time) {
	if len(g.offenders) < maxGuarded {
		return
	}
	var oldest identity.PeerID
	for id, o := range g.offenders {
		if now.Sub(o.first) > g.cfg.RefusalMax && now.After(o.until.Add(g.cfg.RefusalMax)) {
			delete(g.offenders, id)
		} else if have, ok := g.offenders[oldest]; !ok || o.first.Before(have.first) {
			oldest = id
		}
	}
	if len(g.offenders) >= maxGuarded {
		delete(g.offenders, oldest)
	}
}

// offence counts a remote's bad frame.
func (n *Node) offence(id identity.PeerID) {
	n.count.badFrames.Add(1)
	if n.guard.offend(id, time.Now()) {
		n.count.refusedRemotes.Add(1)
	}
}
