package peer

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// conversation is the sending side of one (peer, protocol): the outbox, and how
// far each message in it has come.
//
//	queue ──(numbered, put on the way)──▶ flight ──(settled, in order)──▶ gone
//	   ▲                                    │
//	   └──────(stream lost, not taken)──────┘
//
// An entry is resolved, its Done called, when its level is reached or it is
// given up. A resolved entry leaves the queue at once, for it must not arrive
// any more; in flight it keeps its number until the other side settles it.
type conversation struct {
	// Static after construction.
	peer     *Peer
	to       identity.PeerID
	protocol network.Protocol
	wake     chan struct{} // capacity 1: there is something to write, or nothing left at all
	changed  chan struct{} // capacity 1: try to reach the peer now

	late func(network.Outcome) // lateFailure, made once

	opening atomic.Pointer[context.CancelFunc] // of the attempt that runs

	// Guarded by the peer's mu.
	queue       deque[*entry]
	flight      deque[*entry] // in order of seq, without gaps
	over        deque[*entry] // those whose Done waits until the outbox has room for them, in order; resolved ones too
	overBytes   int           // of unresolved ones of over
	listed      bool          // in the peer's full
	bytes       int           // of unresolved entries, over included
	unresolved  int           // entries
	flightBytes int           // what flight counts in the window
	ref         *refStream    // the reference's stream that flight went to
	plainSeq    uint64        // ids given for the reference's framing
	here        bool          // flight went to a peer of this node, not to a stream
	link        *link         // the stream in use; nil when there is none
	reached     bool          // by a stream, or on this node
	blocked     bool          // no new ones: the peer was blocked
	epoch       [epochSize]byte
	epochStart  time.Time // when it was first told to the other side
	epochMet    bool      // the other side has welcomed it
	next        uint64    // seq of the next entry put on the way
	base        uint64    // the other side knows nothing of what was up to it
	taken       uint64    // every seq up to it was taken
	settled     uint64    // every seq up to it is settled
	progress    time.Time // when something was last taken or settled
	settling    time.Time // when something was last settled
	lastSend    time.Time
	lastErr     error // why the last attempt to reach the peer failed; nil while reached
	idle        bool  // nothing has happened for long: close the stream
	timer       *time.Timer
	timerAt     time.Time // zero when it isn't armed
}

// entry is one message. Guarded by the peer's mu.
type entry struct {
	content network.Content // empty once it was taken or given up
	size    int             // bytes, as the outbox counts them
	seq     uint64          // its number in the epoch; 0 in the queue
	since   time.Time       // when it was sent, or taken: its clock starts anew then
	level   network.Level
	reply   bool
	lone    bool // nothing else was unsettled when it was sent
	wrote   bool // it may have arrived
	taken   bool
	over    bool   // in the conversation's over
	closed  bool   // settled, out of order maybe: by a peer of this node or the reference's ack
	plainID string // its id in the reference's framing; empty when it never went that way
	done    func(network.Outcome)
	member  *Member
}

func (e *entry) resolved() bool { return e.done == nil }

// cost is what the entry counts in the window.
func (e *entry) cost() int { return e.size + messageCost }

// settlements collects what is to be told once the lock is released.
type settlements []settlement

type settlement struct {
	done    func(network.Outcome)
	outcome network.Outcome
}

// tell calls every Done, outside all locks.
func (s *settlements) tell() {
	for i := range *s {
		(*s)[i].done((*s)[i].outcome)
	}
	clear(*s)
	*s = (*s)[:0]
}

// The errors of gateway.md §2.6. Pages of v1 see the texts.
func errTooLarge(size, limit int) error {
	return identity.Errorf(identity.CodeTooLarge, "message too large: %d bytes, limit %d", size, limit)
}

func (c *conversation) errNotStarted() error {
	return identity.Errorf(identity.CodeNotStarted, "protocol not started by peer: %s", c.protocol)
}

func errBlocked(id identity.PeerID) error {
	return identity.Errorf(identity.CodeForbidden, "peer is blocked: %s", id)
}

// lateFailure is the Done of messages that nobody waits for: their failure is
// counted and logged.
func (c *conversation) lateFailure(o network.Outcome) {
	if o.Err != nil {
		c.peer.cfg.Log.Debug("a queued message failed", "peer", c.peer.id, "to", c.to, "protocol", c.protocol, "err", o.Err)
	}
}

var (
	errTimedOut  = identity.Errorf(identity.CodeTimeout, "send timed out")
	errCancelled = identity.Errorf(identity.CodeCancelled, "send cancelled")
)

// conversation finds or makes the one of (to, protocol). The caller holds mu.
func (p *Peer) conversation(to identity.PeerID, protocol network.Protocol, m *Member) (*conversation, error) {
	if p.closed || m.left {
		return nil, errPeerClosed
	}
	key := conversationKey{to, protocol}
	if c := p.conversations[key]; c != nil {
		return c, nil
	}
	if _, err := peer.IDFromBytes([]byte(to)); err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "invalid peer ID: %w", err)
	}
	if err := CheckProtocol(protocol, p.cfg.Reserved...); err != nil {
		return nil, err
	}
	if len(p.conversations) >= p.cfg.MaxConversations {
		return nil, identity.Errorf(identity.CodeLimit, "too many conversations at once: limit %d", p.cfg.MaxConversations)
	}
	if p.node.guard.blocks(to) || p.node.guard.blocks(p.id) {
		return nil, errBlocked(to)
	}
	c := &conversation{peer: p, to: to, protocol: protocol,
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	c.late = c.lateFailure
	p.conversations[key] = c
	p.wg.Add(1)
	go c.run()
	return c, nil
}

