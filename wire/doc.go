// Package wire frames and bounds what channels and gossip put on a connection
// (docs/spec/channels.md §2). A connection carries records, a record one Cap'n
// Proto message:
//
//	record  = uvarint(length) ‖ message            on a byte stream
//	message = segment table ‖ segments             Unpacked, the default
//	          the same, zero bytes squeezed out    Packed, for peers that know no other
//
// The messages themselves are in two packages: wire/mux has those of a
// connection, wire/p2p those inside a space's system channel. Both give plain Go
// structs; the Cap'n Proto library never shows. Everything here bounds what it
// reads before it allocates for it.
package wire

import "errors"

// ErrMalformed is in the chain of every error about bytes that can't be read.
var ErrMalformed = errors.New("malformed message")

// Encoding is how the messages of a connection are written.
type Encoding uint8

// The encodings.
const (
	Unpacked Encoding = iota
	Packed
)

// String is the encoding's name.
func (e Encoding) String() string {
	if e == Packed {
		return "packed"
	}
	return "unpacked"
}

//go:generate ./internal/gen.sh
