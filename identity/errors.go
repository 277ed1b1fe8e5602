package identity

import (
	"errors"
	"fmt"
	"time"
)

// Code is the kind of an error. It crosses the wire as text, so a code is
// never renamed; the TypeScript client has the same list (client/src/errors.ts,
// held equal by a test).
type Code string

// The codes. A comment says when a page sees it and whether trying again helps.
const (
	CodeMalformed      Code = "malformed"       // the request can't be read; trying again won't help
	CodeUnknownMethod  Code = "unknown-method"  // no such request in this version
	CodeNoPeer         Code = "no-peer"         // the session has no peer yet
	CodePeerInUse      Code = "peer-in-use"     // the key's peer lives in another session that doesn't share it
	CodeNotFound       Code = "not-found"       // the named thing doesn't exist
	CodeUnreachable    Code = "unreachable"     // no path led to the peer in time; later it may
	CodeNotStarted     Code = "not-started"     // the peer is there, but nobody there listens to the protocol
	CodeAlreadyStarted Code = "already-started" // this session listens to the protocol already
	CodeReserved       Code = "reserved"        // the protocol or topic id belongs to parley
	CodeTooLarge       Code = "too-large"       // over a size limit; the text names it
	CodeQueueFull      Code = "queue-full"      // an outbox is full; try again after RetryAfter
	CodeLimit          Code = "limit"           // another limit; the text names it
	CodeTimeout        Code = "timeout"         // sent, and no answer in time: it may or may not have arrived
	CodeClosed         Code = "closed"          // the peer, session or node closed first
	CodeRefused        Code = "refused"         // the other side said no, or its handler failed
	CodeUnauthorized   Code = "unauthorized"    // no valid token
	CodeForbidden      Code = "forbidden"       // known, but not allowed
	CodeCancelled      Code = "cancelled"       // the caller gave up (AbortSignal, context)
	CodeUnsupported    Code = "unsupported"     // this node or the other side doesn't have it
	CodeSessionLost    Code = "session-lost"    // the session's grace is over; a new one starts empty
	CodeNetworkBlocked Code = "network-blocked" // the browser doesn't let the page reach the node
	CodeInternal       Code = "internal"        // a fault of parley itself
)

// The codes of channels (docs/spec/channels.md §10 and §17); besides these a
// channel has CodeLimit, CodeTooLarge, CodeTimeout, CodeClosed and
// CodeAlreadyStarted.
const (
	CodeUnknown      Code = "unknown"        // the other end failed, or closed with an error of its own
	CodeBadChannelID Code = "bad-channel-id" // the two ends disagree about which channels there are
	CodeBadSpaceHash Code = "bad-space-hash" // nobody there joined the space, or listens to the protocol
	CodeBadToID      Code = "bad-to-id"      // the agent can't be found, and no relay leads to it
	CodeBadFromID    Code = "bad-from-id"    // the other end doesn't take channels from this agent
	CodeRelayRefused Code = "relay-refused"  // the relay does not serve this
	CodeRelayExpired Code = "relay-expired"  // the relay's contract ended
	CodeNotJoined    Code = "not-joined"     // the agent is not in the space on this node
	CodeLost         Code = "lost"           // the connection under the channel broke
)

// Codes lists every code, in the order above.
func Codes() []Code {
	return []Code{
		CodeMalformed, CodeUnknownMethod, CodeNoPeer, CodePeerInUse, CodeNotFound, CodeUnreachable,
		CodeNotStarted, CodeAlreadyStarted, CodeReserved, CodeTooLarge, CodeQueueFull, CodeLimit,
		CodeTimeout, CodeClosed, CodeRefused, CodeUnauthorized, CodeForbidden, CodeCancelled,
		CodeUnsupported, CodeSessionLost, CodeNetworkBlocked, CodeInternal,
		CodeUnknown, CodeBadChannelID, CodeBadSpaceHash, CodeBadToID, CodeBadFromID, CodeRelayRefused,
		CodeRelayExpired, CodeNotJoined, CodeLost,
	}
}

// Error is an error with a kind that survives the way to a page and back.
type Error struct {
	Code       Code
	Text       string        // one sentence for people; pages of v1 see only this
	RetryAfter time.Duration // when trying again makes sense; 0 = not said
	Err        error         // the cause, if there is one; never sent
}

// Errorf makes an Error. A %w verb keeps its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), Err: errors.Unwrap(err)}
}

// Error gives the sentence, or the code where there is none.
func (e *Error) Error() string {
	if e.Text == "" {
		return string(e.Code)
	}
	return e.Text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches any Error of the same code, so errors.Is(err, &Error{Code: c})
// asks for the kind alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Text == ""
}

// CodeOf gives the code of err: that of the first Error in its chain,
// CodeInternal where there is none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
