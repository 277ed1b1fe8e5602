package peer

import (
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// The outbox of a conversation is bounded in bytes, and so are all of a peer's
// together. What does not fit is refused, or waits:
//
//	Send ── fits ──▶ queue
//	     ── full, Wait, level Queued ──▶ queue, and over: its Done is called when
//	        what is before it has left so much room
//	     ── full, Wait, a higher level ──▶ queue: its sender counts it as unsettled
//	        for longer than that
//	     ── full ──▶ CodeQueueFull

// admit says whether the outbox takes e now. Where it is full, a sender that waits
// is over it until there is room, and any other is refused. The caller holds mu.
func (c *conversation) admit(e *entry, wait bool) error {
	if c.over.len() == 0 && c.fits(e) {
		return nil
	}
	if wait {
		e.over = e.level == network.Queued // others bound themselves: theirs are unsettled for longer
		return nil
	}
	c.peer.node.count.queueFull.Add(1)
	err := identity.Errorf(identity.CodeQueueFull, "send queue full: %s %s", c.to, c.protocol)
	err.RetryAfter = 100 * time.Millisecond
	if !c.reached {
		err.RetryAfter = time.Second
	}
	return err
}

// fits reports whether there is room for e, which the outbox doesn't count yet. One
// message always fits. The caller holds mu.
func (c *conversation) fits(e *entry) bool {
	own, all := c.bytes-c.overBytes, c.peer.bytes-c.peer.overBytes
	return (own == 0 || own+e.size <= c.peer.cfg.Outbox) && (all == 0 || all+e.size <= c.peer.cfg.OutboxTotal)
}

// makeRoom tells those who wait for room that there is. The caller holds mu.
func (p *Peer) makeRoom(to *settlements) {
	for c := range p.full {
		c.takeOver(to)
	}
}

// takeOver takes what is over the outbox into it, in order, as far as it fits. The
// caller holds mu.
func (c *conversation) takeOver(to *settlements) {
	for c.over.len() > 0 {
		e := c.over.at(0)
		if !e.resolved() && !(c.fits(e) && c.lives(e)) {
			return
		}
		c.over.pop()
		if !e.resolved() {
			c.notOver(e)
			*to = append(*to, settlement{e.done, network.Outcome{Level: network.Queued}})
			e.done = c.late
		}
	}
	delete(c.peer.full, c)
}

// lives reports whether e isn't about to be given up. The caller holds mu.
func (c *conversation) lives(e *entry) bool {
	return !c.peer.closed && !c.blocked && !e.member.left && time.Now().Before(c.deadline(e))
}

// notOver no longer counts e as over the outbox. The caller holds mu.
func (c *conversation) notOver(e *entry) {
	e.over = false
	c.overBytes -= e.size
	c.peer.overBytes -= e.size
}

// put adds e to the queue. The caller holds mu.
func (c *conversation) put(e *entry) {
	e.since = time.Now()
	c.lastSend = e.since
	c.idle = false
	c.queue.push(e)
	c.bytes += e.size
	c.unresolved++
	c.peer.bytes += e.size
	if e.over {
		c.over.push(e)
		c.overBytes += e.size
		c.peer.overBytes += e.size
		c.peer.full[c] = struct{}{}
	}
	if at := e.since.Add(c.peer.cfg.SendTimeout); c.timerAt.IsZero() || at.Before(c.timerAt) {
		c.arm(at)
	}
}
