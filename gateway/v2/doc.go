// Package v2 is the codec of protocol v2: frames of CBOR, one behind the other
// in a binary WebSocket message (client/PROTOCOL.md).
//
//	for len(msg) > 0 {
//		frame, rest, err := v2.Next(msg)   // err: close 1002
//		switch frame.Kind { case v2.KindSend: s, err := frame.Send() … }
//		msg = rest
//	}
//
// It is pure: no I/O, no state, no reflection, and nothing is allocated by what
// a length claims. Frames that come in by the thousand (20, 21, 24, 25, 17) cost one
// pass. A test holds it equal to a general CBOR library.
package v2

// Kind says what a frame is: its first element.
type Kind uint64

// Control frames: not numbered, not repeated after a resume.
//
//	page → node: hello, then anything; node → page: welcome, then anything
const (
	KindHello    Kind = 0 // [0, {v, identity?, key?, session?, received?}]  page
	KindWelcome  Kind = 1 // [1, {v, session, resumed, received, peer, …}]   node
	KindReceived Kind = 2 // [2, n]                                          both
	KindPing     Kind = 3 // [3, n]                                          both
	KindPong     Kind = 4 // [4, n]                                          both
	KindBye      Kind = 5 // [5, code, text, retryMs?]                       both
)

// FirstNumbered is the lowest kind that is numbered and repeated.
const FirstNumbered Kind = 16

// Numbered frames. Each side counts its own from 1.
const (
	KindRequest     Kind = 16 // [16, id, method, params]                          page
	KindResult      Kind = 17 // [17, id, result]                                  node
	KindError       Kind = 18 // [18, id, code, text, retryMs?]                    node
	KindCancel      Kind = 19 // [19, id]                                          page
	KindSend        Kind = 20 // [20, id, peer, protocol, data, level, flags]      page
	KindContent     Kind = 21 // [21, channel, bytes]                              both
	KindCredit      Kind = 22 // [22, channel, bytes]                              both
	KindEnd         Kind = 23 // [23, channel, code, text, flags?]                 both
	KindMessage     Kind = 24 // [24, delivery, peer, protocol, data, flags]       node
	KindHandled     Kind = 25 // [25, delivery]                                    page
	KindReply       Kind = 26 // [26, delivery, data]                              page
	KindRefuse      Kind = 27 // [27, delivery, code, text]                        page
	KindPublication Kind = 28 // [28, topic, peer, data]                           node
	KindPresence    Kind = 29 // [29, topic, peer, joined, state]                  node
	KindLost        Kind = 30 // [30, topic, count]                                node
	KindEvent       Kind = 31 // [31, name, data]                                  node
	KindIncoming    Kind = 32 // [32, channel, space, protocol, window, info]      node
)

// FlagMore in an end: contents are still to come, and the last end behind them.
const FlagMore = 1

// FlagReply in a send or message: an answer is wanted.
const FlagReply = 1

// Limits of everything that is read.
const (
	MaxNesting     = 64        // arrays and maps in one another
	MaxItems       = 131072    // elements of an array, pairs of a map
	MaxID          = 1<<53 - 1 // ids, deliveries and counts: what JavaScript counts exactly
	MaxJSONNesting = 512       // in embedded JSON, as in v1
)

// Subprotocol is what a page offers to speak v2.
const Subprotocol = "parley.v2"

// TagJSON marks a byte string that holds one JSON value as text (RFC 8949, IANA
// registry: embedded JSON).
const TagJSON = 262
