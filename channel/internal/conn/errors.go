package conn

import (
	"errors"
	"net"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/mux"
)

// Code is what went wrong with a channel. The first eight are on the wire
// (docs/spec/channels.md §10); the others never leave the node.
type Code uint16

// The codes.
const (
	Unknown      = Code(mux.Unknown)      // anything else
	BadChannelID = Code(mux.BadChannelID) // the two ends disagree about which channels there are
	BadSpace     = Code(mux.BadSpaceHash) // nobody there is in the space, or listens to the protocol
	BadTo        = Code(mux.BadToID)      // the agent isn't there
	BadFrom      = Code(mux.BadFromID)    // unproven, wrongly proven, or blocked
	Limit        = Code(mux.Limit)        // a quota was passed; the text names it
	RelayRefused = Code(mux.RelayRefused) // the relay does not serve us
	RelayExpired = Code(mux.RelayExpired) // the relay's contract ended
)

// The codes of this node alone.
const (
	Lost      Code = 0x100 + iota // the connection broke
	Closed                        // this end closed the channel, or the node stopped
	NotJoined                     // the agent is not a member of the space on this node
	TooLarge                      // one message is over the other end's limit
	Timeout                       // no answer in time
	Duplicate                     // already joined, or already listening
)

// Error is how channels fail. errors.Is matches two of them by code where the
// target has no text, so the Err variables of package channel can be asked for.
type Error struct {
	Code   Code
	Text   string // one sentence for people
	Remote bool   // the other end said so
}

// Error gives the sentence.
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = e.Code.String()
	}
	if e.Remote {
		return "the other end: " + text
	}
	return text
}

// Is matches errors of the same code, and net.ErrClosed.
func (e *Error) Is(target error) bool {
	if target == net.ErrClosed {
		return e.Code == Closed
	}
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Text == ""
}

// As gives the error as an *identity.Error, whose code crosses to pages.
func (e *Error) As(target any) bool {
	t, ok := target.(**identity.Error)
	if !ok {
		return false
	}
	*t = &identity.Error{Code: e.Code.Identity(), Text: e.Error()}
	return true
}

// names has the codes as pages see them (docs/spec/channels.md §17).
var names = map[Code]string{
	Unknown: "unknown", BadChannelID: "bad-channel-id", BadSpace: "bad-space-hash", BadTo: "bad-to-id", BadFrom: "bad-from-id",
	Limit: "limit", RelayRefused: "relay-refused", RelayExpired: "relay-expired",
	Lost: "lost", Closed: "closed", NotJoined: "not-joined", TooLarge: "too-large", Timeout: "timeout", Duplicate: "duplicate",
}

// String is the code's name in kebab case.
func (c Code) String() string {
	if n, ok := names[c]; ok {
		return n
	}
	return names[Unknown]
}

// Identity is the code as pages see it: the name (docs/spec/channels.md §17),
// but for Duplicate, which all of parley calls already-started.
func (c Code) Identity() identity.Code {
	if c == Duplicate {
		return identity.CodeAlreadyStarted
	}
	return identity.Code(c.String())
}

// wire is the code as the other end sees it.
func (c Code) wire() mux.Code {
	if c > RelayExpired {
		return mux.Unknown
	}
	return mux.Code(c)
}

func errorf(code Code, text string) *Error { return &Error{Code: code, Text: text} }

// errEnded are the reasons for which nothing more can be sent.
var (
	errClosed     = errorf(Closed, "this end closed the channel")
	errPeerClosed = &Error{Code: Closed, Text: "the channel is closed", Remote: true}
	errBroken     = errors.New("protocol error") // ends the connection after it was told
)
