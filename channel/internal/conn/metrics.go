package conn

import "sync/atomic"

// Metrics counts for all connections of a node. All fields may be read at any
// time.
type Metrics struct {
	Connections   atomic.Int64 // open now
	Channels      atomic.Int64 // open now, both ends of a local one counted
	Opened        atomic.Int64 // channels ever
	BytesIn       [2]atomic.Int64
	BytesOut      [2]atomic.Int64 // index: App or System
	ContentsIn    [2]atomic.Int64
	ContentsOut   [2]atomic.Int64
	StallNanos    atomic.Int64 // time senders waited for credit or the queue
	ErrorsIn      [8]atomic.Int64
	ErrorsOut     [8]atomic.Int64 // index: wire code
	Refused       [numRefusals]atomic.Int64
	Unread        atomic.Int64 // bytes received and not read
	Dropped       atomic.Int64 // contents for channels that had ended
	RecordsBroken atomic.Int64 // connections ended for what could not be read
}

// Kinds of channels in Metrics.
const (
	App    = 0
	System = 1
)

// Refusal is a limit that refuses.
type Refusal int

// The limits.
const (
	RefusedChannels Refusal = iota
	RefusedCreates
	RefusedCredit
	RefusedUnread
	RefusedErrors
	RefusedRecord
	RefusedIDs    // a space hash or an agent of no good size
	RefusedHello  // ended with nothing but hellos
	RefusedUnused // ended without channels
	numRefusals
)

// String is the limit's name in the metrics.
func (r Refusal) String() string {
	return [...]string{"channels", "creates", "credit", "unread", "errors", "record", "ids", "hello", "unused"}[r]
}

// Refusals lists all.
func Refusals() []Refusal {
	out := make([]Refusal, numRefusals)
	for i := range out {
		out[i] = Refusal(i)
	}
	return out
}
