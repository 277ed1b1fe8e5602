// Package capw writes Cap'n Proto messages of one segment. Objects stand in the
// order of the calls, so whoever writes depth first and trims what is zero at
// the end of a struct writes the canonical form.
package capw

import "encoding/binary"

// Writer appends one message to Buf. Positions are of words in the segment;
// word 0 is the root pointer.
type Writer struct {
	Buf  []byte
	base int // where the segment begins in Buf
}

// Begin starts a message behind dst: its segment table and the root pointer.
func Begin(dst []byte) Writer {
	dst = append(dst, make([]byte, 16)...)
	return Writer{Buf: dst, base: len(dst) - 8}
}

// Finish fills in the segment table and gives the bytes.
func (w *Writer) Finish() []byte {
	binary.LittleEndian.PutUint32(w.Buf[w.base-4:], uint32(w.words()))
	return w.Buf
}

// Segment is the message without its segment table.
func (w *Writer) Segment() []byte { return w.Buf[w.base:] }

// Struct writes a struct with these data words and pointers null pointers, and
// points the pointer at position from to it. It returns the position of the
// first of its pointers.
func (w *Writer) Struct(from, pointers int, data ...uint64) int {
	if len(data)+pointers == 0 {
		w.put(from, 0xffff_fffc) // offset -1 keeps an empty struct from looking like null
		return 0
	}
	w.pointer(from, uint64(len(data))<<32|uint64(pointers)<<48)
	for _, d := range data {
		w.Buf = binary.LittleEndian.AppendUint64(w.Buf, d)
	}
	first := w.words()
	w.zero(pointers)
	return first
}

// Data writes bytes; nil leaves the pointer null, other empty bytes don't.
func (w *Writer) Data(from int, b []byte) {
	if b == nil {
		return
	}
	w.pointer(from, 1|byteList(len(b)))
	w.Buf = append(w.Buf, b...)
	w.pad(len(b))
}

// Text writes a text and its closing zero; an empty one leaves the pointer null.
func (w *Writer) Text(from int, s string) {
	if s == "" {
		return
	}
	w.pointer(from, 1|byteList(len(s)+1))
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, 0)
	w.pad(len(s) + 1)
}

// Pointers writes a list of n null pointers and returns the position of the
// first.
func (w *Writer) Pointers(from, n int) int {
	const pointerElements = 6
	w.pointer(from, 1|pointerElements<<32|uint64(n)<<35)
	first := w.words()
	w.zero(n)
	return first
}

// Structs writes a list of n structs of zeros, each of data words and pointers,
// and returns the position of the first word of the first.
func (w *Writer) Structs(from, n, data, pointers int) int {
	const composite = 7
	size := data + pointers
	w.pointer(from, 1|composite<<32|uint64(n*size)<<35)
	tag := uint64(uint32(n<<2)) | uint64(data)<<32 | uint64(pointers)<<48
	w.Buf = binary.LittleEndian.AppendUint64(w.Buf, tag)
	first := w.words()
	w.zero(n * size)
	return first
}

// Word sets the word at a position.
func (w *Writer) Word(at int, v uint64) { w.put(at, v) }

// Trim drops zero words from the end of data, for the canonical form.
func Trim(data ...uint64) []uint64 {
	for len(data) > 0 && data[len(data)-1] == 0 {
		data = data[:len(data)-1]
	}
	return data
}

func (w *Writer) words() int { return (len(w.Buf) - w.base) / 8 }

// pointer sets the pointer at from so that it leads to the end of the segment.
func (w *Writer) pointer(from int, kind uint64) {
	w.put(from, kind|uint64(uint32(w.words()-from-1)<<2))
}

func (w *Writer) put(at int, v uint64) {
	binary.LittleEndian.PutUint64(w.Buf[w.base+8*at:], v)
}

func (w *Writer) zero(words int) {
	for range words {
		w.Buf = append(w.Buf, 0, 0, 0, 0, 0, 0, 0, 0)
	}
}

func (w *Writer) pad(n int) {
	for ; n%8 != 0; n++ {
		w.Buf = append(w.Buf, 0)
	}
}

func byteList(n int) uint64 {
	const byteElements = 2
	return byteElements<<32 | uint64(n)<<35
}
