package flow

type entry[T any] struct {
	item      T
	size      int
	droppable bool
	dead      bool // dropped; still takes its place until it is popped
}

// ring is a growing circular buffer whose droppable entries can be dropped from
// the middle, oldest first.
type ring[T any] struct {
	buf       []entry[T]
	head      uint64   // position of the oldest entry; positions never repeat
	tail      uint64   // position behind the newest
	live      int      // entries that are not dead
	droppable []uint64 // positions of droppable entries, oldest first; may name popped ones
}

func (r *ring[T]) len() int { return int(r.tail - r.head) }

func (r *ring[T]) at(pos uint64) *entry[T] { return &r.buf[pos%uint64(len(r.buf))] }

func (r *ring[T]) push(e entry[T]) {
	if r.len() == len(r.buf) {
		r.grow()
	}
	*r.at(r.tail) = e
	if e.droppable {
		r.droppable = append(r.droppable, r.tail)
	}
	r.tail++
	r.live++
}

// pop takes the oldest entry; ok is false where it was a dropped one.
func (r *ring[T]) pop() (e entry[T], ok bool) {
	slot := r.at(r.head)
	e = *slot
	*slot = entry[T]{}
	if e.droppable && len(r.droppable) > 0 && r.droppable[0] == r.head {
		r.droppable = r.droppable[1:]
	}
	r.head++
	if e.dead {
		return e, false
	}
	r.live--
	if r.len() == 0 && len(r.buf) > keepSlots {
		r.buf, r.droppable = nil, nil // a burst must not keep its memory
	}
	return e, true
}

func (r *ring[T]) dropOldest() (e entry[T], ok bool) {
	for len(r.droppable) > 0 {
		pos := r.droppable[0]
		r.droppable = r.droppable[1:]
		if pos < r.head {
			continue
		}
		slot := r.at(pos)
		e = *slot
		*slot = entry[T]{dead: true}
		r.live--
		return e, true
	}
	return e, false
}

const (
	firstSlots = 2
	keepSlots  = 64
)

// grow makes room for another entry and leaves out the dropped ones: however many
// are dropped while nobody pops, the buffer stays within twice what is live.
func (r *ring[T]) grow() {
	bigger := make([]entry[T], max(firstSlots, 2*r.live))
	droppable := make([]uint64, 0, len(r.droppable))
	next := r.tail // new positions, for positions never repeat
	for pos := r.head; pos < r.tail; pos++ {
		e := *r.at(pos)
		if e.dead {
			continue
		}
		bigger[next%uint64(len(bigger))] = e
		if e.droppable {
			droppable = append(droppable, next)
		}
		next++
	}
	r.buf, r.droppable = bigger, droppable
	r.head, r.tail = r.tail, next
}
