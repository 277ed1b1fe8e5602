package ws

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// Sizes of the writer.
const (
	stageSize = 16 << 10 // headers and small payloads are joined here
	joinMax   = 2 << 10  // a payload up to this is copied: cheaper than a part of its own
	maxParts  = 256      // parts of one write
	pieceSize = 16 << 10 // how much is written at once where progress can't be seen
)

// Batch gathers frames for one write. It belongs to the writer.
type Batch struct {
	c      *Conn
	parts  [][]byte
	stages []*Buf
	mark   int // where in the last stage the current part begins
	bytes  int
}

// Batch lends an empty batch for c. Only one may be out at a time.
func (c *Conn) Batch() *Batch {
	b, _ := c.mem.batches.Get().(*Batch)
	if b == nil {
		b = &Batch{}
	}
	b.c = c
	if c.prefix != nil {
		copy(b.room(len(c.prefix)), c.prefix)
		c.prefix = nil
	}
	return b
}

// Size is how many bytes Flush will write.
func (b *Batch) Size() int { return b.bytes }

// Full says that the batch should be flushed before more is added.
func (b *Batch) Full() bool { return len(b.parts) >= maxParts-4 }

// Add adds one unfragmented frame. On the server's side a large payload is not
// copied and must stay as it is until Flush has returned. It returns the length
// of the frame.
func (b *Batch) Add(op Opcode, payload []byte) int {
	before := b.bytes
	if b.c.server {
		b.addPlain(op, payload)
	} else {
		b.addMasked(op, payload)
	}
	return b.bytes - before
}

// AddRaw adds bytes that are frames already; they must stay as they are until
// Flush has returned.
func (b *Batch) AddRaw(frames []byte) {
	b.cut()
	b.parts = append(b.parts, frames)
	b.bytes += len(frames)
}

func (b *Batch) addPlain(op Opcode, payload []byte) {
	if len(payload) <= joinMax {
		p := b.room(maxHeader + len(payload))
		n := putHeader(p, op, len(payload), 0)
		copy(p[n:], payload)
		b.back(len(p) - n - len(payload))
		return
	}
	p := b.room(maxHeader)
	b.back(len(p) - putHeader(p, op, len(payload), 0))
	b.AddRaw(payload)
}

func (b *Batch) addMasked(op Opcode, payload []byte) {
	var key [4]byte
	binary.LittleEndian.PutUint32(key[:], rand.Uint32())
	p := b.room(maxHeader + len(payload))
	n := putHeader(p, op, len(payload), 0x80)
	n += copy(p[n:], key[:])
	copy(p[n:], payload)
	mask(p[n:n+len(payload)], key, 0)
	b.back(len(p) - n - len(payload))
}

// room gives n bytes of a stage, as part of the output.
func (b *Batch) room(n int) []byte {
	last := len(b.stages) - 1
	if last < 0 || cap(b.stages[last].b)-len(b.stages[last].b) < n {
		b.cut()
		stage := b.c.mem.Get(max(n, stageSize))
		stage.b = stage.b[:0]
		b.stages, b.mark = append(b.stages, stage), 0
		last = len(b.stages) - 1
	}
	s := b.stages[last]
	start := len(s.b)
	s.b = s.b[:start+n]
	b.bytes += n
	return s.b[start:]
}

// back returns the last n bytes of room.
func (b *Batch) back(n int) {
	s := b.stages[len(b.stages)-1]
	s.b = s.b[:len(s.b)-n]
	b.bytes -= n
}

// cut ends the current part of the last stage.
func (b *Batch) cut() {
	if len(b.stages) == 0 {
		return
	}
	s := b.stages[len(b.stages)-1]
	if len(s.b) > b.mark {
		b.parts = append(b.parts, s.b[b.mark:len(s.b):len(s.b)])
		b.mark = len(s.b)
	}
}

// Flush writes everything and empties the batch, also on failure. progress is
// called after each piece that the connection took, with its length; it may be
// nil. Flush waits as long as the other side takes; closing the connection ends
// it.
func (b *Batch) Flush(progress func(n int)) error {
	_, err := b.flush(progress, true)
	return err
}

// TryFlush is Flush without waiting: false where the connection does not take
// all now, or where that can't be seen. Then the rest is still in the batch, for
// Flush.
func (b *Batch) TryFlush(progress func(n int)) (whole bool, err error) {
	if b.c.raw == nil {
		return false, nil
	}
	return b.flush(progress, false)
}

func (b *Batch) flush(progress func(n int), wait bool) (whole bool, err error) {
	b.cut()
	if progress == nil {
		progress = func(int) {}
	}
	var left [][]byte
	if b.c.raw != nil {
		left, err = b.flushRaw(progress, wait)
	} else {
		err = b.flushPieces(progress)
	}
	if len(left) > 0 && err == nil {
		n := copy(b.parts, left)
		clear(b.parts[n:])
		b.parts = b.parts[:n]
		return false, nil
	}
	clear(b.parts)
	for i, s := range b.stages {
		s.Free()
		b.stages[i] = nil
	}
	b.parts, b.stages, b.mark, b.bytes = b.parts[:0], b.stages[:0], 0, 0
	return true, err
}

// Done gives the batch back; it must be empty.
func (b *Batch) Done() {
	mem := b.c.mem
	b.c = nil
	mem.batches.Put(b)
}

// flushRaw writes and gives what is left: without wait, what does not go now.
func (b *Batch) flushRaw(progress func(int), wait bool) (left [][]byte, err error) {
	left = b.parts
	if len(left) == 0 {
		return nil, nil
	}
	var failed error
	err = b.c.raw.Write(func(fd uintptr) bool {
		for len(left) > 0 {
			n, again, err := writeNow(fd, left[:min(len(left), maxParts)])
			if again {
				return !wait
			}
			if failed = err; err != nil {
				return true
			}
			b.bytes -= n
			progress(n)
			left = advance(left, n)
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return left, err
}

func advance(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if n > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

func (b *Batch) flushPieces(progress func(int)) error {
	for _, p := range b.parts {
		for len(p) > 0 {
			n, err := b.c.nc.Write(p[:min(len(p), pieceSize)])
			if err != nil {
				return err
			}
			progress(n)
			p = p[n:]
		}
	}
	return nil
}

// putHeader writes a frame's header without its mask and returns its length.
func putHeader(p []byte, op Opcode, n int, maskBit byte) int {
	p[0] = 0x80 | byte(op)
	switch {
	case n < 126:
		p[1] = maskBit | byte(n)
		return 2
	case n < 1<<16:
		p[1] = maskBit | 126
		binary.BigEndian.PutUint16(p[2:], uint16(n))
		return 4
	}
	p[1] = maskBit | 127
	binary.BigEndian.PutUint64(p[2:], uint64(n))
	return 10
}

// AppendFrame appends a frame as a server sends it, for AddRaw.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	var h [maxHeader]byte
	n := putHeader(h[:], op, len(payload), 0)
	dst = append(slices.Grow(dst, n+len(payload)), h[:n]...)
	return append(dst, payload...)
}

// ClosePayload is the content of a close frame. CodeNone gives an empty one.
func ClosePayload(code int, reason string) []byte {
	if code == CodeNone {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason[:min(len(reason), 123)]...)
}
