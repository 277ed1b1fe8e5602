package conn

import (
	"time"

	"github.com/parley-p2p/parley/wire/mux"
)

// The orderly end of a connection (docs/spec/channels.md §6):
//
//  1. Nothing new: creates of both ends are refused, senders that wait give up.
//  2. What was sent leaves. Behind it goes the close of a channel that its user has
//     closed, and an error for every other: a channel that its node ends early
//     must not look complete.
//  3. The own direction ends. When the other end has read everything it ends its
//     own, and the connection is over.
//
// What takes longer than flushTime is given up with the connection.

const textStops = "the node stops"

var errStops = errorf(Closed, textStops)

// Drain begins the orderly end. It does not wait for Run, which returns within
// flushTime.
func (c *Conn) Drain() {
	c.mu.Lock()
	if c.err == nil && !c.draining {
		c.draining = true
		c.finishBy = time.Now().Add(flushTime)
		c.arm(flushTime)
		for _, s := range c.streams {
			c.endBehind(s, errorf(Unknown, textStops))
		}
	}
	c.mu.Unlock()
	c.signal()
}

// End ends the channel at both ends like Fail, but behind what was sent on it.
func (s *Stream) End(code Code, text string) {
	s.c.mu.Lock()
	s.c.endBehind(s, errorf(code, text))
	s.c.mu.Unlock()
	s.c.signal()
}

// endBehind lets an error be the last record of a stream. It is called with the
// lock held.
func (c *Conn) endBehind(s *Stream, why *Error) {
	switch {
	case s.state == ended || s.closing || s.final != nil:
		return
	case s.own && !s.created: // the other end has not heard of it
		c.endStream(s, errStops)
		return
	}
	s.final = why
	s.writers.wakeAll()
	c.makeReady(s)
}

// sendFinal writes the last record of a stream, and tells a bridge later. It is
// called by the write loop with the lock held.
func (c *Conn) sendFinal(s *Stream) {
	if s.final == nil {
		c.msgOut = mux.Message{Kind: mux.Close, Channel: s.id}
		c.out = mux.AppendRecord(c.out, c.cfg.Encoding, &c.msgOut)
		c.endStream(s, nil)
		return
	}
	c.out = mux.AppendRecord(c.out, c.cfg.Encoding, c.errorRecord(s.id, s.final.Code, s.final.Text))
	why := s.final
	if c.draining {
		why = errStops
	}
	c.endStream(s, why)
	if s.sink != nil {
		c.over = append(c.over, s)
	}
}

// breakOff is called by the write loop when the carrier takes no more. What it has
// brought is still read, as long as that takes no time: the other end may have
// said why it went.
func (c *Conn) breakOff(why *Error) {
	c.half = true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.broken == nil {
		c.broken = why
		if !c.draining {
			c.finishBy = time.Now().Add(flushTime)
		}
		c.arm(max(time.Until(c.finishBy), 0))
	}
}

// drained reports whether nothing more will be sent. It is called by the write
// loop with the lock held.
func (c *Conn) drained() bool {
	return c.draining && c.err == nil && !c.half && len(c.streams) == 0
}

// halfClose ends the own direction once everything was written. A carrier that
// can't is closed.
func (c *Conn) halfClose() {
	c.half = true
	w, ok := c.carrier.(interface{ CloseWrite() error })
	if !ok || w.CloseWrite() != nil {
		c.end(errStops)
	}
}
