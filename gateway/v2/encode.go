package v2

import (
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// open appends the head of a frame of n elements, kind included. Every kind is
// below 256, so it fits two bytes at most.
func open(dst []byte, n int, k Kind) []byte {
	return AppendUint(AppendArray(dst, n), uint64(k))
}

// AppendCount appends a received, ping, pong, cancel or handled frame.
func AppendCount(dst []byte, k Kind, n uint64) []byte {
	return AppendUint(open(dst, 2, k), n)
}

// AppendBye appends a bye frame; retry 0 is left out.
func AppendBye(dst []byte, e *identity.Error) []byte {
	return appendFault(open(dst, 3+some(e.RetryAfter), KindBye), e)
}

// AppendError appends an error frame; retry 0 is left out.
func AppendError(dst []byte, id uint64, e *identity.Error) []byte {
	return appendFault(AppendUint(open(dst, 4+some(e.RetryAfter), KindError), id), e)
}

func appendFault(dst []byte, e *identity.Error) []byte {
	dst = AppendText(AppendText(dst, string(e.Code)), clip(ValidText(e.Error()), maxErrorText))
	if e.RetryAfter > 0 {
		dst = AppendUint(dst, uint64(max(e.RetryAfter/time.Millisecond, 1)))
	}
	return dst
}

func some(d time.Duration) int {
	if d > 0 {
		return 1
	}
	return 0
}

// AppendResult appends a result frame whose result is one encoded item.
func AppendResult(dst []byte, id uint64, result []byte) []byte {
	return append(AppendUint(open(dst, 3, KindResult), id), result...)
}

// AppendResultNull appends a result frame with null.
func AppendResultNull(dst []byte, id uint64) []byte {
	return AppendNull(AppendUint(open(dst, 3, KindResult), id))
}

// AppendResultLevel appends the result of a send: the level that was reached.
func AppendResultLevel(dst []byte, id uint64, level network.Level) []byte {
	return AppendUint(AppendUint(open(dst, 3, KindResult), id), uint64(level))
}

// AppendPair appends peer and protocol, as messages and sends have them.
func AppendPair(dst []byte, peer, protocol string) []byte {
	return AppendText(AppendText(dst, peer), protocol)
}

func flags(reply bool) uint64 {
	if reply {
		return FlagReply
	}
	return 0
}

// AppendPresence appends a presence frame; an empty state is null.
func AppendPresence(dst []byte, topic, peer string, joined bool, state []byte) []byte {
	dst = AppendText(AppendText(open(dst, 5, KindPresence), topic), peer)
	return appendState(AppendBool(dst, joined), state)
}

func appendState(dst, state []byte) []byte {
	if len(state) == 0 {
		return AppendNull(dst)
	}
	return append(dst, state...)
}

// AppendLost appends a lost frame.
func AppendLost(dst []byte, topic string, count uint64) []byte {
	return AppendUint(AppendText(open(dst, 3, KindLost), topic), count)
}

// AppendEvent appends an event frame whose data is one encoded item.
func AppendEvent(dst []byte, name string, data []byte) []byte {
	return append(AppendText(open(dst, 3, KindEvent), name), data...)
}

// MemberText is a member of a topic, as frames have it.
type MemberText struct {
	Peer  string
	State []byte // one CBOR item, or empty
}

// AppendMembers appends {members: [{peer, state}]}.
func AppendMembers(dst []byte, members []MemberText) []byte {
	dst = AppendArray(AppendText(AppendMap(dst, 1), "members"), len(members))
	for _, m := range members {
		dst = AppendText(AppendText(AppendMap(dst, 2), "peer"), m.Peer)
		dst = appendState(AppendText(dst, "state"), m.State)
	}
	return dst
}

// WelcomeFrame is the answer to a hello.
type WelcomeFrame struct {
	Session  []byte
	Resumed  bool
	Received uint64
	Peer     string
	Grace    time.Duration
	Node     string
	Limits   WelcomeLimits
}

// WelcomeLimits are the limits that a page has to keep.
type WelcomeLimits struct {
	Frame       int // bytes of a WebSocket message
	Message     int // bytes of one message
	Requests    int // unsettled requests and sends at once
	Outbox      int // unsettled bytes for one peer and protocol
	OutboxTotal int // unsettled bytes in all
	Channels    int // channels at once
	Content     int // bytes of one content of a channel
}

// Version is the one that this package speaks.
const Version = 2

// AppendWelcome appends a welcome frame.
func AppendWelcome(dst []byte, w WelcomeFrame) []byte {
	dst = AppendMap(open(dst, 2, KindWelcome), 8)
	dst = AppendUint(AppendText(dst, "v"), Version)
	dst = AppendBytes(AppendText(dst, "session"), w.Session)
	dst = AppendBool(AppendText(dst, "resumed"), w.Resumed)
	dst = AppendUint(AppendText(dst, "received"), w.Received)
	dst = AppendText(AppendText(dst, "peer"), w.Peer)
	dst = AppendUint(AppendText(dst, "grace"), uint64(w.Grace/time.Millisecond))
	dst = AppendText(AppendText(dst, "node"), w.Node)
	dst = AppendMap(AppendText(dst, "limits"), 7)
	dst = AppendUint(AppendText(dst, "frame"), uint64(w.Limits.Frame))
	dst = AppendUint(AppendText(dst, "message"), uint64(w.Limits.Message))
	dst = AppendUint(AppendText(dst, "requests"), uint64(w.Limits.Requests))
	dst = AppendUint(AppendText(dst, "outbox"), uint64(w.Limits.Outbox))
	dst = AppendUint(AppendText(dst, "outboxTotal"), uint64(w.Limits.OutboxTotal))
	dst = AppendUint(AppendText(dst, "channels"), uint64(w.Limits.Channels))
	return AppendUint(AppendText(dst, "content"), uint64(w.Limits.Content))
}
