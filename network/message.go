package network

import (
	"context"

	"github.com/parley-p2p/parley/identity"
)

// ContentType says what the bytes of a Content are. Its number is on the wire
// (gateway.md §5.4).
type ContentType uint8

// The content types.
const (
	JSON  ContentType = 0 // one JSON value as text
	Bytes ContentType = 1 // plain bytes
	CBOR  ContentType = 2 // one CBOR item
)

// Content is what a page sends: bytes and what they are. Whoever receives a
// Content must not change Data.
type Content struct {
	Type ContentType
	Data []byte
}

// Level says how far a message has come when its acknowledgement is given. Its
// number is on the wire.
type Level uint8

// The levels, each including those before it.
const (
	Queued    Level = 0 // in the sender's outbox
	Delivered Level = 1 // the other node has put it into the other page's session
	Handled   Level = 2 // the other page's handler returned
	Stored    Level = 3 // fsynced by the other side
)

// String is the level's name, as pages see it.
func (l Level) String() string {
	switch l {
	case Queued:
		return "queued"
	case Delivered:
		return "delivered"
	case Handled:
		return "handled"
	case Stored:
		return "stored"
	}
	return "unknown"
}

// Outgoing is a message on its way out.
type Outgoing struct {
	To       identity.PeerID
	Protocol Protocol
	Content  Content
	Level    Level // Done is called when this level is reached, or can't be
	Reply    bool  // the sender waits for a reply; implies Handled

	// Wait says what happens when the outbox of (To, Protocol) is full: true
	// queues behind it without a bound of its own, so the caller must bound what
	// it has unsettled, for level Queued too: Done waits for room then; false
	// refuses with CodeQueueFull.
	Wait bool

	// More says that another message follows at once, so that it may be joined
	// with this one.
	More bool

	// Done is called exactly once, from any goroutine, and maybe before Send has
	// returned; for Level Queued by Send itself where the outbox has room. It must
	// not block.
	Done func(Outcome)
}

// Outcome is how a message ended.
type Outcome struct {
	Level Level    // the level that was reached; may be below the wanted one where the other side knows no more
	Reply *Content // the reply, if one was asked for
	Err   error    // an *identity.Error; nil when the level was reached
}

// Delivery is a message that came in. Whoever received it settles it once, by
// Handled, Reply or Refuse; later calls do nothing. None of them waits for the
// other side. Credit for more flows back to the sender when it is settled.
type Delivery interface {
	From() identity.PeerID
	Protocol() Protocol
	Content() Content
	WantsReply() bool

	Handled()        // the handler returned
	Reply(c Content) // the handler returned an answer to a request
	Refuse(err error)
}

// Lone is a Delivery that knows whether its sender has nothing else on the way to
// this receiver. Such a message is best passed on at once; others are cheaper
// together with those around them.
type Lone interface {
	Lone() bool
}

// Receiver takes the messages of one session of a peer.
type Receiver interface {
	// Receive takes d and so makes it delivered. It blocks while there is no
	// room, which slows the sender; ctx ends when the wait is pointless. An error
	// means d was not taken.
	Receive(ctx context.Context, d Delivery) error

	// SettlesDeliveries is true where the receiver settles each delivery itself
	// (a v2 page), false where taking it is all that will ever be known (a v1
	// page): such a delivery counts as settled at level Delivered once taken.
	SettlesDeliveries() bool
}

// Publication is a message of a topic.
type Publication struct {
	Topic   string
	From    identity.PeerID
	Content Content // JSON, except between v2 pages of one node
}

// Member is a peer that is present in a topic.
type Member struct {
	Peer  identity.PeerID
	State []byte // what the member says of itself, one CBOR item; empty for none
}
