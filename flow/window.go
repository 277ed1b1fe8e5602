package flow

import (
	"context"
	"sync"
)

// Window is the credit one side has for sending to the other, in bytes. The
// sender takes, the receiver's grants give. It may be used by any number of
// goroutines; those who wait are served in order.
type Window struct {
	mu      sync.Mutex
	credit  int64
	err     error
	waiting []*taker
}

type taker struct {
	n    int64
	done chan error // capacity 1
}

// NewWindow makes a window with a first credit of n bytes.
func NewWindow(n int64) *Window { return &Window{credit: n} }

// Take waits until there are n bytes of credit and takes them, all or none. It
// returns the context's error, or the one given to Close.
func (w *Window) Take(ctx context.Context, n int64) error {
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	if len(w.waiting) == 0 && w.credit >= n {
		w.credit -= n
		w.mu.Unlock()
		return nil
	}
	t := &taker{n: n, done: make(chan error, 1)}
	w.waiting = append(w.waiting, t)
	w.mu.Unlock()

	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return w.abandon(t, ctx.Err())
	}
}

// TryTake takes n bytes if they are there and nobody waits. It never blocks.
func (w *Window) TryTake(n int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || len(w.waiting) > 0 || w.credit < n {
		return false
	}
	w.credit -= n
	return true
}

// Give adds n bytes of credit and reports whether the sum stays within limit;
// where it would not, nothing is added.
func (w *Window) Give(n, limit int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n < 0 || w.credit > limit-n {
		return false
	}
	w.credit += n
	w.serve()
	return true
}

// Credit is what could be taken now.
func (w *Window) Credit() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.credit
}

// Close ends every Take, now and later, with err. The first Close decides.
func (w *Window) Close(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err = err
	for _, t := range w.waiting {
		t.done <- err
	}
	w.waiting = nil
}

func (w *Window) serve() {
	n := 0
	for n < len(w.waiting) && w.credit >= w.waiting[n].n {
		w.credit -= w.waiting[n].n
		w.waiting[n].done <- nil
		n++
	}
	w.waiting = w.waiting[n:]
}

func (w *Window) abandon(t *taker, cause error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, other := range w.waiting {
		if other == t {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			w.serve()
			return cause
		}
	}
	return <-t.done
}
