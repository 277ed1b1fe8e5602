package conn

import "time"

// Everything in this file is called with the lock held.

// endStream takes a stream off the connection; what it received can still be
// read. A nil error is an orderly close.
func (c *Conn) endStream(s *Stream, err *Error) {
	if s.state == ended {
		return
	}
	s.state, s.err = ended, err
	s.tx.clear(c.cfg.Buffers)
	s.grant, s.proof, s.create = 0, nil, nil
	delete(c.streams, s.id)
	now := time.Now()
	c.ended.add(s.id, now)
	if len(c.streams) == 0 {
		c.emptySince = now
	}
	if s.done != nil {
		close(s.done)
	}
	s.readers.wakeAll()
	s.writers.wakeAll()
	c.cfg.Metrics.Channels.Add(-1)
}

// dropUnread frees what was received and will not be read.
func (s *Stream) dropUnread() {
	if s.reading {
		return // the reader frees what it holds; the rest goes with the next call
	}
	s.c.cfg.Buffers.put(s.partBuf)
	s.part, s.partBuf = nil, nil
	s.rx.clear(s.c.cfg.Buffers)
	s.c.read(s.unread)
	s.unread = 0
}

// makeReady puts a stream in line for its turn.
func (c *Conn) makeReady(s *Stream) {
	if s.inReady || s.state == ended || s.own && !s.created || s.tx.len == 0 && !s.closing && s.final == nil {
		return
	}
	s.inReady = true
	c.readyQueue.push(s)
}

// queueGrant queues a window record for s: add is more credit.
func (c *Conn) queueGrant(s *Stream, add int64) {
	s.grant += add
	if !s.inGrant {
		s.inGrant = true
		c.grants = append(c.grants, s)
	}
}

// arrived takes a content of n bytes into account, before it is kept. It
// reports false where the content has to be dropped; what that means for the
// stream and the connection has been done then.
func (c *Conn) arrived(s *Stream, n int) bool {
	size := cost(n)
	if s.closing || s.state == ended {
		c.cfg.Metrics.Dropped.Add(1)
		return false
	}
	if n > c.largestTaken(s) {
		c.failStream(s, Limit, "content is larger than this end takes")
		return false
	}
	if !c.peer.documentOnly {
		if s.peerCredit < size {
			c.cfg.Metrics.Refused[RefusedCredit].Add(1)
			c.violations++
			c.failStream(s, Limit, "content without credit")
			return false
		}
		s.peerCredit -= size
	}
	s.countIn(n)
	return s.sink != nil || c.makeRoom(s, size)
}

func (c *Conn) largestTaken(s *Stream) int {
	switch {
	case s.hops > 0 && !c.peer.documentOnly:
		return RelayContent
	case s.system:
		return systemContent
	}
	return c.limits.MaxContent
}

// makeRoom keeps the sum of what is received and not read within the limit: the
// stream that holds most of it ends.
func (c *Conn) makeRoom(s *Stream, size int64) bool {
	for c.unread+size > int64(c.limits.Unread) {
		most := s
		for _, other := range c.streams {
			if other.unread > most.unread {
				most = other
			}
		}
		c.cfg.Metrics.Refused[RefusedUnread].Add(1)
		c.failStream(most, Limit, "too much is received and not read on this connection")
		most.dropUnread()
		if most == s {
			return false
		}
		if most.unread > 0 {
			break // its reader frees it
		}
	}
	s.unread += size
	c.unread += size
	c.cfg.Metrics.Unread.Add(size)
	return true
}

// consumed takes note that the application read a content of this cost, and
// grants credit once half of the window was read.
func (s *Stream) consumed(size int64) {
	c := s.c
	size = min(size, s.unread)
	s.unread -= size
	c.read(size)
	if !c.peer.documentOnly {
		s.maybeGrant()
	}
}

// read gives back room of the connection, and lets a read loop that waits for
// room look again.
func (c *Conn) read(size int64) {
	c.unread -= size
	c.cfg.Metrics.Unread.Add(-size)
	if c.readStall != nil {
		close(c.readStall)
		c.readStall = nil
	}
}

func (s *Stream) maybeGrant() {
	c := s.c
	due := s.window - s.peerCredit - s.unread
	if s.state == ended || s.closing || due*2 < s.window {
		return
	}
	if c.unread >= int64(c.limits.UnreadSoft) && s.unread > 0 {
		return // once it is read up, this is called again
	}
	now := time.Now()
	if s.growing(now) {
		more := min(s.window, int64(c.limits.MaxWindow)-s.window)
		due += more
		s.window += more
	}
	s.started = now
	s.peerCredit += due
	c.queueGrant(s, due)
	c.signal()
}

// growing reports whether a larger window would help: the path is long and the
// reader took half a window within a few round trips. Through a relay the round
// trip is not known, but the first window is small, so a fast reader is enough up
// to what a relay may hold.
func (s *Stream) growing(now time.Time) bool {
	c := s.c
	const (
		long, trips = time.Millisecond, 4
		fast        = 20 * time.Millisecond
		relayHolds  = 256 << 10
	)
	if s.window >= int64(c.limits.MaxWindow) || c.unread >= int64(c.limits.UnreadSoft)/2 {
		return false
	}
	took := now.Sub(s.started)
	if s.hops > 0 && 2*s.window <= relayHolds && took < fast {
		return true
	}
	return c.keep.rtt > long && took < trips*c.keep.rtt && s.unread*4 < s.window
}

// failStream ends a stream for what the peer did and tells it. Too many such
// errors end the connection: the read loop asks tooMany.
func (c *Conn) failStream(s *Stream, code Code, text string) {
	c.sendError(s.id, code, text)
	c.endStream(s, &Error{Code: code, Text: text})
	if s.sink != nil {
		c.failed = append(c.failed, s)
	}
	c.blame()
	c.signal()
}

// refuse answers a channel that never was.
func (c *Conn) refuse(id uint32, code Code, text string) {
	c.ended.add(id, time.Now())
	c.sendError(id, code, text)
	if !c.draining {
		c.blame()
	}
}

// blame counts a channel error that the peer caused.
func (c *Conn) blame() {
	if ok, _ := c.errors.Allow(1, time.Now()); !ok {
		c.tooMany = true
	}
}

func (s *Stream) kind() int {
	if s.system {
		return System
	}
	return App
}

func (s *Stream) countIn(n int) {
	m := s.c.cfg.Metrics
	m.ContentsIn[s.kind()].Add(1)
	m.BytesIn[s.kind()].Add(int64(n))
}

func (s *Stream) countOut(n int) {
	m := s.c.cfg.Metrics
	m.ContentsOut[s.kind()].Add(1)
	m.BytesOut[s.kind()].Add(int64(n))
}
