// Package capr reads Cap'n Proto structs with the checks the library leaves
// out (docs/spec/channels.md §15): a pointer of the wrong kind and a text without
// its closing zero are errors, and one record can't make a reader visit more
// than four times its words, nest deeper than sixteen, or allocate without end.
package capr

import (
	"fmt"

	"capnproto.org/go/capnp/v3"

	"github.com/parley-p2p/parley/wire"
)

const (
	traverseFactor = 4  // words visited, as a multiple of the message
	maxDepth       = 16 // pointers followed one inside the other
)

// Struct is a struct of a message that is being read. A null one reads as all
// defaults.
type Struct = capnp.Struct

// Reader reads one message.
type Reader struct {
	budget int // bytes the reader may still allocate for slices
}

// Open checks the bounds of an unpacked message and gives its root struct.
func Open(raw []byte) (Reader, Struct, error) {
	table, segments, err := wire.CheckUnpacked(raw)
	if err != nil {
		return Reader{}, Struct{}, err
	}
	return open(arena(raw, table, segments), len(raw))
}

// OpenSegment is Open for a single segment without a segment table.
func OpenSegment(segment []byte) (Reader, Struct, error) {
	if len(segment) == 0 || len(segment) > wire.MaxRecord || len(segment)%8 != 0 {
		return Reader{}, Struct{}, fmt.Errorf("%w: segment of %d bytes", wire.ErrMalformed, len(segment))
	}
	return open(capnp.SingleSegment(segment[:len(segment):len(segment)]), len(segment))
}

func open(a capnp.Arena, size int) (Reader, Struct, error) {
	msg := &capnp.Message{Arena: a, TraverseLimit: uint64(traverseFactor * size), DepthLimit: maxDepth}
	r := Reader{budget: 3*size + 16<<10}
	root, err := msg.Root()
	if err != nil {
		return r, Struct{}, malformed(err)
	}
	s, err := asStruct(root)
	return r, s, err
}

func arena(raw []byte, table, segments int) capnp.Arena {
	body := raw[table:]
	if segments == 1 {
		return capnp.SingleSegment(body[:len(body):len(body)])
	}
	parts := make([][]byte, segments)
	for i := range parts {
		n := 8 * int(wire.SegmentWords(raw, i))
		parts[i], body = body[:n:n], body[n:]
	}
	return capnp.MultiSegment(parts)
}

// Sub gives the struct at pointer i; ok is false for a null pointer.
func (r *Reader) Sub(s Struct, i uint16) (sub Struct, ok bool, err error) {
	p, err := s.Ptr(i)
	if err != nil {
		return Struct{}, false, malformed(err)
	}
	sub, err = asStruct(p)
	return sub, p.IsValid() && err == nil, err
}

// Data gives the bytes at pointer i, a part of the message itself; nil for a
// null pointer.
func (r *Reader) Data(s Struct, i uint16) ([]byte, error) {
	p, err := s.Ptr(i)
	if err != nil {
		return nil, malformed(err)
	}
	return asData(p)
}

// Text gives the text at pointer i without its closing zero.
func (r *Reader) Text(s Struct, i uint16) (string, error) {
	p, err := s.Ptr(i)
	if err != nil {
		return "", malformed(err)
	}
	if !p.IsValid() {
		return "", nil
	}
	b := p.TextBytes()
	if b == nil {
		return "", fmt.Errorf("%w: text does not end with a zero byte", wire.ErrMalformed)
	}
	if err := r.spend(len(b)); err != nil {
		return "", err
	}
	return string(b), nil
}

// List gives the list at pointer i and its length, after taking
// elementSize bytes for each of its elements out of the reader's allowance.
func (r *Reader) List(s Struct, i uint16, elementSize int) (capnp.List, int, error) {
	p, err := s.Ptr(i)
	if err != nil {
		return capnp.List{}, 0, malformed(err)
	}
	if !p.IsValid() {
		return capnp.List{}, 0, nil
	}
	l := p.List()
	if !l.IsValid() || l.Len() < 0 {
		return capnp.List{}, 0, fmt.Errorf("%w: no list where one belongs", wire.ErrMalformed)
	}
	if l.Len() > 0 && !l.Struct(0).IsValid() {
		return capnp.List{}, 0, fmt.Errorf("%w: a list of bits where structs or pointers belong", wire.ErrMalformed)
	}
	if err := r.spend(l.Len() * elementSize); err != nil {
		return capnp.List{}, 0, err
	}
	return l, l.Len(), nil
}

// Bytes reads a list of Data at pointer i. The elements are parts of the message.
func (r *Reader) Bytes(s Struct, i uint16) ([][]byte, error) {
	const sliceHeader = 24
	l, n, err := r.List(s, i, sliceHeader)
	if err != nil || n == 0 {
		return nil, err
	}
	out := make([][]byte, n)
	for k := range out {
		p, err := capnp.PointerList(l).At(k)
		if err != nil {
			return nil, malformed(err)
		}
		if out[k], err = asData(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *Reader) spend(n int) error {
	if n > r.budget {
		return fmt.Errorf("%w: its lists need more memory than its size allows", wire.ErrMalformed)
	}
	r.budget -= n
	return nil
}

func asStruct(p capnp.Ptr) (Struct, error) {
	s := p.Struct()
	if p.IsValid() && !s.IsValid() {
		return Struct{}, fmt.Errorf("%w: no struct where one belongs", wire.ErrMalformed)
	}
	return s, nil
}

func asData(p capnp.Ptr) ([]byte, error) {
	b := p.Data()
	if p.IsValid() && b == nil {
		return nil, fmt.Errorf("%w: no bytes where they belong", wire.ErrMalformed)
	}
	return b[:len(b):len(b)], nil
}

func malformed(err error) error { return fmt.Errorf("%w: %w", wire.ErrMalformed, err) }
