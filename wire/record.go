package wire

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// MaxRecord is the largest record in bytes, without its length.
const MaxRecord = 1 << 20

// maxSizeBytes is the longest length of a record: 1,048,576 takes three groups.
const maxSizeBytes = 3

// AppendSize appends the length that stands before a record of n bytes.
func AppendSize(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// SizeLen is the number of bytes AppendSize appends for n.
func SizeLen(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

// ParseSize reads a record's length from the start of b. It returns how many
// bytes the length took, 0 where b ends before it does. Lengths of 0, above
// MaxRecord or not in their shortest form are ErrMalformed.
func ParseSize(b []byte) (size, taken int, err error) {
	for i := range maxSizeBytes {
		if i == len(b) {
			return 0, 0, nil
		}
		size |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			if size == 0 || size > MaxRecord || (i > 0 && b[i] == 0) {
				return 0, 0, fmt.Errorf("%w: record length %d", ErrMalformed, size)
			}
			return size, i + 1, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: record length takes more than %d bytes", ErrMalformed, maxSizeBytes)
}

// Reader reads records from a byte stream. It is for one goroutine.
//
// Size begins a record; then either Record gives the whole of it, or Peek,
// Discard and ReadFull take it in parts.
type Reader struct {
	src        io.Reader
	base       int // size of the buffer between large records
	buf        []byte
	start, end int // what is buffered
	left       int // bytes of the current record not yet taken
}

// NewReader makes a Reader with a buffer of base bytes, at least 64.
func NewReader(src io.Reader, base int) *Reader {
	base = max(base, 64)
	return &Reader{src: src, base: base, buf: make([]byte, base)}
}

// Buffered is the number of bytes read and not yet taken.
func (r *Reader) Buffered() int { return r.end - r.start }

// Size waits for the next record and returns its length; what was left of the
// last one is skipped. The error is io.EOF where the stream ends between two
// records.
func (r *Reader) Size() (int, error) {
	if err := r.Discard(r.left); err != nil {
		return 0, err
	}
	r.shrink()
	for {
		size, taken, err := ParseSize(r.buf[r.start:r.end])
		if err != nil {
			return 0, err
		}
		if taken > 0 {
			r.start += taken
			r.left = size
			return size, nil
		}
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && r.Buffered() > 0 {
				return 0, io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// Record takes the rest of the current record. The bytes hold until the next
// call. The buffer grows with the bytes that arrive, not with what the length
// promised.
func (r *Reader) Record() ([]byte, error) {
	b, err := r.Peek(r.left)
	if err != nil {
		return nil, err
	}
	r.start += r.left
	r.left = 0
	return b, nil
}

// Peek waits for the next n bytes of the current record, or all that are left
// of it, without taking them. The bytes hold until the next call.
func (r *Reader) Peek(n int) ([]byte, error) {
	n = min(n, r.left)
	for r.Buffered() < n {
		if err := r.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
	return r.buf[r.start : r.start+n], nil
}

// Discard skips n bytes of the current record.
func (r *Reader) Discard(n int) error {
	n = min(n, r.left)
	r.left -= n
	for n > r.Buffered() {
		n -= r.Buffered()
		r.start, r.end = 0, 0
		if err := r.fill(); err != nil {
			return unexpected(err)
		}
	}
	r.start += n
	return nil
}

// ReadFull fills dst from the current record, past the buffer where that saves
// a copy. len(dst) must not be more than is left of the record.
func (r *Reader) ReadFull(dst []byte) error {
	if len(dst) > r.left {
		return fmt.Errorf("%w: record is shorter than its parts", ErrMalformed)
	}
	r.left -= len(dst)
	n := copy(dst, r.buf[r.start:r.end])
	r.start += n
	if n == len(dst) {
		return nil
	}
	_, err := io.ReadFull(r.src, dst[n:])
	return unexpected(err)
}

// fill reads once more into the buffer and makes room for it first.
func (r *Reader) fill() error {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.end == len(r.buf) {
		if r.start > 0 {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		} else {
			bigger := make([]byte, min(2*len(r.buf), MaxRecord+r.base))
			copy(bigger, r.buf)
			r.buf = bigger
		}
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// shrink gives back the memory of a large record once it is empty.
func (r *Reader) shrink() {
	if len(r.buf) > r.base && r.start == r.end {
		r.buf = make([]byte, r.base)
		r.start, r.end = 0, 0
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
