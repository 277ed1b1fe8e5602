package flow

import (
	"context"
	"errors"
	"sync"
)

// Class orders what waits in a queue: all control items leave before bulk ones.
type Class uint8

// The two classes.
const (
	Control Class = iota // small, and others wait for it: answers, credits, errors
	Bulk                 // everything else
)

// ErrFull is what TryPush returns when there is no room.
var ErrFull = errors.New("queue is full")

// Queue is a first-in first-out queue for each class, bounded in bytes over
// both. Any number of goroutines may push, one may pop. An item larger than the
// whole bound is taken when the queue is empty, so it is never stuck.
type Queue[T any] struct {
	limit int

	mu      sync.Mutex
	classes [2]ring[T]
	bytes   int
	of      [2]int // bytes by class
	err     error  // why it was closed; nil while open
	waiting []*pusher[T]
	ready   chan struct{} // capacity 1: something came, or the queue was closed; nil until asked for
}

type pusher[T any] struct {
	class Class
	entry entry[T]
	done  chan error // capacity 1
}

// NewQueue makes a queue that holds up to limit bytes, as counted by the sizes
// given to the pushes.
func NewQueue[T any](limit int) *Queue[T] {
	return &Queue[T]{limit: limit}
}

// Push adds an item of size bytes and waits for room, behind those who wait
// already. It returns the context's error or, once closed, the queue's.
func (q *Queue[T]) Push(ctx context.Context, class Class, item T, size int) error {
	q.mu.Lock()
	if q.err != nil {
		defer q.mu.Unlock()
		return q.err
	}
	e := entry[T]{item: item, size: size}
	if len(q.waiting) == 0 && q.fits(size) {
		q.add(class, e)
		q.mu.Unlock()
		return nil
	}
	p := &pusher[T]{class: class, entry: e, done: make(chan error, 1)}
	q.waiting = append(q.waiting, p)
	q.mu.Unlock()

	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return q.abandon(p, ctx.Err())
	}
}

// TryPush adds an item if there is room now, and returns ErrFull otherwise. It
// never blocks.
func (q *Queue[T]) TryPush(class Class, item T, size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	if len(q.waiting) > 0 || !q.fits(size) {
		return ErrFull
	}
	q.add(class, entry[T]{item: item, size: size})
	return nil
}

// PushAlways adds an item over any bound. It is for answers, whose number the
// requests bound. It never blocks; the error is the queue's own once closed.
func (q *Queue[T]) PushAlways(class Class, item T, size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	q.add(class, entry[T]{item: item, size: size})
	return nil
}

// PushDroppable adds a bulk item that may be lost, and makes room by dropping
// the oldest such items; they are returned so that the loss can be told. When
// nothing droppable is left and there is still no room, item itself is among
// those returned. It never blocks.
func (q *Queue[T]) PushDroppable(item T, size int) (dropped []T, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	r := &q.classes[Bulk]
	for !q.fits(size) {
		e, ok := r.dropOldest()
		if !ok {
			return append(dropped, item), nil
		}
		q.bytes -= e.size
		q.of[Bulk] -= e.size
		dropped = append(dropped, e.item)
	}
	q.add(Bulk, entry[T]{item: item, size: size, droppable: true})
	return dropped, nil
}

// Pop waits until something is there, then appends items to into, control
// first, until they make up maxBytes or the queue is empty; at least one. After
// Close it empties the queue and then returns the error given there. Only one
// goroutine may pop.
func (q *Queue[T]) Pop(ctx context.Context, maxBytes int, into []T) ([]T, error) {
	for {
		batch, err := q.TryPop(maxBytes, into)
		if err != nil || len(batch) > len(into) {
			return batch, err
		}
		select {
		case <-q.Ready():
		case <-ctx.Done():
			return into, ctx.Err()
		}
	}
}

// TryPop is Pop without waiting: an empty queue returns into as it was.
func (q *Queue[T]) TryPop(maxBytes int, into []T) ([]T, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := 0
	for class := range q.classes {
		r := &q.classes[class]
		for r.len() > 0 && (taken == 0 || taken < maxBytes) {
			e, ok := r.pop()
			if !ok {
				continue // a dropped one
			}
			into = append(into, e.item)
			taken += e.size
			q.bytes -= e.size
			q.of[class] -= e.size
			if e.size == 0 {
				taken++ // items that weigh nothing must not make a batch endless
			}
		}
	}
	if taken > 0 {
		q.admit()
		return into, nil
	}
	return into, q.err
}

// Ready is signalled when something was pushed or the queue was closed, for a
// popper that waits for other things too and then calls TryPop.
func (q *Queue[T]) Ready() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ready == nil {
		q.ready = make(chan struct{}, 1)
		if q.classes[Control].live+q.classes[Bulk].live > 0 || q.err != nil {
			q.signal()
		}
	}
	return q.ready
}

// Close ends the queue: pushes, also those that wait, return err; pops empty it
// first. The first Close decides.
func (q *Queue[T]) Close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	q.err = err
	for _, p := range q.waiting {
		p.done <- err
	}
	q.waiting = nil
	q.signal()
}

// Bytes is what waits in the queue now.
func (q *Queue[T]) Bytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// Waiting is what waits in one class of the queue now.
func (q *Queue[T]) Waiting(class Class) (items, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.classes[class].live, q.of[class]
}

// Len is the number of items that wait in the queue now.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.classes[Control].live + q.classes[Bulk].live
}

func (q *Queue[T]) fits(size int) bool {
	return q.bytes == 0 || q.bytes+size <= q.limit
}

func (q *Queue[T]) add(class Class, e entry[T]) {
	q.classes[class].push(e)
	q.bytes += e.size
	q.of[class] += e.size
	q.signal()
}

func (q *Queue[T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// admit lets in those who wait, in their order, as far as there is room.
func (q *Queue[T]) admit() {
	n := 0
	for n < len(q.waiting) && q.fits(q.waiting[n].entry.size) {
		p := q.waiting[n]
		q.add(p.class, p.entry)
		p.done <- nil
		n++
	}
	q.waiting = append(q.waiting[:0], q.waiting[n:]...)
	clear(q.waiting[len(q.waiting) : len(q.waiting)+n])
}

// abandon takes p out of the line. If p was let in meanwhile, that holds.
func (q *Queue[T]) abandon(p *pusher[T], cause error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == p {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			q.admit() // a smaller one behind p may fit now
			return cause
		}
	}
	return <-p.done
}
