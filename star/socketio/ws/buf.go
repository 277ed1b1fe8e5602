package ws

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Memory lends buffers and counts what is lent. It is safe for any number of
// goroutines. The zero Memory is ready to use.
type Memory struct {
	used  atomic.Int64
	pools [classes]sync.Pool // of *Buf; one for each size

	batches sync.Pool // of *Batch
}

// Sizes go by powers of two from 256 bytes to 1 MiB, each with room for a header
// and the type byte, so that 64 KiB of data do not need 128. Larger buffers are
// made and forgotten.
const (
	minBits = 8
	maxBits = 20
	classes = maxBits - minBits + 1
	spare   = 64
)

// Buf is a buffer that one owner holds. The owner frees it, once.
type Buf struct {
	b   []byte
	mem *Memory
}

// Get lends a buffer of length n. Its content is not cleared.
func (m *Memory) Get(n int) *Buf {
	class := max(bits.Len(uint(max(n-spare, 1)-1)), minBits) - minBits
	if class >= classes {
		m.used.Add(int64(n))
		return &Buf{b: make([]byte, n), mem: m}
	}
	buf, _ := m.pools[class].Get().(*Buf)
	if buf == nil {
		buf = &Buf{b: make([]byte, 1<<(class+minBits)+spare), mem: m}
	}
	buf.b = buf.b[:n]
	m.used.Add(int64(cap(buf.b)))
	return buf
}

// Copy lends a buffer that holds the parts, one behind the other.
func (m *Memory) Copy(parts ...[]byte) *Buf {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	buf := m.Get(n)
	b := buf.b[:0]
	for _, p := range parts {
		b = append(b, p...)
	}
	return buf
}

// Used is how many bytes are lent now, counted by the size of the buffers.
func (m *Memory) Used() int64 { return m.used.Load() }

// Bytes is the content. It must not be used after Free.
func (b *Buf) Bytes() []byte { return b.b }

// Trim cuts the content to its first n bytes.
func (b *Buf) Trim(n int) { b.b = b.b[:n] }

// Size is what the buffer takes, at least its length.
func (b *Buf) Size() int { return cap(b.b) }

// Free gives the buffer back. A nil Buf may be freed.
func (b *Buf) Free() {
	if b == nil {
		return
	}
	b.mem.used.Add(-int64(cap(b.b)))
	if class := bits.Len(uint(cap(b.b)-spare-1)) - minBits; cap(b.b)-spare == 1<<max(class+minBits, 0) && class < classes {
		b.mem.pools[class].Put(b)
	}
}
