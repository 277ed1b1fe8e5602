package peer

import (
	"context"
	"errors"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// How a conversation reaches its peer, in the order of events:
//
//	1. run       until nothing is unsettled and no stream is open
//	2. connect   a peer of this node, else a stream
//	3. serve     write what there is, until the stream is lost or idle
//	4. pause     back-off, cut short when something changes

// run is the conversation's writer. It is the only goroutine that moves entries
// from the queue on their way.
func (c *conversation) run() {
	p := c.peer
	defer p.wg.Done()
	p.node.watch(c)
	defer p.node.unwatch(c)
	backoff := p.cfg.Backoff
	for c.pending() {
		progressed, err := c.connect()
		if err == nil {
			continue // ended in order
		}
		c.note(err)
		if progressed {
			backoff = p.cfg.Backoff
			continue
		}
		c.pause(backoff)
		backoff = min(2*backoff, p.cfg.BackoffMax)
	}
}

// pending reports whether the conversation still has something to do, and takes
// it out of the table when not.
func (c *conversation) pending() bool {
	p := c.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.unresolved > 0 && !p.closed && !c.blocked {
		return true
	}
	delete(p.conversations, conversationKey{c.to, c.protocol})
	if c.timer != nil {
		c.timer.Stop()
	}
	return false
}

// connect reaches the peer and serves until it is lost. A nil error means an
// orderly end; progressed, that it was worth it.
func (c *conversation) connect() (progressed bool, err error) {
	p := c.peer
	if target := p.node.Lookup(c.to); target != nil {
		return c.serveLocal(target)
	}
	if c.to == p.id || c.closingHere() {
		return false, identity.Errorf(identity.CodeUnreachable, "peer closed there")
	}
	key := currentKey{c.to, c.protocol}
	if p.hasReference(key, c) {
		return c.serveReference()
	}
	s, err := c.open()
	if err != nil {
		return false, err
	}
	p.node.count.streamed.Add(1)
	if s.Protocol() != c.protocol {
		return c.serveStream(s)
	}
	if !p.enter() {
		_ = s.Reset()
		return false, errPeerClosed
	}
	st := p.addReference(p.ctx, s, key)
	go func() {
		defer p.wg.Done()
		st.run()
	}()
	return c.serveReference()
}

// open opens a stream: of our framing, or else the reference's, which is offered to
// no peer of parley. One that doesn't listen now may do so between two offers, or
// no more; spoken to as a reference peer it would get its messages in another form,
// and so would who sends from there on that stream.
func (c *conversation) open() (network.Stream, error) {
	p := c.peer
	// What was tried is known before the first message is given up.
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.SendTimeout*9/10)
	defer cancel()
	c.opening.Store(&cancel)
	defer c.opening.Store(nil)
	if p.cfg.plainOnly {
		return p.net.Open(ctx, c.to, c.protocol)
	}
	s, err := p.net.Open(ctx, c.to, ownPrefix+c.protocol, ownPeer, c.protocol)
	if err == nil && s.Protocol() == ownPeer {
		_ = s.Reset()
		return nil, c.errNotStarted()
	}
	return s, err
}

// closingHere reports whether a peer of this node that has gone has yet to
// refuse what it took.
func (c *conversation) closingHere() bool {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.here && c.flight.len() > 0
}

// note remembers why the peer wasn't reached.
func (c *conversation) note(err error) {
	if errors.Is(err, context.Canceled) {
		return // an attempt that was begun anew says nothing
	}
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	c.lastErr = err
}

// linked notes that the peer is reached, or no longer. The caller holds mu.
func (c *conversation) linked(l *link, reached bool) {
	c.link, c.reached, c.idle = l, reached, false
	if reached {
		c.lastErr = nil
	}
}

// pause waits before the next attempt: until the time is over, something about
// the peer changed, or nothing is left to be sent.
func (c *conversation) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-c.changed:
			return
		case <-c.peer.ctx.Done():
			return
		case <-c.wake:
			if !c.anything() {
				return
			}
		}
	}
}

func (c *conversation) anything() bool {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.unresolved > 0
}

// item is an entry on its way, as the writer needs it without the lock.
type item struct {
	entry   *entry
	seq     uint64
	flags   uint64
	content network.Content
}

// batchBytes is how much one write carries: what fits into one message of Noise
// behind the head of one frame of yamux. What is over would be sealed, sent and
// read for itself.
const batchBytes = 65535 - 16 - 12

