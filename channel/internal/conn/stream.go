package conn

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// Stream is one end of a channel on a connection. Its methods may be called by
// any goroutine; concurrent reads are served one after the other.
type Stream struct {
	// static after it was opened or accepted
	c      *Conn
	id     uint32
	own    bool // this end created it
	system bool
	hops   uint8
	sink   Sink // set where a relay bridges it
	user   any  // the handler's

	// guarded by c.mu
	state      state
	reading    bool // a reader copies out of part
	inReady    bool
	inGrant    bool
	closing    bool // this end is done; close is to be sent once tx is empty
	created    bool // the create has left
	sawContent bool
	next       *Stream // in readyQueue
	credit     int64   // what may be sent
	maxContent int     // largest content that may be sent
	peerCredit int64   // what the peer may still send
	window     int64   // what peerCredit, unread and read-but-not-granted sum up to
	unread     int64   // cost received and not read
	grant      int64   // credit waiting to be granted
	tx, rx     fifo
	part       []byte // rest of a large content that Read is in
	partBuf    []byte // the buffer part lies in
	partCost   int64
	offset     int // bytes of the oldest small item that Read took
	proof      []byte
	readers    line
	writers    line
	deadline   time.Time
	started    time.Time // when it was opened, accepted, or last granted
	final      *Error    // the last record of this end, behind what is sent; nil: a close
	err        *Error    // why it ended; nil and state ended: an orderly close
	done       chan struct{}
	create     *mux.Message // waiting in Conn.opening; nil while it is being signed
}

type state uint8

const (
	opening state = iota // created by this end, not accepted yet
	open
	ended // closed, refused or failed; what was received can still be read
)

// ID is the channel's number on its connection.
func (s *Stream) ID() uint32 { return s.id }

// Conn is the connection the channel is on.
func (s *Stream) Conn() *Conn { return s.c }

// Own reports whether this end created the channel.
func (s *Stream) Own() bool { return s.own }

// User is what the handler gave with it.
func (s *Stream) User() any { return s.user }

// MaxContent is the largest content Send takes, in bytes.
func (s *Stream) MaxContent() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.maxContent
}

// Send queues one content and returns when credit took it. Errors: TooLarge,
// the channel's own, the context's, os.ErrDeadlineExceeded.
func (s *Stream) Send(ctx context.Context, p []byte) error {
	rec := s.record(p)
	s.c.mu.Lock()
	if err := s.waitToSend(ctx, len(p)); err != nil {
		s.c.mu.Unlock()
		s.c.cfg.Buffers.put(rec)
		return err
	}
	s.put(p, rec)
	s.c.mu.Unlock()
	s.c.signal()
	return nil
}

// Take waits for the credit of a content of n bytes and takes it; Put has to
// follow. The two are Send for contents that are made once they may be sent.
func (s *Stream) Take(ctx context.Context, n int) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.waitToSend(ctx, n)
}

// Put sends a content whose credit Take took. It does not wait.
func (s *Stream) Put(p []byte) error {
	rec := s.record(p)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.sendErr(); err != nil {
		s.c.cfg.Buffers.put(rec)
		return err
	}
	s.put(p, rec)
	s.c.signal()
	return nil
}

// Fill is Put of a content of n bytes that fill writes, where it will leave from:
// a content that is made need not be copied.
func (s *Stream) Fill(n int, fill func(content []byte)) error {
	c := s.c
	size := mux.ContentRecordSize(n)
	if c.cfg.Encoding == wire.Packed || size <= smallItem {
		content := make([]byte, n)
		fill(content)
		return s.Put(content)
	}
	rec := c.cfg.Buffers.get(size)
	fill(mux.OpenContentRecord(rec, s.id, n))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.sendErr(); err != nil {
		c.cfg.Buffers.put(rec)
		return err
	}
	s.putRecord(n, rec)
	c.signal()
	return nil
}

// record makes the record of a content that is too large for a chunk.
func (s *Stream) record(p []byte) []byte {
	c := s.c
	if c.cfg.Encoding == wire.Packed {
		return mux.AppendRecord(nil, wire.Packed, &mux.Message{Kind: mux.Content, Channel: s.id, Content: p})
	}
	if size := mux.ContentRecordSize(len(p)); size > smallItem {
		return mux.AppendContentRecord(c.cfg.Buffers.get(size)[:0], s.id, p)
	}
	return nil
}

