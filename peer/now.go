package peer

import (
	"errors"
	"time"

	"github.com/parley-p2p/parley/network"
)

// What is written without waking anybody: to wake a stream's writer for a lone
// message, or for the ack of one, takes longer than to write it. So whoever
// brings it writes it himself:
//
//	the stream has a writer that is idle, and nothing but this waits
//	  ── writing is set: items and buffer are the caller's ──▶ Write
//	  ── writing is cleared: the writer gets what is left, and what came meanwhile
//
// More than one message on the way are the writer's, who joins them.
const (
	// nowLimit is the largest message that is written so, in bytes. A stream's
	// flow control nearly always lets as much pass.
	nowLimit = 8 << 10
	// nowWait bounds the write, to between once and twice as long: where a
	// connection takes nothing it holds up a page's other messages. A deadline for
	// each would set a timer, which wakes a thread.
	nowWait = 250 * time.Millisecond
)

// hasty is the streams that are written by who is in a hurry, and watches that
// none takes long. Guarded by the peer's mu.
type hasty struct {
	since map[network.Stream]time.Time // zero once it has taken too long
	used  bool                         // since the last look
	timer *time.Timer
	armed bool
}

// hurry notes that s is being written. The caller holds mu.
func (p *Peer) hurry(s network.Stream) {
	h := &p.hasty
	if h.since == nil {
		h.since = make(map[network.Stream]time.Time)
	}
	h.since[s] = time.Now()
	h.used = true
	if h.armed {
		return
	}
	h.armed = true
	if h.timer == nil {
		h.timer = time.AfterFunc(nowWait, p.calm)
	} else {
		h.timer.Reset(nowWait)
	}
}

// hurried notes that s has been written, and undoes what calm did, unless the
// stream ends and has its last deadline. The caller holds mu.
func (p *Peer) hurried(s network.Stream, ending bool) {
	ended := p.hasty.since[s].IsZero()
	delete(p.hasty.since, s)
	switch {
	case ended && ending:
		_ = s.SetWriteDeadline(time.Now().Add(farewell))
	case ended:
		_ = s.SetWriteDeadline(time.Time{})
	}
}

// calm ends the writes that take too long.
func (p *Peer) calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.hasty
	for s, since := range h.since {
		if time.Since(since) >= nowWait {
			h.since[s] = time.Time{}
			_ = s.SetWriteDeadline(longAgo)
		}
	}
	if h.armed = h.used && !p.closed; h.armed {
		h.used = len(h.since) > 0
		h.timer.Reset(nowWait)
	}
}

// late reports whether a write ended because its time was over.
func late(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// claimNow takes the writer's place where e is all there is to be written, and
// gives the link to call writeNow of. The caller holds mu.
func (c *conversation) claimNow(e *entry) *link {
	l := c.link
	alone := e.lone && c.queue.len() == 1 && c.flight.len() == 0
	if !alone || l == nil || e.size > nowLimit || c.blocked || c.peer.closed {
		return nil
	}
	if l.writing || !l.welcomed || l.resuming || l.over || e.size > l.limit {
		return nil
	}
	var none settlements // e fits, so nothing fails
	l.depart(&none)
	l.writing = true
	c.peer.hurry(l.stream)
	return l
}

// writeNow writes what claimNow took.
func (l *link) writeNow() {
	c := l.c
	err := l.flush()
	c.peer.mu.Lock()
	c.peer.hurried(l.stream, false)
	l.writing = false
	if len(l.buf) > 0 || c.queue.len() > 0 || c.idle || c.blocked || l.over || c.peer.closed {
		c.signal()
	}
	c.peer.mu.Unlock()
	if err != nil && !late(err) {
		l.lose(err)
	}
}

// claimNow takes the writer's place where there is something to tell of d now, and
// reports whether the caller is to tell it, by writeNow. Otherwise the writer is
// woken where there is. The caller holds mu.
func (st *inStream) claimNow(d *delivery) bool {
	if !st.flush {
		return false
	}
	lone := d.flags&flagLone != 0 && !st.more && st.in.pending.len() == 0
	sound := st.welcomed && !st.ending && !st.finished && st.failed == nil
	if !lone || !sound || st.writing || len(st.left) > 0 || !st.smallAnswers() {
		st.signal()
		return false
	}
	st.writing = true
	st.peer.hurry(st.stream)
	return true
}

// smallAnswers reports whether what is to be told fits into one small write. The
// caller holds mu.
func (st *inStream) smallAnswers() bool {
	size := 0
	for i := st.toldAnswers; i < len(st.in.answers); i++ {
		size += st.in.answers[i].size()
	}
	return size <= nowLimit
}

// writeNow tells what there is to tell. Since claimNow it may have become more: a
// large reply, or the bye.
func (st *inStream) writeNow() {
	p := st.peer
	p.mu.Lock()
	buf, payload, end := st.put(st.buf[:0])
	st.buf = buf
	p.mu.Unlock()
	n, err := st.stream.Write(buf)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hurried(st.stream, st.ending)
	st.writing = false
	st.left = append(buf[n:], payload...) // the writer's
	st.finished = st.finished || end
	if err != nil && !late(err) {
		st.failed = err
	}
	if len(st.left) > 0 || st.failed != nil || st.flush || st.ending || st.finished {
		st.signal()
	}
}
