package topic

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/identity"
)

// What may wait for a peer before publishers to its topics wait, and what a peer
// must take meanwhile: one that hangs, or only crawls, must not stop a room. What
// it misses is dropped by GossipSub and counted, until its queue has emptied to
// where nobody would wait. A peer for which more than cutBytes wait is cut off.
const (
	fullShare    = 4       // publishers wait at a quarter of the queue's length
	fullBytes    = 4 << 20 // or at this many bytes
	paceWindow   = time.Second
	paceMessages = 50       // in a window,
	paceBytes    = 64 << 10 // or this many bytes
	cutBytes     = 64 << 20
)

// What may wait in validation before the streams of those who sent it are no
// longer read. The rest of the queue is for what is on its way already.
const (
	validateShare = 2  // of the queue in all, and half of that for a peer
	validateFree  = 32 // a peer with fewer than this is always read
	settleWait    = 500 * time.Millisecond
)

// meter counts what waits in GossipSub's queues. It sees messages enter by the
// tracer and leave by the streams, which meteredHost wraps: one RPC is one Write.
// Its tracer methods are called in the router's loop and never block.
type meter struct {
	ctx       context.Context
	queue     int          // the length of GossipSub's queues
	disturbed atomic.Int64 // when a peer's stream last came, in nanoseconds

	mu      sync.Mutex
	remotes map[identity.PeerID]*remoteMeter
	joined  map[string]struct{}      // topics that are subscribed here
	meshed  map[string]*atomic.Int64 // when each one's mesh last grew, in nanoseconds
	pending int                      // received and not validated, over all peers
	changed chan struct{}            // closed when something left a queue that somebody waits for; nil otherwise
	dropped map[string]uint64        // lost messages by reason
	ups     map[identity.PeerID]struct{}
	upped   chan struct{} // capacity 1: ups has something
	sent    uint64
}

type remoteMeter struct {
	up            bool       // the router has a stream to it
	queued, bytes int        // handed to the peer's queue, not written yet
	stream        *outStream // what the queue is written to; nil for none yet
	cut           bool       // stream was ended

	// while the queue is full
	since           time.Time // the current window of pace
	took, tookBytes int       // what it took in it
	slow            bool      // it took too little: nobody waits for it

	pending int       // received from it, not validated yet
	settled time.Time // when the last of those was
	topics  map[string]struct{}
	readers int           // streams of it that are read
	in      libp2p.Stream // the newest of them
	ended   libp2p.Stream // one that was ended here, to have p open another; nil once it may have
}

func newMeter(ctx context.Context, queue int) *meter {
	return &meter{ctx: ctx, queue: queue, remotes: make(map[identity.PeerID]*remoteMeter),
		joined: make(map[string]struct{}), meshed: make(map[string]*atomic.Int64), dropped: make(map[string]uint64),
		ups: make(map[identity.PeerID]struct{}), upped: make(chan struct{}, 1)}
}

// remote gives the counts of p. The caller holds mu.
func (m *meter) remote(p identity.PeerID) *remoteMeter {
	r, ok := m.remotes[p]
	if !ok {
		r = &remoteMeter{topics: make(map[string]struct{})}
		m.remotes[p] = r
	}
	return r
}

// isUp reports whether the router can send to p now.
func (m *meter) isUp(p identity.PeerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.remotes[p]
	return ok && r.up
}

// meshTime gives where the time is kept at which a topic's mesh last grew.
func (m *meter) meshTime(topic string) *atomic.Int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.meshed[topic]
	if !ok {
		at = new(atomic.Int64)
		m.meshed[topic] = at
	}
	return at
}

// takeUps gives the peers that came up since the last call.
func (m *meter) takeUps() map[identity.PeerID]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	ups := m.ups
	m.ups = make(map[identity.PeerID]struct{})
	return ups
}

// wait returns when none of peers has a full queue, except those that hang.
func (m *meter) wait(ctx context.Context, peers []identity.PeerID) error {
	for {
		changed, until := m.full(peers, time.Now())
		if changed == nil {
			return nil
		}
		timer := time.NewTimer(until)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// full gives what to wait for, and how long at most; nil where there is room.
func (m *meter) full(peers []identity.PeerID, now time.Time) (<-chan struct{}, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range peers {
		r, ok := m.remotes[p]
		if !ok || !m.isFull(r) || r.slow {
			continue
		}
		left := paceWindow - now.Sub(r.since)
		if left <= 0 && r.took < paceMessages && r.tookBytes < paceBytes {
			r.slow = true
			continue
		}
		if left <= 0 {
			r.since, r.took, r.tookBytes, left = now, 0, 0, paceWindow
		}
		return m.change(), left
	}
	return nil, 0
}

func (m *meter) isFull(r *remoteMeter) bool {
	return r.queued >= m.queue/fullShare || r.bytes >= fullBytes
}

// change gives the channel that is closed at the next change. The caller holds mu.
func (m *meter) change() <-chan struct{} {
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// wake ends the waits. The caller holds mu.
func (m *meter) wake() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// written counts an RPC of size bytes that the stream has taken.
func (m *meter) written(r *remoteMeter, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.queued = max(r.queued-1, 0) // the first one, the hello, was never queued
	r.bytes = max(r.bytes-size, 0)
	r.took++
	r.tookBytes += size
	if !m.isFull(r) {
		r.slow = false
		m.wake()
	}
}

// waitRead returns when more may be read from r's peer. What is in validation
// always gets done, so where nothing has been for a while the count is off (the
// router dropped a graylisted peer's messages without a word) and starts anew.
func (m *meter) waitRead(r *remoteMeter) {
	for {
		changed, until := m.busy(r, time.Now())
		if changed == nil {
			return
		}
		timer := time.NewTimer(until)
		select {
		case <-changed:
		case <-timer.C:
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

func (m *meter) busy(r *remoteMeter, now time.Time) (<-chan struct{}, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := m.queue / validateShare
	if r.pending < validateFree || m.pending < limit && r.pending < limit/2 {
		return nil, 0
	}
	left := settleWait - now.Sub(r.settled)
	if left <= 0 {
		m.pending = max(m.pending-r.pending, 0)
		r.pending = 0
		return nil, 0
	}
	return m.change(), left
}

// settle counts one received message that is done with.
func (m *meter) settle(p identity.PeerID) {
	r, ok := m.remotes[p]
	if !ok || r.pending == 0 {
		return
	}
	r.pending--
	m.pending--
	r.settled = time.Now()
	m.wake()
}

// snapshot gives the counts for people.
func (m *meter) snapshot() (sent uint64, dropped map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent, maps.Clone(m.dropped)
}