// resolve ends e with o. The caller holds mu and tells the settlements later.
func (c *conversation) resolve(e *entry, o network.Outcome, to *settlements) {
	if e.resolved() {
		return
	}
	*to = append(*to, settlement{e.done, o})
	e.done = nil
	e.content = network.Content{}
	c.bytes -= e.size
	c.peer.bytes -= e.size
	c.unresolved--
	if e.over {
		c.notOver(e)
	}
	c.peer.makeRoom(c, to)
	n := &c.peer.node.count
	switch identity.CodeOf(o.Err) {
	case "":
		if o.Level >= network.Handled {
			n.handled.Add(1)
		} else {
			n.delivered.Add(1)
		}
	case identity.CodeTimeout, identity.CodeUnreachable, identity.CodeNotStarted:
		n.timeouts.Add(1)
	case identity.CodeClosed, identity.CodeCancelled:
	default:
		n.refused.Add(1)
	}
}

// fail resolves everything that member sent, or everybody when it is nil. The
// caller holds mu.
func (c *conversation) fail(err error, member *Member, to *settlements) {
	for _, d := range []*deque[*entry]{&c.flight, &c.queue} {
		for i := range d.len() {
			if e := d.at(i); member == nil || e.member == member {
				c.resolve(e, network.Outcome{Err: err}, to)
			}
		}
	}
	c.signal()
}

// cancel gives e up if it is still in the queue and never was on the way.
func (c *conversation) cancel(e *entry) {
	var settled settlements
	c.peer.mu.Lock()
	if e.seq == 0 && !e.wrote {
		c.resolve(e, network.Outcome{Err: errCancelled}, &settled)
	}
	c.peer.mu.Unlock()
	settled.tell()
}

// signal wakes the writer. It never blocks.
func (c *conversation) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// poke makes a waiting conversation try again now; anew also ends an attempt
// that runs. It never blocks.
func (c *conversation) poke(anew bool) {
	select {
	case c.changed <- struct{}{}:
	default:
	}
	if cancel := c.opening.Load(); anew && cancel != nil {
		(*cancel)()
	}
}

// arm sets the timer. The caller holds mu.
func (c *conversation) arm(at time.Time) {
	c.timerAt = at
	wait := max(time.Until(at), 0)
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.tick)
		return
	}
	c.timer.Reset(wait)
}

// tick is the conversation's one timer: it gives up what has waited too long,
// resets a stream on which nothing moves, and ends one that is idle.
func (c *conversation) tick() {
	var settled settlements
	p := c.peer
	p.mu.Lock()
	c.timerAt = time.Time{}
	now := time.Now()
	stalled := c.expire(now, &settled)
	link, ref := c.link, c.ref
	if c.unresolved == 0 {
		c.signal() // maybe nothing is left to do
		if cancel := c.opening.Load(); cancel != nil {
			(*cancel)()
		}
	}
	if next := c.nextTick(now); !next.IsZero() && !p.closed {
		c.arm(next)
	}
	p.mu.Unlock()
	switch {
	case stalled && link != nil:
		link.lose(errStalled)
	case stalled && ref != nil:
		ref.lose()
	}
	settled.tell()
}

var errStalled = errors.New("no answer on the stream")

// expire resolves what is overdue, oldest first, and reports whether something
// of it was on the way without having been taken. The caller holds mu.
func (c *conversation) expire(now time.Time, to *settlements) (stalled bool) {
	for _, d := range []*deque[*entry]{&c.flight, &c.queue} {
		for i := range d.len() {
			e := d.at(i)
			if e.resolved() {
				continue
			}
			if now.Before(c.deadline(e)) {
				return stalled
			}
			stalled = stalled || e.seq != 0 && !e.taken
			c.resolve(e, network.Outcome{Err: c.overdue(e)}, to)
		}
	}
	return stalled
}

// deadline is when e is given up. One that isn't taken waits as long as any
// progress is made; one that is, as long as others are settled: a handler that
// hangs is not helped by more messages coming in.
func (c *conversation) deadline(e *entry) time.Time {
	from, last := e.since, c.progress
	if e.taken {
		last = c.settling
	}
	if last.After(from) {
		from = last
	}
	return from.Add(c.peer.cfg.SendTimeout)
}

// overdue is the error for an entry that waited too long.
func (c *conversation) overdue(e *entry) error {
	switch {
	case e.wrote || c.reached:
		return errTimedOut
	case identity.CodeOf(c.lastErr) == identity.CodeNotStarted:
		return c.errNotStarted()
	case c.lastErr == nil:
		return identity.Errorf(identity.CodeUnreachable, "peer unreachable: %s: no answer in time", c.to)
	}
	return &identity.Error{Code: identity.CodeUnreachable, Err: c.lastErr,
		Text: "peer unreachable: " + c.to.String() + ": " + c.lastErr.Error()}
}

// nextTick is when the timer has something to do. The caller holds mu.
func (c *conversation) nextTick(now time.Time) time.Time {
	for _, d := range []*deque[*entry]{&c.flight, &c.queue} {
		for i := range d.len() {
			if e := d.at(i); !e.resolved() {
				return c.deadline(e)
			}
		}
	}
	if !c.reached {
		return time.Time{}
	}
	last := c.lastSend
	if c.progress.After(last) {
		last = c.progress
	}
	idleAt := last.Add(c.peer.cfg.IdleStream)
	if !now.Before(idleAt) {
		c.idle = true
		c.signal()
		return time.Time{}
	}
	return idleAt
}
