package conn

import (
	"encoding/binary"
	"sync"
)

// Sizes of buffers. A class of records has room for a content of a round size and
// the 51 bytes a record adds to it; a class of contents fits them to a sixteenth.
const (
	slack     = 64
	smallest  = 2 << 10
	classes   = 6 // 2 KiB to 64 KiB
	firstKept = 3 // contents are kept from 16 KiB on
	chunkSize = 4 << 10
	smallItem = 1 << 10 // items up to this share a chunk
)

// Buffers keeps memory for contents under way. It is shared by the connections
// of a node.
type Buffers struct {
	large [classes]sync.Pool // of *[]byte, for records
	kept  [classes]sync.Pool // of *[]byte, for contents
	small sync.Pool          // of *chunk with chunkSize bytes
	whole sync.Pool          // of *[]byte, for batches on their way to a carrier
}

// batch gives an empty buffer with room for n bytes.
func (p *Buffers) batch(n int) []byte {
	if b, ok := p.whole.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:0]
	}
	return make([]byte, 0, max(n, 2*batchBytes+slack))
}

// batchDone takes it back; one that was made for a record above the usual is not
// kept.
func (p *Buffers) batchDone(b []byte) {
	if cap(b) <= 2*batchBytes+slack {
		b = b[:0]
		p.whole.Put(&b)
	}
}

// get gives a buffer of n bytes with any content.
func (p *Buffers) get(n int) []byte {
	for i := range p.large {
		size := smallest<<i + slack
		if n > size {
			continue
		}
		if b, ok := p.large[i].Get().(*[]byte); ok {
			return (*b)[:n]
		}
		return make([]byte, n, size)
	}
	return make([]byte, n)
}

// fit gives a buffer of n bytes that is hardly larger, for contents that wait for
// their reader: what they take is bounded by their credit.
func (p *Buffers) fit(n int) []byte {
	for i := firstKept; i < classes; i++ {
		size := smallest << i
		if n > size || n <= size-size/16 {
			continue
		}
		if b, ok := p.kept[i].Get().(*[]byte); ok {
			return (*b)[:n]
		}
		return make([]byte, n, size)
	}
	return make([]byte, n)
}

// put gives a buffer back that get or fit gave; nobody may use it any more.
func (p *Buffers) put(b []byte) {
	for i := range p.large {
		pool := &p.large[i]
		switch cap(b) {
		case smallest<<i + slack:
		case smallest << i:
			if pool = &p.kept[i]; i < firstKept {
				return
			}
		default:
			continue
		}
		b = b[:0]
		pool.Put(&b)
		return
	}
}

// fifo is a queue of byte strings that takes no memory while it is empty and
// little more than the bytes while it is not: small items share a chunk, large
// ones keep the buffer they came in.
type fifo struct {
	head, tail *chunk
	len        int // items
	bytes      int // their bytes
}

type chunk struct {
	next *chunk
	buf  []byte
	read int  // bytes of buf already popped
	one  bool // buf is one large item; otherwise uvarint(length) ‖ item, repeated
}

// push adds a copy of a small item, or a large one as it is: then the queue owns
// the buffer, which came from the pool.
func (q *fifo) push(p *Buffers, item []byte) {
	q.len++
	q.bytes += len(item)
	if len(item) > smallItem {
		q.link(&chunk{buf: item, one: true})
		return
	}
	t := q.tail
	if t == nil || t.one || cap(t.buf)-len(t.buf) < len(item)+binary.MaxVarintLen16 {
		t = p.chunk()
		q.link(t)
	}
	t.buf = binary.AppendUvarint(t.buf, uint64(len(item)))
	t.buf = append(t.buf, item...)
}

// reserve adds a small item of n bytes, which the caller fills in.
func (q *fifo) reserve(p *Buffers, n int) []byte {
	q.len++
	q.bytes += n
	t := q.tail
	if t == nil || t.one || cap(t.buf)-len(t.buf) < n+binary.MaxVarintLen16 {
		t = p.chunk()
		q.link(t)
	}
	t.buf = binary.AppendUvarint(t.buf, uint64(n))
	start := len(t.buf)
	t.buf = t.buf[:start+n]
	return t.buf[start:]
}

// peek gives the oldest item without taking it. The queue must not be empty.
func (q *fifo) peek() (item []byte, large bool) {
	h := q.head
	if h.one {
		return h.buf, true
	}
	n, k := binary.Uvarint(h.buf[h.read:])
	start := h.read + k
	return h.buf[start : start+int(n)], false
}

// drop takes the oldest item away. A large item's buffer is the caller's now; a
// small one has to be copied before.
func (q *fifo) drop(p *Buffers) {
	item, large := q.peek()
	q.len--
	q.bytes -= len(item)
	h := q.head
	if !large {
		_, k := binary.Uvarint(h.buf[h.read:])
		if h.read += k + len(item); h.read < len(h.buf) {
			return
		}
	}
	q.head = h.next
	if q.head == nil {
		q.tail = nil
	}
	if !large {
		p.freeChunk(h)
	}
}

// clear drops everything.
func (q *fifo) clear(p *Buffers) {
	for h := q.head; h != nil; {
		next := h.next
		if h.one {
			p.put(h.buf)
		} else {
			p.freeChunk(h)
		}
		h = next
	}
	*q = fifo{}
}

func (q *fifo) link(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

func (p *Buffers) chunk() *chunk {
	if c, ok := p.small.Get().(*chunk); ok {
		return c
	}
	return &chunk{buf: make([]byte, 0, chunkSize)}
}

func (p *Buffers) freeChunk(c *chunk) {
	c.next, c.buf, c.read = nil, c.buf[:0], 0
	p.small.Put(c)
}
