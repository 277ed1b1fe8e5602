package peer

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/network"
)

// serveReference carries the conversation over streams of the reference's
// framing, as long as there is one.
func (c *conversation) serveReference() (progressed bool, err error) {
	p := c.peer
	key := currentKey{c.to, c.protocol}
	p.mu.Lock()
	c.linked(nil, true)
	c.here = false
	before := c.progress
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.linked(nil, false)
		progressed = c.progress != before
	}()
	var items []item
	var st *refStream
	for {
		var failed settlements
		p.mu.Lock()
		if c.ref == nil {
			c.ref = p.newestReference(key)
		}
		if newest := p.newestReference(key); newest != nil && c.flight.len() == 0 {
			c.ref = newest // with something on the way, the older one is finished first
		}
		idle := p.closed || c.blocked || c.idle && c.unresolved == 0
		if st = c.ref; st != nil && !idle {
			items = c.departReference(p.cfg.MaxMessage, items[:0], &failed)
		}
		p.mu.Unlock()
		failed.tell()
		switch {
		case idle:
			return false, nil
		case st == nil:
			return false, errStreamLost
		case len(items) == 0:
			select {
			case <-c.wake:
			case <-p.ctx.Done():
			}
			continue
		}
		for i := range items {
			c.writeReference(st, &items[i])
		}
		clear(items)
	}
}

// departReference puts entries on their way, a batch of them at most. The
// caller holds mu.
func (c *conversation) departReference(limit int, into []item, to *settlements) []item {
	size := 0
	for c.queue.len() > 0 && c.flight.len() < refInFlight && size < batchBytes {
		e := c.queue.pop()
		if e.resolved() {
			continue
		}
		if e.size > limit {
			c.resolve(e, network.Outcome{Err: errTooLarge(e.size, limit)}, to)
			continue
		}
		if e.plainID == "" {
			e.plainID = c.newID()
		}
		c.next++
		e.seq, e.wrote = c.next, true
		c.flight.push(e)
		c.flightBytes += e.cost()
		into = append(into, item{entry: e, content: e.content})
		size += e.cost()
	}
	return into
}

// newID names a message for the reference's framing. The caller holds mu.
func (c *conversation) newID() string {
	if c.plainSeq == 0 {
		c.newEpoch()
	}
	c.plainSeq++
	return hex.EncodeToString(c.epoch[:8]) + "-" + strconv.FormatUint(c.plainSeq, 10)
}

// writeReference hands one message to the stream's writer. When the stream ends
// meanwhile, the message goes again on another.
func (c *conversation) writeReference(st *refStream, it *item) {
	text, err := it.content.JSON()
	if err != nil {
		var settled settlements
		c.peer.mu.Lock()
		c.resolve(it.entry, network.Outcome{Err: err}, &settled)
		c.closeEntry(it.entry)
		c.peer.mu.Unlock()
		settled.tell()
		return
	}
	frame := appendRefData(make([]byte, 0, len(text)/3*4+128), it.entry.plainID, text)
	_ = st.out.Push(st.ctx, flow.Bulk, frame, len(frame))
}

// abandonPlain gives up what went out in the reference's framing and has no ack,
// when the peer is reached otherwise now: sent once more it could arrive twice.
// The caller holds mu.
func (c *conversation) abandonPlain(to *settlements) {
	if c.plainSeq == 0 {
		return
	}
	for i := range c.queue.len() {
		if e := c.queue.at(i); e.plainID != "" && e.wrote {
			c.resolve(e, network.Outcome{Err: errTimedOut}, to)
		}
	}
}

// closeEntry marks an entry settled and lets go of all such in front. The
// caller holds mu.
func (c *conversation) closeEntry(e *entry) {
	e.closed = true
	for c.flight.len() > 0 && c.flight.at(0).closed {
		c.flightBytes -= c.flight.pop().cost()
	}
}

// returnReference takes everything in flight back, in order. The caller holds mu.
func (c *conversation) returnReference() {
	for c.flight.len() > 0 {
		e := c.flight.popBack()
		c.flightBytes -= e.cost()
		e.seq = 0
		if !e.resolved() {
			c.queue.pushFront(e)
			c.peer.node.count.resent.Add(1)
		}
	}
}

// referenceAcked notes an ack, on whichever stream of the lane it came.
func (p *Peer) referenceAcked(key currentKey, id string) {
	var settled settlements
	p.mu.Lock()
	c := p.conversations[conversationKey{key.remote, key.protocol}]
	if c != nil {
		for i := range c.flight.len() {
			if e := c.flight.at(i); e.plainID == id && !e.closed {
				e.taken = true
				c.taken = max(c.taken, e.seq)
				c.progress = time.Now()
				c.settling = c.progress
				c.resolve(e, c.outcome(e, wireTaken), &settled)
				c.closeEntry(e)
				break
			}
		}
	}
	more := c != nil && (c.queue.len() > 0 || c.flight.len() == 0)
	p.mu.Unlock()
	settled.tell()
	if more {
		c.signal()
	}
}
