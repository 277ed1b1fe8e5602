package transport

import (
	"io"
	"os"
	"strconv"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The way of a chunk in:
//
//	1. the session's reader pushes it: kept in the buffer it came in, small ones
//	   joined, so that many of them take no more memory than their bytes
//	2. Read copies it out and frees the buffer
//	3. with credit: what was read is granted again, in steps
//	   without: above a bound the socket is not read, until there is room (S-4's
//	   other side)

// inbound is the direction that this side reads. Guarded by Conn.mu.
type inbound struct {
	// Static after construction.
	c    *Conn
	kind proxy.Kind
	more chan struct{} // capacity 1: something changed
	room chan struct{} // capacity 1: something was read

	chunks []piece
	head   int   // of the first piece that is not used up
	unread int   // bytes
	held   int   // bytes of buffers
	owed   int   // read and not granted yet
	end    error // io.EOF or why; comes behind the chunks
	over   bool  // nothing more will come
	closed bool  // nobody reads any more
}

// piece is bytes in a buffer.
type piece struct {
	buf  *ws.Buf
	data []byte
}

// joinBelow is the size up to which chunks are joined, and that of the buffer they
// are joined in.
const joinBelow = 4 << 10

func (in *inbound) init(c *Conn, kind proxy.Kind) {
	in.c, in.kind = c, kind
	in.more, in.room = make(chan struct{}, 1), make(chan struct{}, 1)
}

func (in *inbound) wake() { signal(in.more) }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// push takes one chunk from the session's reader. Where buf holds it, it may be
// kept and *buf set to nil.
func (in *inbound) push(data []byte, buf **ws.Buf) {
	c := in.c
	if len(data) == 0 || !in.await(len(data)) {
		return
	}
	c.mu.Lock()
	if in.over || in.closed {
		c.mu.Unlock()
		return
	}
	if c.sess.ext && in.unread+len(data) > c.sess.window+maxChunk {
		c.mu.Unlock()
		c.fail(errOverrun, ErrStreamFailed.Text)
		return
	}
	in.keep(data, buf)
	c.mu.Unlock()
	in.wake()
}

// maxChunk is the largest chunk that a star passes on; credit may be overdrawn by
// one.
const maxChunk = 1_000_000

// keep appends a chunk. The caller holds c.mu.
func (in *inbound) keep(data []byte, buf **ws.Buf) {
	in.unread += len(data)
	if len(data) < joinBelow {
		if n := len(in.chunks); n > in.head {
			if last := &in.chunks[n-1]; cap(last.data)-len(last.data) >= len(data) {
				last.data = append(last.data, data...)
				return
			}
		}
	}
	var p piece
	switch {
	case len(data) >= joinBelow && buf != nil && *buf != nil:
		p = piece{*buf, data[:len(data):len(data)]}
		*buf = nil
	default:
		p.buf = in.c.sess.star.t.mem.Get(max(len(data), joinBelow))
		p.data = append(p.buf.Bytes()[:0], data...)
	}
	in.held += p.buf.Size()
	in.chunks = append(in.chunks, p)
}

// await waits for room on a star without credit, while its socket is not read. A
// reader that takes nothing for too long loses the stream, so that it doesn't hold
// up the others for good.
func (in *inbound) await(n int) bool {
	c := in.c
	t := c.sess.star.t
	full := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !in.over && !in.closed && in.held > 0 && in.held+n > t.opts.Limits.Buffer
	}
	if c.sess.ext || !full() {
		return true
	}
	c.sess.sock.Hold()
	defer c.sess.sock.Release()
	timer := time.NewTimer(t.opts.Times.Stall)
	defer timer.Stop()
	for full() {
		select {
		case <-in.room:
			timer.Reset(t.opts.Times.Stall)
		case <-timer.C:
			c.fail(ErrStreamStalled, ErrStreamStalled.Text)
			return false
		case <-c.sess.sock.Context().Done():
			return false
		}
	}
	return true
}

// Read reads what came, waiting for the first byte until the deadline.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	in := &c.in
	for {
		if c.waiting.read.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		n, grant, err := in.take(p)
		if grant > 0 {
			c.event(flow.Control, proxy.Credit, in.kind, strconv.Itoa(grant))
		}
		if n > 0 {
			signal(in.room)
			c.sess.star.in.Add(int64(n))
			c.sess.star.t.in.Add(int64(n))
			_ = c.spend(n, &c.waiting.read) // an error comes with the next call
			return n, nil
		}
		if err != nil || len(p) == 0 {
			return 0, err
		}
		select {
		case <-in.more:
		case <-c.waiting.read.wait():
		}
	}
}

// take copies out what is there. grant is credit to give.
func (in *inbound) take(p []byte) (n, grant int, err error) {
	c := in.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.closed {
		return 0, 0, in.endOr(errConnClosed)
	}
	for n < len(p) && in.head < len(in.chunks) {
		first := &in.chunks[in.head]
		m := copy(p[n:], first.data)
		n += m
		if first.data = first.data[m:]; len(first.data) == 0 {
			in.pop()
		}
	}
	in.unread -= n
	if n == 0 && in.head == len(in.chunks) && in.end != nil {
		return 0, 0, in.end
	}
	if in.owed += n; c.sess.ext && !in.over && in.owed >= c.sess.window/4 {
		grant, in.owed = in.owed, 0
	}
	return n, grant, nil
}

func (in *inbound) endOr(err error) error {
	if in.end != nil && in.end != io.EOF {
		return in.end
	}
	return err
}

// pop frees the first piece. The caller holds c.mu.
func (in *inbound) pop() {
	first := in.chunks[in.head]
	in.held -= first.buf.Size()
	first.buf.Free()
	in.chunks[in.head] = piece{}
	if in.head++; in.head == len(in.chunks) {
		in.chunks, in.head = in.chunks[:0], 0
	} else if in.head >= 64 {
		in.chunks = append(in.chunks[:0], in.chunks[in.head:]...)
		in.head = 0
	}
}

// finish is the other side's end, behind the chunks; nil is a clean one.
func (in *inbound) finish(err error) {
	if err == nil {
		err = io.EOF
	}
	in.c.mu.Lock()
	if !in.over {
		in.over, in.end = true, err
	}
	in.c.mu.Unlock()
	in.wake()
	signal(in.room)
	in.c.checkDone()
}

// fail drops what is there; Read gives err.
func (in *inbound) fail(err error, tell string) {
	in.c.mu.Lock()
	if in.end == nil || in.end == io.EOF && in.unread > 0 {
		in.end = err
	}
	in.c.mu.Unlock()
	in.stop(tell)
}

// stop drops what is there and tells the star that nobody reads, where it can be
// told.
func (in *inbound) stop(reason string) {
	c := in.c
	c.mu.Lock()
	tell := !in.closed && !in.over && c.sess.ext && reason != ""
	in.closed, in.over = true, true
	for in.head < len(in.chunks) {
		in.pop()
	}
	in.chunks, in.unread = nil, 0
	c.mu.Unlock()
	if tell {
		c.event(flow.Bulk, proxy.Stop, in.kind, strconv.Quote(reason))
	}
	in.wake()
	signal(in.room)
}