// depart puts entries on their way, as many as the window lets and a write
// carries, numbered in order. What is over the other side's limit fails, or waits
// until that is known. The caller holds mu.
func (c *conversation) depart(window, limit int, known bool, into []item, to *settlements) []item {
	size := 0
	for c.queue.len() > 0 && size < batchBytes {
		e := c.queue.at(0)
		if e.resolved() {
			c.queue.pop()
			continue
		}
		if e.size > limit && !known {
			break
		}
		if e.size > limit {
			c.queue.pop()
			c.resolve(e, network.Outcome{Err: errTooLarge(e.size, limit)}, to)
			continue
		}
		if c.flight.len() > 0 && c.flightBytes+e.cost() > window || size > 0 && size+e.cost() > batchBytes {
			break
		}
		c.queue.pop()
		e.seq = c.next
		c.next++
		e.wrote = true
		c.flight.push(e)
		c.flightBytes += e.cost()
		into = append(into, item{entry: e, seq: e.seq, flags: e.flags(), content: e.content})
		size += e.cost()
	}
	return into
}

// flags tells the other side what the sender waits for.
func (e *entry) flags() (f uint64) {
	switch {
	case e.reply:
		f = flagReply
	case e.level == network.Queued:
		f = flagNoAck
	case e.level == network.Delivered:
		f = flagDelivered
	}
	if e.lone {
		f |= flagLone
	}
	return f
}

// returnAbove takes everything in flight above seq back to the front of the
// queue: it was not taken and never will be under its old number. What was
// given up meanwhile is forgotten. The caller holds mu.
func (c *conversation) returnAbove(seq uint64) {
	for c.flight.len() > 0 {
		e := c.flight.at(c.flight.len() - 1)
		if e.seq <= seq {
			return
		}
		c.flight.popBack()
		c.flightBytes -= e.cost()
		e.seq, e.wrote = 0, false
		if !e.resolved() {
			c.queue.pushFront(e)
			c.peer.node.count.resent.Add(1)
		}
	}
}

// abandonFlight gives up what is on the way: nobody can say what became of it.
// The caller holds mu.
func (c *conversation) abandonFlight(to *settlements) {
	for c.flight.len() > 0 {
		e := c.flight.pop()
		c.flightBytes -= e.cost()
		c.resolve(e, network.Outcome{Err: errTimedOut}, to)
	}
}

// markTaken notes that the other side's session has everything up to seq. The
// caller holds mu.
func (c *conversation) markTaken(seq uint64, to *settlements) {
	if seq <= c.taken || c.flight.len() == 0 {
		c.taken = max(c.taken, seq)
		return
	}
	first := c.flight.at(0).seq
	for s := max(c.taken+1, first); s <= seq && s-first < uint64(c.flight.len()); s++ {
		c.entryTaken(c.flight.at(int(s-first)), to)
	}
	c.taken = seq
}

func (c *conversation) entryTaken(e *entry, to *settlements) {
	e.taken, e.since = true, time.Now()
	e.content = network.Content{}
	if e.level <= network.Delivered {
		c.resolve(e, network.Outcome{Level: network.Delivered}, to)
	}
}

// settleUpTo notes the final level of everything up to seq. The caller holds mu.
func (c *conversation) settleUpTo(seq, level uint64, to *settlements) {
	for c.flight.len() > 0 && c.flight.at(0).seq <= seq {
		e := c.flight.pop()
		c.flightBytes -= e.cost()
		c.resolve(e, c.outcome(e, level), to)
	}
	c.taken = max(c.taken, seq)
	c.settled = max(c.settled, seq)
}

// outcome is what a final level without a reply means for e.
func (c *conversation) outcome(e *entry, level uint64) network.Outcome {
	if level != wireTaken {
		return network.Outcome{Level: network.Level(level)}
	}
	if e.reply {
		return network.Outcome{Level: network.Delivered,
			Err: identity.Errorf(identity.CodeUnsupported, "peer can't reply: %s", c.to)}
	}
	return network.Outcome{Level: network.Delivered}
}

// find gives the entry in flight with number seq. The caller holds mu.
func (c *conversation) find(seq uint64) *entry {
	if c.flight.len() == 0 {
		return nil
	}
	first := c.flight.at(0).seq
	if seq < first || seq-first >= uint64(c.flight.len()) {
		return nil
	}
	return c.flight.at(int(seq - first))
}
