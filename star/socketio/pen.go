package socketio

import (
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The writer of a WebSocket: whoever claims it empties the queue and leaves. That
// is a goroutine; or a Flusher's, as long as the connection takes it without
// waiting.

// pen is a writer at work.
type pen struct {
	s      *Socket
	conn   *ws.Conn
	b      *ws.Batch
	items  []*item // popped
	framed int     // of them, in the batch or gone
	next   int     // of them, the first that has not left
	err    error   // the connection's
	array  [16]*item
}

// claim makes the caller the writer; nil where there is one, or no WebSocket.
func (s *Socket) claim() *pen {
	if s.writing.Load() {
		return nil // the running one looks again before it leaves
	}
	return s.claimCounted()
}

// claimCounted is claim for who waits for the writers afterwards: where there is
// one, it is counted when this returns.
func (s *Socket) claimCounted() *pen {
	s.mu.Lock()
	conn := s.conn
	free := conn != nil && s.writing.CompareAndSwap(false, true)
	if free {
		s.writers.Add(1)
	}
	s.mu.Unlock()
	if !free {
		return nil
	}
	p, _ := s.core.pens.Get().(*pen)
	if p == nil {
		p = &pen{}
	}
	p.s, p.conn, p.b = s, conn, conn.Batch()
	return p
}

// done is the last call for a pen. serve waits for it.
func (p *pen) done() {
	p.b.Done()
	s := p.s
	*p = pen{}
	s.core.pens.Put(p)
	s.writers.Done()
}

// startWriter makes sure that a writer runs, where the socket is on WebSocket.
func (s *Socket) startWriter() {
	if p := s.claim(); p != nil {
		go p.finish()
	}
}

// kick sees to it that what waits leaves: at once where the connection takes it,
// else by a writer. It never blocks. Receipts are told from within.
func (s *Socket) kick() {
	p := s.claim()
	if p == nil {
		return
	}
	if p.try() {
		p.done()
		return
	}
	go p.finish()
}

// writeBatch is how much is popped for one write.
const writeBatch = 256 << 10

// finish writes until nothing is left. When the queue is closed it sends the close
// frame last.
func (p *pen) finish() {
	defer p.done()
	for {
		if err := p.send(); err != nil {
			p.s.fail(p.conn, err)
			return
		}
		ended := p.pop()
		switch {
		case len(p.items) > 0:
		case ended != nil:
			p.s.sayClose(p.b)
			return
		case p.mayLeave():
			return
		}
	}
}

// try writes what waits now. False leaves the rest to finish: what the connection
// did not take, what came meanwhile, and every kind of end.
func (p *pen) try() bool {
	ended := p.pop()
	for p.framed < len(p.items) && !p.b.Full() {
		p.frame()
	}
	whole, err := p.b.TryFlush(p.progress)
	if p.err = err; err != nil || !whole || p.framed < len(p.items) || ended != nil {
		return false
	}
	p.items, p.framed, p.next = nil, 0, 0
	return p.mayLeave()
}

// pop takes what waits, all before having left; ended says that the queue is
// closed, and empty.
func (p *pen) pop() (ended error) {
	p.items, ended = p.s.out.TryPop(writeBatch, p.array[:0])
	p.framed, p.next = 0, 0
	return ended
}

// mayLeave gives up the claim, unless something has come meanwhile, or the end.
func (p *pen) mayLeave() bool {
	s := p.s
	s.writing.Store(false)
	return s.out.Len() == 0 && !s.ending() || !s.writing.CompareAndSwap(false, true)
}

func (p *pen) frame() {
	it := p.items[p.framed]
	it.unsent = p.s.frame(p.b, it)
	p.framed++
}

// send frames what was popped and writes it, and settles each item as soon as the
// connection has taken it.
func (p *pen) send() error {
	err := p.err
	for err == nil && (p.framed < len(p.items) || p.b.Size() > 0) {
		for p.framed < len(p.items) && !p.b.Full() {
			p.frame()
		}
		err = p.b.Flush(p.progress)
	}
	for ; p.next < len(p.items); p.next++ {
		p.s.settle(p.items[p.next], err == nil)
	}
	return err
}

// progress is told of n bytes that the connection has taken.
func (p *pen) progress(n int) {
	p.s.progress.Store(p.s.core.clock.Load())
	for n > 0 && p.next < len(p.items) {
		it := p.items[p.next]
		if n < it.unsent {
			it.unsent -= n
			return
		}
		n -= it.unsent
		p.s.settle(it, true)
		p.items[p.next] = nil
		p.next++
	}
}

// sayClose sends the close frame, once.
func (s *Socket) sayClose(b *ws.Batch) {
	if s.saidClose {
		return
	}
	s.saidClose = true
	s.mu.Lock()
	code := s.code
	s.mu.Unlock()
	b.Add(ws.Close, ws.ClosePayload(int(code), ""))
	_ = b.Flush(nil) // the connection is closed in any case
}

// fail ends the socket because its connection is broken.
func (s *Socket) fail(conn *ws.Conn, err error) {
	s.end(ws.CodeNormal, err)
	_ = conn.NetConn().Close() // the reader sees it
}
