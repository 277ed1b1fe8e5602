package link

import (
	"context"
	"errors"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// Outlet is the part of writing that differs between the protocols. Its methods
// are called by the writer alone.
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

// WriteLoop writes what comes into a queue, as much at a time as is there, until
// the link ends or the queue is closed. It keeps the connection alive meanwhile,
// and lets go of a page that is silent or takes nothing.
func WriteLoop[T any](l *Link, q *flow.Queue[T], out Outlet[T]) error {
	timer := time.NewTimer(pingEvery)
	defer timer.Stop()
	moved, pinged := time.Now(), time.Now()
	var items []T
	for l.ctx.Err() == nil {
		var err error
		if items, err = next(q, out, items); err != nil {
			return err
		}
		if len(items) > 0 || out.Due() == 0 {
			if err := out.Flush(items); err != nil {
				return l.WriteError(err)
			}
			moved = time.Now()
			continue
		}
		now := time.Now()
		if q.Len() == 0 || out.Open() {
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
		timer.Reset(wait(now, moved, pinged, out.Due()))
		select {
		case <-q.Ready():
		case <-l.wake:
		case <-timer.C:
		case <-l.ctx.Done():
		}
	}
	return lastWords(l, q, out)
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

// lastWords writes what still waits, where the end is one in order.
func lastWords[T any](l *Link, q *flow.Queue[T], out Outlet[T]) error {
	why := l.Why()
	if why.bye == nil {
		return why
	}
	late := time.AfterFunc(lastWordWait, func() { l.sock.Interrupt(0) })
	defer late.Stop()
	for {
		items, err := q.TryPop(maxBatch, nil)
		if err != nil || len(items) == 0 {
			break
		}
		if out.Flush(items) != nil {
			return why
		}
	}
	_ = out.Farewell(why.bye)
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
