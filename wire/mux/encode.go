package mux

import (
	"encoding/binary"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/capw"
)

// Append appends m as an unpacked message.
func Append(dst []byte, m *Message) []byte {
	switch m.Kind {
	case Close, RelayRequest, RelayAccept:
		return appendShort(dst, m.Kind, m.Channel)
	case Content:
		return appendContent(dst, m.Channel, m.Content)
	case Window:
		return appendWindow(dst, m.Channel, m.Window, m.Proof)
	}
	w := capw.Begin(dst)
	root := w.Struct(0, 1, uint64(m.Kind))
	switch m.Kind {
	case Error:
		p := w.Struct(root, 1, uint64(m.Channel)|uint64(m.Code)<<32)
		w.Text(p, m.Text)
	case Create:
		p := w.Struct(root, 4, uint64(m.Channel)|uint64(m.Window)<<32, uint64(m.Hops))
		w.Data(p, m.SpaceHash)
		w.Data(p+1, m.To)
		w.Data(p+2, m.From)
		w.Data(p+3, m.Proof)
	case RelayTerms:
		w.Struct(root, 0, m.Terms.ExpireMs, uint64(m.Terms.MaxCircuits), m.Terms.MaxBytes, m.Terms.MaxMs)
	case Hello:
		h := &m.Hello
		p := w.Struct(root, 1, h.Features, uint64(h.InitialWindow)|uint64(h.MaxContent)<<32, uint64(h.MaxChannels))
		w.Data(p, h.Nonce)
	}
	return w.Finish()
}

// AppendRecord appends m as one record of a byte stream: its length, then the
// message in encoding e.
func AppendRecord(dst []byte, e wire.Encoding, m *Message) []byte {
	if e == wire.Unpacked && m.Kind == Content {
		return AppendContentRecord(dst, m.Channel, m.Content)
	}
	const gap = 3 // the longest length
	start := len(dst)
	dst = Append(append(dst, 0, 0, 0), m)
	body := dst[start+gap:]
	if e == wire.Packed {
		body = wire.Pack(nil, body)
	}
	dst = wire.AppendSize(dst[:start], len(body))
	return append(dst, body...) // body lies behind or elsewhere, never before
}

// AppendContentRecord is AppendRecord for an unpacked Content.
func AppendContentRecord(dst []byte, channel uint32, content []byte) []byte {
	dst = wire.AppendSize(dst, ContentSize(len(content)))
	return appendContent(dst, channel, content)
}

// OpenContentRecord writes the record of an unpacked Content of n bytes over rec,
// which is ContentRecordSize(n) long, but for the content: that is returned, for
// the caller to fill in.
func OpenContentRecord(rec []byte, channel uint32, n int) (content []byte) {
	start := len(appendHead(wire.AppendSize(rec[:0], ContentSize(n)), Content, uint64(channel), n))
	clear(rec[start+n:])
	return rec[start : start+n : start+n]
}

// ContentRecordSize is the number of bytes AppendContentRecord appends for a
// content of n bytes.
func ContentRecordSize(n int) int {
	size := ContentSize(n)
	return wire.SizeLen(size) + size
}

// Readdress gives the record of an unpacked Content in its usual layout another
// channel.
func Readdress(record []byte, channel uint32) {
	_, taken, err := wire.ParseSize(record)
	if err == nil && len(record) >= taken+contentHead {
		binary.LittleEndian.PutUint32(record[taken+32:], channel)
	}
}

// ContentSize is the size in bytes of an unpacked Content message of n bytes.
func ContentSize(n int) int { return contentHead + (n+7)&^7 }

// contentHead is the length of everything before the bytes of a content.
const contentHead = 48

const (
	rootPointer   = 0x0001_0001_0000_0000 // the root struct follows: one word, one pointer
	structPointer = 0x0001_0001_0000_0000 // the payload follows: one word, one pointer
	listPointer   = 0x0000_0002_0000_0001 // bytes follow; their number is in bits 35 and up
)

// appendShort appends a message that is its root struct alone.
func appendShort(dst []byte, k Kind, value uint32) []byte {
	if k != Close {
		value = 0
	}
	dst = appendWord(dst, 3<<32)
	dst = appendWord(dst, rootPointer)
	dst = appendWord(dst, uint64(k)|uint64(value)<<32)
	return appendWord(dst, 0)
}

func appendContent(dst []byte, channel uint32, content []byte) []byte {
	dst = appendHead(dst, Content, uint64(channel), len(content))
	if content == nil {
		clear(dst[len(dst)-8:]) // null
	}
	dst = append(dst, content...)
	return append(dst, zeros[:-len(content)&7]...)
}

func appendWindow(dst []byte, channel, add uint32, proof []byte) []byte {
	dst = appendHead(dst, Window, uint64(channel)|uint64(add)<<32, len(proof))
	if proof == nil {
		clear(dst[len(dst)-8:]) // null
	}
	dst = append(dst, proof...)
	return append(dst, zeros[:-len(proof)&7]...)
}

// appendHead appends the 48 bytes before n bytes of the kinds whose struct is
// one word and one list of bytes.
func appendHead(dst []byte, k Kind, word uint64, n int) []byte {
	dst = appendWord(dst, uint64(5+(n+7)/8)<<32)
	dst = appendWord(dst, rootPointer)
	dst = appendWord(dst, uint64(k))
	dst = appendWord(dst, structPointer)
	dst = appendWord(dst, word)
	return appendWord(dst, listPointer|uint64(n)<<35)
}

func appendWord(dst []byte, w uint64) []byte { return binary.LittleEndian.AppendUint64(dst, w) }

var zeros [8]byte
