package peer

import (
	"context"
	"errors"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// serveLocal carries the conversation to a peer of this node, without a stream:
// the writer itself calls the receivers, and they settle the entries.
func (c *conversation) serveLocal(target *Peer) (progressed bool, err error) {
	p := c.peer
	if !target.listens(c.protocol) {
		return false, c.errNotStarted()
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stop := context.AfterFunc(target.ctx, cancel)
	defer stop()
	r := &route{peer: target, protocol: c.protocol, ctx: ctx}
	defer r.close()

	var settled settlements
	p.mu.Lock()
	if !c.here {
		c.abandonFlight(&settled) // the peer was elsewhere and has moved here
	}
	c.abandonPlain(&settled)
	c.here = true
	c.linked(nil, true)
	p.mu.Unlock()
	settled.tell()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.linked(nil, false)
	}()

	items := make([]item, 0, 1)
	for {
		var failed settlements
		p.mu.Lock()
		closed, idle := p.closed || c.blocked, c.idle && c.unresolved == 0
		if !closed && !idle {
			items = c.departLocal(target.cfg.Window, target.cfg.MaxMessage, items[:0], &failed)
		}
		p.mu.Unlock()
		failed.tell()
		switch {
		case closed:
			return progressed, errPeerClosed
		case idle:
			return true, nil
		case len(items) > 0:
			if err := c.deliver(r, &items[0]); err != nil {
				return progressed, err
			}
			progressed = true
		default:
			select {
			case <-c.wake:
			case <-ctx.Done():
				return progressed, identity.Errorf(identity.CodeUnreachable, "peer closed there")
			}
		}
	}
}

// departLocal is depart for one entry at a time.
func (c *conversation) departLocal(window, limit int, into []item, to *settlements) []item {
	c.next = max(c.next, 1)
	for c.queue.len() > 0 && len(into) == 0 {
		e := c.queue.at(0)
		switch {
		case e.resolved():
			c.queue.pop()
		case e.size > limit:
			c.queue.pop()
			c.resolve(e, network.Outcome{Err: errTooLarge(e.size, limit)}, to)
		case c.flight.len() > 0 && c.flightBytes+e.cost() > window:
			return into
		default:
			c.queue.pop()
			e.seq, e.wrote = c.next, true
			c.next++
			c.flight.push(e)
			c.flightBytes += e.cost()
			into = append(into, item{entry: e, seq: e.seq, flags: e.flags(), content: e.content})
		}
	}
	return into
}

// deliver hands one entry to the target's members. An error means that none took
// it: it is back in the queue.
func (c *conversation) deliver(r *route, it *item) error {
	d := &delivery{peer: r.peer, from: c.peer.id, protocol: c.protocol, content: it.content,
		flags: it.flags, conv: c, entry: it.entry}
	r.peer.mu.Lock()
	listened := !r.peer.closed && r.share(d)
	r.peer.mu.Unlock()
	err := error(nil)
	if !listened {
		err = c.errNotStarted()
	} else {
		err = r.offer(d)
	}

	var settled settlements
	p := c.peer
	p.mu.Lock()
	switch {
	case err == nil:
		c.entryTaken(it.entry, &settled)
		c.progress = time.Now()
	case it.entry.closed:
		err = nil
	case notTaken(err):
		c.returnAbove(it.seq - 1)
		c.next = it.seq
		err = c.errNotStarted() // the sessions that listened are going
	default: // the receiver said no to this one
		c.localVerdict(it.entry, refusedBy(err), &settled)
		err = nil
	}
	p.mu.Unlock()
	settled.tell()
	return err
}

// localSettled is the verdict of a delivery on an entry.
func (c *conversation) localSettled(e *entry, v verdict) {
	var settled settlements
	c.peer.mu.Lock()
	c.localVerdict(e, v, &settled)
	more := c.queue.len() > 0
	c.peer.mu.Unlock()
	settled.tell()
	if more {
		c.signal()
	}
}

// localVerdict settles e and lets go of all settled ones in front. The caller
// holds mu.
func (c *conversation) localVerdict(e *entry, v verdict, to *settlements) {
	switch {
	case v.level == verdictRefused:
		c.resolve(e, network.Outcome{Err: &identity.Error{Code: v.code, Text: v.text}}, to)
	case v.reply != nil:
		c.resolve(e, network.Outcome{Level: network.Handled, Reply: v.reply}, to)
	default:
		c.resolve(e, c.outcome(e, v.level), to)
	}
	c.closeEntry(e)
	c.progress = time.Now()
	c.settling = c.progress
}

// notTaken reports whether an error of Receive means that the session is gone,
// so that the message waits for another; any other error is a no to it.
func notTaken(err error) bool {
	switch identity.CodeOf(err) {
	case identity.CodeClosed, identity.CodeNotStarted, identity.CodeCancelled, identity.CodeSessionLost:
		return true
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
