package channel

import "github.com/parley-p2p/parley/channel/internal/conn"

// Error is how channels fail: a code, a sentence for people, and whether the
// other end said so. It also reads as an *identity.Error, whose code pages see.
// Besides, operations return io.EOF after the other end's close, the error of
// their context, and os.ErrDeadlineExceeded.
type Error = conn.Error

// ErrorCode is the kind of an Error (docs/spec/channels.md §10). String gives the
// name that pages see.
type ErrorCode = conn.Code

// The codes.
const (
	Unknown      = conn.Unknown      // anything else
	BadChannelID = conn.BadChannelID // the two ends disagree about which channels there are
	BadSpace     = conn.BadSpace     // nobody there joined the space, or listens to the protocol
	BadTo        = conn.BadTo        // the agent isn't there, and no relay leads to it
	BadFrom      = conn.BadFrom      // unproven, wrongly proven, or blocked
	Limit        = conn.Limit        // a quota was passed; the text names it
	RelayRefused = conn.RelayRefused // the relay does not serve this
	RelayExpired = conn.RelayExpired // the relay's contract ended
	Lost         = conn.Lost         // the connection broke
	Closed       = conn.Closed       // closed by this end
	NotJoined    = conn.NotJoined    // the agent is not a member of the space on this node
	TooLarge     = conn.TooLarge     // a message over the other end's limit
	Timeout      = conn.Timeout      // no answer in time
	Duplicate    = conn.Duplicate    // already joined, or already listening
)

// Targets for errors.Is: each matches every Error of its code.
var (
	ErrNotJoined    = &Error{Code: NotJoined}
	ErrNoSpace      = &Error{Code: BadSpace}
	ErrNoAgent      = &Error{Code: BadTo}
	ErrNotAllowed   = &Error{Code: BadFrom}
	ErrLimit        = &Error{Code: Limit}
	ErrTooLarge     = &Error{Code: TooLarge}
	ErrRelayRefused = &Error{Code: RelayRefused}
	ErrRelayExpired = &Error{Code: RelayExpired}
	ErrLost         = &Error{Code: Lost}
	ErrTimeout      = &Error{Code: Timeout}
	ErrDuplicate    = &Error{Code: Duplicate}
	ErrClosed       = &Error{Code: Closed}
)

func errorf(code ErrorCode, text string) *Error { return &Error{Code: code, Text: text} }
