// Package mux has the messages of a multiplexed connection, docs/spec/channels.md
// §3, as plain Go values:
//
//	Error 0 ─ Create 1 ─ Close 2 ─ Content 3 ─ RelayRequest 4 ─ RelayAccept 5
//	Window 6 ─ RelayTerms 7 ─ Hello 8                         parley's additions
//
// Decode reads any layout that Cap'n Proto allows. The messages that come most
// often, 2 to 6, also have a decoder and an encoder for their usual layout,
// which a test holds to the generated code.
package mux

import (
	"fmt"

	"github.com/parley-p2p/parley/wire"
)

// Kind is the tag of a message's union.
type Kind uint16

// The kinds, with the fields of Message that each one uses.
const (
	Error        Kind = 0 // Channel, Code, Text
	Create       Kind = 1 // Channel, SpaceHash, To, From, Proof, Window, Hops
	Close        Kind = 2 // Channel
	Content      Kind = 3 // Channel, Content
	RelayRequest Kind = 4 // none
	RelayAccept  Kind = 5 // none
	Window       Kind = 6 // Channel, Window, Proof
	RelayTerms   Kind = 7 // Terms
	Hello        Kind = 8 // Hello
)

// Known reports whether the kind is one of the above.
func (k Kind) Known() bool { return k <= Hello }

// needsStruct reports whether a null struct makes no sense for the kind.
func (k Kind) needsStruct() bool {
	return k.Known() && k != Close && k != RelayRequest && k != RelayAccept
}

// WholeConnection is the channel id of an error that is not about one channel.
const WholeConnection uint32 = 0xffff_ffff

// Code is what went wrong, docs/spec/channels.md §10.
type Code uint16

// The codes. Those from Limit on are parley's additions.
const (
	Unknown      Code = 0
	BadChannelID Code = 1
	BadSpaceHash Code = 2
	BadToID      Code = 3
	BadFromID    Code = 4
	Limit        Code = 5
	RelayRefused Code = 6
	RelayExpired Code = 7
)

var codeNames = [...]string{"unknown", "badChannelId", "badSpaceHash", "badToId", "badFromId", "limit", "relayRefused", "relayExpired"}

// String is the code's name in the schema.
func (c Code) String() string {
	if int(c) >= len(codeNames) {
		return codeNames[Unknown]
	}
	return codeNames[c]
}

// Message is one message of a connection. Which fields count depends on the
// kind. Byte slices of a decoded message are parts of the record.
type Message struct {
	Kind    Kind
	Missing bool // the struct of this kind was a null pointer

	Channel   uint32
	Code      Code
	Text      string
	SpaceHash []byte
	To, From  []byte
	Proof     []byte // fromProof of Create, toProof of Window
	Window    uint32 // credit in bytes: of Create in all, of Window to add
	Hops      uint8
	Content   []byte
	Terms     Terms
	Hello     Parameters
}

// Terms are the limits of a relay contract; 0 means none, except for MaxCircuits.
type Terms struct {
	ExpireMs    uint64 // from now
	MaxCircuits uint32
	MaxBytes    uint64 // per bridge and direction
	MaxMs       uint64 // per bridge
}

// Parameters is what an endpoint says of itself in its first record; 0 stands
// for the default of docs/spec/channels.md §3.
type Parameters struct {
	Nonce         []byte
	Features      uint64
	InitialWindow uint32
	MaxContent    uint32
	MaxChannels   uint32
}

// Bits of Parameters.Features.
const (
	FeatureFlow    = 1 << 0 // flow control
	FeatureProofs  = 1 << 1 // proofs of identity
	FeatureRelay   = 1 << 2 // the relay extension is understood
	FeatureRelayer = 1 << 3 // relay service is offered
)

// Check refuses what decodes but means nothing: the null struct of a kind that
// needs one (docs/spec/channels.md §14).
func (m *Message) Check() error {
	if m.Missing && m.Kind.needsStruct() {
		return fmt.Errorf("%w: kind %d without its struct", wire.ErrMalformed, m.Kind)
	}
	return nil
}
