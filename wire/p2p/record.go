package p2p

import (
	"bytes"
	"crypto/ed25519"
	"fmt"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/capr"
	"github.com/parley-p2p/parley/wire/internal/capw"
	"github.com/parley-p2p/parley/wire/internal/p2pcap"
)

// Limits of a record, docs/spec/gossip.md §5.
const (
	MaxRecord   = 256 << 10 // bytes of the canonical form
	MaxTypeHint = 255       // bytes
)

// Record is one aspect as it is signed and stored. Its bytes are the canonical
// form without a segment table; they are frozen, so every record has one form.
type Record struct {
	TypeHint  string
	PublishMs uint64
	Body      []byte
	Author    [ed25519.PublicKeySize]byte
	Signature [ed25519.SignatureSize]byte
}

// AppendRecord appends the bytes of r. It checks no limit.
func AppendRecord(dst []byte, r *Record) []byte {
	w := capw.Begin(nil)
	p := w.Struct(0, 4, capw.Trim(r.PublishMs)...)
	w.Text(p, r.TypeHint)
	if len(r.Body) > 0 {
		w.Data(p+1, r.Body)
	}
	w.Data(p+2, r.Author[:])
	w.Data(p+3, r.Signature[:])
	return append(dst, w.Segment()...)
}

// ParseRecord reads the bytes of a record. Bytes that AppendRecord would not
// have written are wire.ErrMalformed. The body is a part of raw.
func ParseRecord(raw []byte) (Record, error) {
	if len(raw) > MaxRecord || len(raw)%8 != 0 {
		return Record{}, fmt.Errorf("%w: record of %d bytes", wire.ErrMalformed, len(raw))
	}
	d, err := openSegment(raw)
	if err != nil {
		return Record{}, err
	}
	s := p2pcap.AspectRecord(d.s)
	r := Record{TypeHint: d.text(0), PublishMs: s.PublishTs(), Body: d.data(1)}
	author, signature := d.data(2), d.data(3)
	if d.err != nil {
		return Record{}, d.err
	}
	if len(author) != len(r.Author) || len(signature) != len(r.Signature) || len(r.TypeHint) > MaxTypeHint {
		return Record{}, fmt.Errorf("%w: record with parts of a wrong length", wire.ErrMalformed)
	}
	copy(r.Author[:], author)
	copy(r.Signature[:], signature)
	if !bytes.Equal(AppendRecord(nil, &r), raw) {
		return Record{}, fmt.Errorf("%w: record is not in canonical form", wire.ErrMalformed)
	}
	return r, nil
}

// openSegment opens a message that comes without its segment table.
func openSegment(segment []byte) (*decoder, error) {
	r, root, err := capr.OpenSegment(segment)
	if err != nil {
		return nil, err
	}
	return &decoder{Reader: r, s: root}, nil
}
