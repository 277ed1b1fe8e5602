// Package p2p has the messages inside a space's system channel, docs/spec/gossip.md
// §2, as plain Go values, and the signed record of an aspect (§5).
//
//	switch m, err := p2p.Decode(content); m := m.(type) {
//	case *p2p.Handshake: …
//	case *p2p.Ping: …
//	case *p2p.Other: // unknown, or without its struct
//	}
//
// What Append writes is the canonical form: zero words and null pointers at the
// end of a struct are left out, and a peer with an older schema reads it all the
// same.
package p2p

// Kind is the tag of a message's union.
type Kind uint16

// The kinds. Those from KindRecRoot on are parley's additions.
const (
	KindError              Kind = 0
	KindHandshake          Kind = 1
	KindArcRequest         Kind = 2
	KindArcResponse        Kind = 3
	KindAspectDataRequest  Kind = 4
	KindAspectDataResponse Kind = 5
	KindAspectBroadcast    Kind = 6
	KindDirectRequest      Kind = 7
	KindDirectResponse     Kind = 8
	KindQueryRequest       Kind = 9
	KindQueryResponse      Kind = 10
	KindPing               Kind = 11
	KindPong               Kind = 12
	KindRecRoot            Kind = 13
	KindRecSketch          Kind = 14
	KindRecWant            Kind = 15
	KindRecBusy            Kind = 16
	KindRecBookmark        Kind = 17
)

// Known reports whether the kind is one of the above.
func (k Kind) Known() bool { return k <= KindRecBookmark }

// Message is one of the pointer types of this package. Byte slices of a decoded
// message are parts of the content it came from. In slices, nil is a null
// pointer on the wire and means the same as empty.
type Message interface{ Kind() Kind }

// Error says that something failed; its only code is unknown.
type Error struct{ Text string }

// Handshake tells the sender's arcs, by radius (gossip.md §3, §4).
type Handshake struct {
	StoreRadius, QueryRadius uint32
	Features                 uint64
}

// Arc is a piece of the circle, from Start up to and without End; Start equal
// to End is the whole circle.
type Arc struct{ Start, End uint32 }

// Group is an entry with hashes or records of its aspects.
type Group struct {
	Entry []byte
	Items [][]byte
}

// GspArc lists the hashes held within limits; a nil limit limits nothing.
type GspArc struct {
	Response bool
	Arc      *Arc
	Time     *uint64 // published at or after, in milliseconds
	Count    *uint64 // the sender's own index at or after
	Hashes   []Group
}

// AspectDataRequest asks for aspects by hash.
type AspectDataRequest struct{ Hashes []Group }

// AspectData carries records: an answer, or unasked as a broadcast.
type AspectData struct {
	Broadcast bool
	Records   []Group
}

// Direct is a question to an agent, or its answer.
type Direct struct {
	Response  bool
	RequestID string
	Data      []byte
}

// Query is a question about an entry, or its answer.
type Query struct {
	Response  bool
	RequestID string
	Entry     []byte
	Data      []byte
}

// Ping asks for a Pong; the time is the sender's own.
type Ping struct{ SentMs uint64 }

// Pong answers a Ping with its time, and tells the own.
type Pong struct{ PingSentMs, ReceivedMs uint64 }

// RecRoot compares the sums of two stores (gossip.md §7.2).
type RecRoot struct {
	Round          uint32
	State          uint16 // 0 ask, 1 same, 2 differ, 3 probe
	RootLo, RootHi uint64
	Count          uint64
	Salt           []byte
	Pieces         []Arc
}

// RecSketch carries cells of a sketch (§7.3).
type RecSketch struct {
	Round, Hour, First uint32
	Count              uint64
	RootLo, RootHi     uint64
	Cells              []byte
}

// RecWant asks for cells, data or lists (§7.1, §7.3, §7.4).
type RecWant struct {
	Round, CellsTo   uint32
	Want, Have, List []byte
	ListArc          *Arc
	Bits, ListAfter  []byte
	ListMore         bool
}

// RecBusy ends a round (§7.6).
type RecBusy struct {
	Round, RetryMs uint32
	Reason         uint16 // 0 busy, 1 salt, 2 hour, 3 arc, 4 round
}

// RecBookmark carries new hashes since a mark, or a mark (§7.1).
type RecBookmark struct {
	Round             uint32
	Reply             bool
	Epoch, From, Next uint64
	AckEpoch, AckNext uint64
	Hashes            []byte
}

// Other stands for a message of a kind that is not known, or that came without
// its struct. It can't be encoded.
type Other struct {
	Tag     Kind
	Missing bool // known, but its struct was a null pointer
}

// Kind is the tag of the union.
func (*Error) Kind() Kind { return KindError }

// Kind is the tag of the union.
func (*Handshake) Kind() Kind { return KindHandshake }

// Kind is the tag of the union.
func (m *GspArc) Kind() Kind { return pick(m.Response, KindArcRequest, KindArcResponse) }

// Kind is the tag of the union.
func (*AspectDataRequest) Kind() Kind { return KindAspectDataRequest }

// Kind is the tag of the union.
func (m *AspectData) Kind() Kind {
	return pick(m.Broadcast, KindAspectDataResponse, KindAspectBroadcast)
}

// Kind is the tag of the union.
func (m *Direct) Kind() Kind { return pick(m.Response, KindDirectRequest, KindDirectResponse) }

// Kind is the tag of the union.
func (m *Query) Kind() Kind { return pick(m.Response, KindQueryRequest, KindQueryResponse) }

// Kind is the tag of the union.
func (*Ping) Kind() Kind { return KindPing }

// Kind is the tag of the union.
func (*Pong) Kind() Kind { return KindPong }

// Kind is the tag of the union.
func (*RecRoot) Kind() Kind { return KindRecRoot }

// Kind is the tag of the union.
func (*RecSketch) Kind() Kind { return KindRecSketch }

// Kind is the tag of the union.
func (*RecWant) Kind() Kind { return KindRecWant }

// Kind is the tag of the union.
func (*RecBusy) Kind() Kind { return KindRecBusy }

// Kind is the tag of the union.
func (*RecBookmark) Kind() Kind { return KindRecBookmark }

// Kind is the tag of the union.
func (m *Other) Kind() Kind { return m.Tag }

func pick(second bool, a, b Kind) Kind {
	if second {
		return b
	}
	return a
}
