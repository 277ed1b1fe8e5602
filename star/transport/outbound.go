package transport

import (
	"os"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The way of bytes out:
//
//	1. Write copies them into a chunk; while the socket is busy, or may not send,
//	   small writes are joined there
//	2. full chunks, and the last one when nothing is under way, go to the socket:
//	   not before the reader's accept, and not beyond its credit
//	3. the socket's receipt makes room; Write waits while there is none
//
// The end of the direction goes behind the last chunk.

// outbound is the direction that this side writes. Guarded by Conn.mu, but for
// what flush owns.
type outbound struct {
	// Static after construction.
	c    *Conn
	kind proxy.Kind
	text []byte        // of the event of each chunk
	room chan struct{} // capacity 1: something left

	accepted bool
	credit   int // bytes that may be sent, with credit
	chunks   []*ws.Buf
	filling  bool // the last chunk takes more
	held     int  // bytes in chunks and in the socket
	inSocket int  // chunks that have not left
	finished bool // no more writes: the end follows
	said     bool // the end was sent, or need not be
	err      error
	flushing bool // somebody is in flush, and looks again before it leaves
}

func (o *outbound) init(c *Conn, kind proxy.Kind) {
	o.c, o.kind, o.credit = c, kind, c.sess.window
	o.text = proxy.QueueText(c.id, kind)
	o.room = make(chan struct{}, 1)
}

func (o *outbound) wake() { signal(o.room) }

// Write takes all of p, waiting for room until the deadline.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	o := &c.out
	done := 0
	for {
		if c.waiting.write.passed() {
			return done, os.ErrDeadlineExceeded
		}
		n, err := o.add(p[done:])
		done += n
		if n > 0 {
			o.flush()
			c.sess.star.out.Add(int64(n))
			c.sess.star.t.out.Add(int64(n))
			if err := c.spend(n, &c.waiting.write); err != nil {
				return done, err
			}
		}
		if err != nil || done == len(p) {
			return done, err
		}
		select {
		case <-o.room:
		case <-c.waiting.write.wait():
		}
	}
}

// add copies what there is room for, up to the end of one chunk.
func (o *outbound) add(p []byte) (n int, err error) {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	l := &c.sess.star.t.opts.Limits
	room := l.Unsent - o.held
	if room <= 0 || len(p) == 0 {
		return 0, nil
	}
	most := c.sess.chunk
	if !o.filling {
		size := most
		if len(p) < most && o.inSocket == 0 && o.maySend() {
			size = len(p) // it goes at once: nothing will be joined to it
		}
		buf := c.sess.star.t.mem.Get(1 + size)
		buf.Bytes()[0] = 4
		buf.Trim(1)
		o.chunks, o.filling = append(o.chunks, buf), true
	}
	last := o.chunks[len(o.chunks)-1]
	at := len(last.Bytes())
	n = min(len(p), room, most+1-at, cap(last.Bytes())-at)
	last.Trim(at + n)
	copy(last.Bytes()[at:], p)
	o.held += n
	if at+n == most+1 || at+n == cap(last.Bytes()) {
		o.filling = false
	}
	return n, nil
}

func (o *outbound) maySend() bool { return o.accepted && (o.credit > 0 || !o.c.sess.ext) }

// flush sends what may go. It never blocks, and is called by Sent from within Send:
// one at a time sends, the others make it look again.
func (o *outbound) flush() {
	c := o.c
	c.mu.Lock()
	if o.flushing {
		c.mu.Unlock()
		return
	}
	o.flushing = true
	for {
		buf := o.next()
		if buf == nil {
			break
		}
		o.inSocket++
		n := len(buf.Bytes()) - 1
		c.mu.Unlock()
		err := c.sess.sock.Send(flow.Bulk, socketio.Msg{Text: o.text, Bin: buf.Bytes(), Bufs: [2]*ws.Buf{buf}, Receipt: o, Note: n})
		c.mu.Lock()
		if err != nil {
			break // the session's end fails the Conn
		}
	}
	end := o.finished && !o.said && o.accepted && len(o.chunks) == 0
	if end {
		o.said = true
	}
	o.flushing = false
	c.mu.Unlock()
	if end {
		c.event(flow.Bulk, proxy.Error, o.kind, "true")
		c.checkDone()
	}
}

// next takes the chunk that may be sent now, or nil. The caller holds c.mu.
func (o *outbound) next() *ws.Buf {
	if len(o.chunks) == 0 || o.said || !o.accepted {
		return nil
	}
	first := o.chunks[0]
	alone := len(o.chunks) == 1 && o.filling
	if alone && o.inSocket > 0 && !o.finished {
		return nil // joined with what follows, until the socket is free
	}
	n := len(first.Bytes()) - 1
	if o.c.sess.ext {
		if n > o.credit {
			return nil
		}
		o.credit -= n
	}
	if alone {
		o.filling = false
	}
	copy(o.chunks, o.chunks[1:])
	o.chunks[len(o.chunks)-1] = nil
	o.chunks = o.chunks[:len(o.chunks)-1]
	return first
}

// Sent is told when a chunk has left the socket, or was dropped.
func (o *outbound) Sent(_, n int, left bool) {
	c := o.c
	c.mu.Lock()
	o.held -= n
	o.inSocket--
	c.mu.Unlock()
	if left {
		o.flush()
	}
	o.wake()
}

// accept is the reader's: it may be written.
func (o *outbound) accept() {
	o.c.mu.Lock()
	o.accepted = true
	o.c.mu.Unlock()
	o.flush()
}

// maxCredit is the most credit that makes sense.
const maxCredit = 16 << 20

// give is the reader's credit; false where it makes no sense.
func (o *outbound) give(n int) bool {
	o.c.mu.Lock()
	ok := n > 0 && n <= maxCredit && o.credit+n <= maxCredit
	if ok {
		o.credit += n
	}
	o.c.mu.Unlock()
	if ok {
		o.flush()
	}
	return ok
}

// stopped is the reader's stop: nobody reads any more.
func (o *outbound) stopped(err error) {
	o.c.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.said = true // there is nobody to tell
	o.drop()
	o.c.mu.Unlock()
	o.wake()
	o.c.checkDone()
}

// drop frees what waits. The caller holds c.mu.
func (o *outbound) drop() {
	for _, buf := range o.chunks {
		o.held -= len(buf.Bytes()) - 1
		buf.Free()
	}
	o.chunks, o.filling = nil, false
}
