package conn

import "slices"

// list is a queue of streams, linked by their next.
type list struct{ head, tail *Stream }

func (q *list) push(s *Stream) {
	s.next = nil
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
}

func (q *list) pop() *Stream {
	s := q.head
	if s == nil {
		return nil
	}
	if q.head = s.next; q.head == nil {
		q.tail = nil
	}
	s.next = nil
	return s
}

// line is where goroutines wait for a stream, in order.
type line struct{ waiting []chan struct{} }

func (l *line) join() chan struct{} {
	w := make(chan struct{}, 1)
	l.waiting = append(l.waiting, w)
	return w
}

// wake lets the first go on.
func (l *line) wake() {
	if len(l.waiting) == 0 {
		return
	}
	l.waiting[0] <- struct{}{}
	if l.waiting = slices.Delete(l.waiting, 0, 1); len(l.waiting) == 0 {
		l.waiting = nil
	}
}

func (l *line) wakeAll() {
	for len(l.waiting) > 0 {
		l.wake()
	}
}

// leave is for one that gave up. If it was woken meanwhile, the next one is.
func (l *line) leave(w chan struct{}) {
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		return
	}
	l.wake()
}
