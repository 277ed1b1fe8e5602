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
	if c.firstOver() == nil && c.fits(e) {
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
func (c *conversation) fits(e *entry) bool { return c.fitsOwn(e) && c.peer.fits(e) }

func (c *conversation) fitsOwn(e *entry) bool {
	own := c.bytes - c.overBytes
	return own == 0 || own+e.size <= c.peer.cfg.Outbox
}

func (p *Peer) fits(e *entry) bool {
	all := p.bytes - p.overBytes
	return all == 0 || all+e.size <= p.cfg.OutboxTotal
}

// makeRoom is called when something of c was resolved. It tells those who wait for
// room that there is: the conversations in turn, each of them in order. One that
// waits for room of its own leaves the row until something of it is resolved; so a
// look at one lets a message in, or is its last, or ends all, and many that wait
// cost no more than their messages do. The caller holds mu.
func (p *Peer) makeRoom(c *conversation, to *settlements) {
	c.enlist()
	for p.full.len() > 0 {
		c := p.full.at(0)
		e := c.firstOver()
		mayEnter := e != nil && c.lives(e) && c.fitsOwn(e)
		if mayEnter && !p.fits(e) {
			return // who needs less doesn't pass
		}
		p.full.pop()
		c.listed = false
		if mayEnter {
			c.over.pop()
			c.notOver(e)
			*to = append(*to, settlement{e.done, network.Outcome{Level: network.Queued}})
			e.done = c.late
			c.enlist()
		}
	}
}

// enlist puts c at the end of the row of those in which something waits for room,
// unless it stands there or nothing does. The caller holds mu.
func (c *conversation) enlist() {
	if !c.listed && c.firstOver() != nil {
		c.listed = true
		c.peer.full.push(c)
	}
}

// firstOver gives the first that waits for room; nil for none. The caller holds mu.
func (c *conversation) firstOver() *entry {
	for c.over.len() > 0 {
		if e := c.over.at(0); !e.resolved() {
			return e
		}
		c.over.pop()
	}
	return nil
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
		c.enlist()
	}
	if at := e.since.Add(c.peer.cfg.SendTimeout); c.timerAt.IsZero() || at.Before(c.timerAt) {
		c.arm(at)
	}
}
