package proxy

import "github.com/parley-p2p/parley/star/socketio/wire"

// Reason is why the server ends a dial. Its text is on the wire (star.md §6.6).
type Reason struct {
	Text   string
	Vanish bool // a peer went away: sessions without extensions are told of a clean end
}

// The reasons.
var (
	PeerDisconnected = Reason{Text: "Peer disconnected", Vanish: true}
	StreamStalled    = Reason{Text: "Stream stalled"}
	ByteLimit        = Reason{Text: "Byte limit reached"}
	TimeLimit        = Reason{Text: "Time limit reached"}
	StreamFailed     = Reason{Text: "Stream failed"}
	ServerLost       = Reason{Text: "Star server lost"}
	ShuttingDown     = Reason{Text: "Server is shutting down", Vanish: true}
)

// Answers to a dial that fails.
const (
	DialTimedOut = "Dial timed out"
	DialRefused  = "Dial refused"
	DialIDInUse  = "Dial id in use"
	DialIDBad    = "Dial id is not valid"
	DialTooMany  = "Too many dials"
)

// cleanEnd is the argument of an error event that ends a stream without an error.
const cleanEnd = "true"

// quoted is a reason as an argument.
func (r Reason) quoted() string { return string(wire.AppendQuote(nil, r.Text)) }

// maxRefusal is how much of what a callee says is passed on, in bytes.
const maxRefusal = 256

// refusal makes the answer to the dialer of what a callee acknowledged with.
func refusal(arg []byte) string {
	if text, ok := wire.String(arg); ok && text != "" && len(text) <= maxRefusal {
		return text
	}
	return DialRefused
}
