package link

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// Outlet is the part of writing that differs between the protocols. Flush and
// Farewell are called by one goroutine at a time.
type Outlet[T any] interface {
	// Open reports whether more may be written now.
	Open() bool
	// Flush writes items and whatever else is due.
	Flush(items []T) error
	// Due says after how long Flush is wanted though nothing came; 0 is at once,
	// negative is never.
	Due() time.Duration
	// Farewell writes the last words of a session that the node ends.
	Farewell(bye *identity.Error) error
}

// Writer writes what comes into a queue, as much at a time as is there. It keeps
// the connection alive meanwhile, and lets go of a page that is silent or takes
// nothing.
//
// Most of it is one goroutine's, Run. But to wake that for a lone message takes
// longer than to write it, so whoever brings one may have it written by Now.
type Writer[T any] struct {
	l     *Link
	q     *flow.Queue[T]
	out   Outlet[T]
	moved chan struct{} // capacity 1: a batch was written, or none will be
	over  atomic.Bool   // Run has returned, or is about to

	pen    sync.Mutex // held by who takes from the queue and writes; guards all below
	live   bool       // Run runs, and hasn't come to its last words
	owing  bool       // the socket keeps something that Now could not write
	failed error      // of Now
	batch  []T        // of Run
	one    []T        // of Now
}

// NewWriter makes the writer of a link.
func NewWriter[T any](l *Link, q *flow.Queue[T], out Outlet[T]) *Writer[T] {
	return &Writer[T]{l: l, q: q, out: out, moved: make(chan struct{}, 1)}
}

// Run writes until the link ends or the queue is closed.
func (w *Writer[T]) Run() error {
	l := w.l
	timer := time.NewTimer(pingEvery)
	defer timer.Stop()
	moved, pinged := time.Now(), time.Now()
	w.start()
	defer w.stop()
	for l.ctx.Err() == nil {
		wrote, err := w.turn()
		if err != nil {
			return err
		}
		if wrote {
			w.move()
			moved = time.Now()
			continue
		}
		now := time.Now()
		if w.q.Len() == 0 || w.out.Open() {
			moved = now
		} else if now.Sub(moved) >= stuckLimit {
			return stuck
		}
		if now.Sub(pinged) >= pingEvery {
			pinged = now
			if err := l.checkAlive(now); err != nil {
				return err
			}
		}
		timer.Reset(wait(now, moved, pinged, w.out.Due()))
		select {
		case <-w.q.Ready():
		case <-l.wake:
		case <-timer.C:
		case <-l.ctx.Done():
		}
	}
	return w.lastWords()
}

func (w *Writer[T]) start() {
	w.pen.Lock()
	defer w.pen.Unlock()
	w.live = true
}

func (w *Writer[T]) stop() {
	w.over.Store(true)
	w.move()
	w.pen.Lock()
	defer w.pen.Unlock()
	w.live = false
}

func (w *Writer[T]) move() {
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// Await holds up who reads the page while more than limit bytes of control items,
// its answers, wait for it. Where the writer waits for what the page says, and that
// may stand behind, it takes more than that many items too. Only the reader may call
// it; the error is how the link ended meanwhile.
func (w *Writer[T]) Await(items, limit int) error {
	for w.piled(items, limit) && !w.over.Load() {
		select {
		case <-w.moved:
		case <-w.l.ctx.Done():
			return w.l.Why()
		}
	}
	return nil
}

func (w *Writer[T]) piled(items, limit int) bool {
	n, bytes := w.q.Waiting(flow.Control)
	return bytes > limit && (n > items || w.out.Open())
}

// turn writes a batch, or whatever else is due.
func (w *Writer[T]) turn() (wrote bool, err error) {
	w.pen.Lock()
	defer w.pen.Unlock()
	if w.failed != nil {
		return false, w.failed
	}
	if w.owing {
		w.owing = false
		if err := w.l.sock.Settle(); err != nil {
			return false, w.l.WriteError(err)
		}
	}
	if w.batch, err = next(w.q, w.out, w.batch); err != nil {
		return false, err
	}
	if len(w.batch) == 0 && w.out.Due() != 0 {
		return false, nil
	}
	if err := w.out.Flush(w.batch); err != nil {
		return false, w.l.WriteError(err)
	}
	return true, nil
}

// Now writes an item before it returns, where nothing waits and nobody writes,
// and reports whether it did; otherwise the item belongs into the queue. It
// never blocks: what the socket doesn't take at once is left to Run. The item
// must be small, socket.NowLimit at most with what is around it. It may be called
// by any goroutine, one that pushes to the queue too: order is kept.
func (w *Writer[T]) Now(item T) bool {
	if !w.pen.TryLock() {
		return false
	}
	defer w.pen.Unlock()
	free := w.live && w.failed == nil && !w.owing && w.l.ctx.Err() == nil
	if !free || w.q.Len() > 0 || !w.out.Open() || !w.l.sock.Hold() {
		return false
	}
	w.one = append(w.one[:0], item)
	err := Guard(w.l.log, w.flushOne)
	w.owing = w.l.sock.Release()
	if err != nil {
		w.failed = w.l.WriteError(err)
	}
	if w.owing || w.failed != nil {
		w.l.Nudge()
	}
	return true
}

func (w *Writer[T]) flushOne() error {
	defer clear(w.one)
	return w.out.Flush(w.one)
}

// next pops a batch into the memory of the last one, unless that was a burst's.
func next[T any](q *flow.Queue[T], out Outlet[T], items []T) ([]T, error) {
	if cap(items) > 64 {
		items = nil
	}
	clear(items)
	if !out.Open() {
		return items[:0], nil
	}
	return q.TryPop(maxBatch, items[:0])
}

func wait(now, moved, pinged time.Time, due time.Duration) time.Duration {
	d := min(pingEvery-now.Sub(pinged), stuckLimit-now.Sub(moved))
	if due > 0 {
		d = min(d, due)
	}
	return max(d, time.Millisecond)
}

// WriteError gives why a write failed.
func (l *Link) WriteError(err error) error {
	if why := l.Why(); why != nil {
		return why
	}
	var t interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &t) && t.Timeout()) {
		return stuck
	}
	return err
}

// lastWords writes what still waits, and the close frame, where the end is one in
// order. Nothing comes behind what waits: the queue takes nothing more.
func (w *Writer[T]) lastWords() error {
	why := w.l.Why()
	if why.bye == nil {
		return why
	}
	w.q.Close(why.bye)
	w.pen.Lock()
	defer w.pen.Unlock()
	w.live = false
	for {
		items, err := w.q.TryPop(maxBatch, nil)
		if err != nil || len(items) == 0 {
			break
		}
		if w.out.Flush(items) != nil {
			return why
		}
	}
	if w.out.Farewell(why.bye) == nil {
		w.l.sock.Goodbye(why.Code, why.Reason)
	}
	return why
}

// checkAlive sends a ping, and ends the link after a minute without any answer.
// A page that waits for the node, because it has too much unsettled, can't be
// heard and isn't silent.
func (l *Link) checkAlive(now time.Time) error {
	if !l.reading.Load() {
		return nil
	}
	if now.Sub(time.Unix(0, l.heard.Load())) >= silenceLimit {
		return silent
	}
	if l.pinging.CompareAndSwap(false, true) {
		l.pongs.Go(func() {
			_ = l.sock.Ping(l.pingCtx) // its pong is heard; a ping that fails isn't
			l.pinging.Store(false)
		})
	}
	return nil
}