// put queues a content, as its record where there is one. It is called with the
// lock held.
func (s *Stream) put(p, rec []byte) {
	if rec != nil {
		s.putRecord(len(p), rec)
		return
	}
	mux.AppendContentRecord(s.tx.reserve(s.c.cfg.Buffers, mux.ContentRecordSize(len(p)))[:0], s.id, p)
	s.countOut(len(p))
	s.c.makeReady(s)
}

// putRecord queues the record of a content of n bytes. It is called with the lock
// held.
func (s *Stream) putRecord(n int, rec []byte) {
	s.tx.push(s.c.cfg.Buffers, rec)
	s.countOut(n)
	s.c.makeReady(s)
}

// waitToSend waits until a content of n bytes may be queued and takes its
// credit. It is called and returns with the lock held.
func (s *Stream) waitToSend(ctx context.Context, n int) error {
	if n > s.maxContent {
		return &Error{Code: TooLarge, Text: "content of " + strconv.Itoa(n) + " bytes, limit " + strconv.Itoa(s.maxContent)}
	}
	need := cost(n)
	var since time.Time
	for {
		if err := s.sendErr(); err != nil {
			return err
		}
		if s.credit >= need && s.tx.bytes < sendQueue {
			s.credit -= need
			if !since.IsZero() {
				s.c.cfg.Metrics.StallNanos.Add(int64(time.Since(since)))
			}
			return nil
		}
		if since.IsZero() {
			since = time.Now()
		}
		if err := s.wait(ctx, &s.writers); err != nil {
			return err
		}
	}
}

// sendErr is why nothing can be sent.
func (s *Stream) sendErr() error {
	switch {
	case s.closing:
		return errClosed
	case s.final != nil && s.state != ended:
		return errStops
	case s.state != ended:
		return nil
	case s.err != nil:
		return s.err
	}
	return errPeerClosed
}

// Write sends p in contents of any size. It returns how much credit took.
func (s *Stream) Write(p []byte) (n int, err error) {
	piece := max(s.MaxContent(), 1)
	for n < len(p) {
		part := p[n:min(n+piece, len(p))]
		if err := s.Send(context.Background(), part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Close ends both directions: contents sent before are delivered first, what
// was not read is dropped.
func (s *Stream) Close() error {
	c := s.c
	c.mu.Lock()
	if s.closing {
		c.mu.Unlock()
		return nil
	}
	s.closing = true
	s.dropUnread()
	s.readers.wakeAll()
	s.writers.wakeAll()
	if s.state != ended {
		c.makeReady(s)
	}
	c.mu.Unlock()
	c.signal()
	return nil
}

// Fail ends the channel at both ends at once, with a reason.
func (s *Stream) Fail(code Code, text string) {
	c := s.c
	c.mu.Lock()
	if s.state != ended && !s.closing {
		c.sendError(s.id, code, text)
		c.endStream(s, &Error{Code: code, Text: text})
		s.closing = true
		s.dropUnread()
	}
	c.mu.Unlock()
	c.signal()
}

// SetDeadline sets when reads and writes give up, those that wait now included.
// The zero time means never.
func (s *Stream) SetDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.deadline = t
	s.readers.wakeAll()
	s.writers.wakeAll()
	return nil
}

// Done is closed when the channel has ended.
func (s *Stream) Done() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.state == ended {
			close(s.done)
		}
	}
	return s.done
}

// Err is why the channel ended; nil while it is open and after an orderly close.
func (s *Stream) Err() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return s.err
}

// wait waits in a line. It is called and returns with the lock held.
func (s *Stream) wait(ctx context.Context, l *line) error {
	var expired <-chan time.Time
	if !s.deadline.IsZero() {
		left := time.Until(s.deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		defer t.Stop()
		expired = t.C
	}
	w := l.join()
	s.c.mu.Unlock()
	var err error
	select {
	case <-w:
	case <-ctx.Done():
		err = ctx.Err()
	case <-expired:
		err = os.ErrDeadlineExceeded
	}
	s.c.mu.Lock()
	if err != nil {
		l.leave(w)
	}
	return err
}

// cost is the credit a content of n bytes takes.
func cost(n int) int64 { return int64(max(n, minCost)) }
