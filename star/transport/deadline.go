package transport

import (
	"sync"
	"time"
)

// deadline is a time after which a wait ends. Its zero value is none; set and wait
// may be called by any goroutine.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed when the time has come
}

// wait gives a channel that is closed when the time has come; nil for none.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// passed says whether the time has come.
func (d *deadline) passed() bool {
	select {
	case <-d.wait():
		return true
	default:
		return false
	}
}

// set changes the time; a zero one is none. Whoever waits already is told of it
// only where the time comes earlier or the caller wakes it, so set is followed by a
// wake.
func (d *deadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if at.IsZero() {
		d.over = nil
		return
	}
	over := make(chan struct{})
	d.over = over
	if left := time.Until(at); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(over) })
	} else {
		close(over)
	}
}
