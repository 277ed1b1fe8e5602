package peer

// deque is a growing circular buffer. The zero deque is empty.
type deque[T any] struct {
	buf  []T
	head int
	n    int
}

// keepSlots is what an empty deque may keep; a burst must not keep its memory.
const keepSlots = 64

func (d *deque[T]) len() int { return d.n }

// at gives the i-th from the front.
func (d *deque[T]) at(i int) T { return d.buf[(d.head+i)&(len(d.buf)-1)] }

func (d *deque[T]) push(v T) {
	d.room()
	d.buf[(d.head+d.n)&(len(d.buf)-1)] = v
	d.n++
}

func (d *deque[T]) pushFront(v T) {
	d.room()
	d.head = (d.head - 1) & (len(d.buf) - 1)
	d.buf[d.head] = v
	d.n++
}

func (d *deque[T]) pop() T {
	var zero T
	v := d.buf[d.head]
	d.buf[d.head] = zero
	d.head = (d.head + 1) & (len(d.buf) - 1)
	d.n--
	d.shrink()
	return v
}

func (d *deque[T]) popBack() T {
	var zero T
	i := (d.head + d.n - 1) & (len(d.buf) - 1)
	v := d.buf[i]
	d.buf[i] = zero
	d.n--
	d.shrink()
	return v
}

func (d *deque[T]) shrink() {
	if d.n == 0 && len(d.buf) > keepSlots {
		d.buf, d.head = nil, 0
	}
}

// room doubles the buffer when it is full; its length is a power of two.
func (d *deque[T]) room() {
	if d.n < len(d.buf) {
		return
	}
	bigger := make([]T, max(8, 2*len(d.buf)))
	for i := range d.n {
		bigger[i] = d.at(i)
	}
	d.buf, d.head = bigger, 0
}
