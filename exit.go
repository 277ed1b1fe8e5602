package parley

import (
	"context"
	"sync"
	"time"
)

// pageWatch decides when a node that serves a page may end by itself: some time
// after the last page left, or when nobody opened the one that a browser was
// sent to (gateway.md §10).
type pageWatch struct {
	leave time.Duration // after the last page left; 0 is never

	changed chan struct{} // capacity 1

	mu    sync.Mutex
	pages int
	first time.Duration // how long to wait for the first page; 0 is for ever
}

// firstPage is how long a browser that was opened may take to show the page.
const firstPage = time.Minute

func newPageWatch(leave time.Duration) *pageWatch {
	return &pageWatch{leave: leave, changed: make(chan struct{}, 1)}
}

// expect says that a browser was sent to the page. A node that stays when its
// last page has left doesn't leave for want of the first either.
func (w *pageWatch) expect() {
	if w.leave > 0 {
		w.change(func() { w.first = firstPage })
	}
}

// set tells how many pages there are: a page counts until its socket was closed
// or the grace of a lost one is over. It never blocks.
func (w *pageWatch) set(pages int) {
	w.change(func() {
		w.pages = pages
		w.first = w.leave // from now on it is not the first one that is waited for
	})
}

func (w *pageWatch) change(how func()) {
	w.mu.Lock()
	how()
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Run returns true when the node may end, false when ctx does.
func (w *pageWatch) Run(ctx context.Context) bool {
	for {
		var over <-chan time.Time
		if d := w.patience(); d > 0 {
			over = time.After(d)
		}
		select {
		case <-w.changed:
		case <-over:
			if w.patience() > 0 {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// patience is how long the node waits in its present state; 0 is for ever.
func (w *pageWatch) patience() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pages > 0 {
		return 0
	}
	return w.first
}
