package transport

import (
	"strings"
	"unicode"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// What a star may answer (star.md §6.6), each with its kind. Compare with
// errors.Is.
var (
	ErrInvalidMultiaddr  = &identity.Error{Code: identity.CodeMalformed, Text: "Invalid multiaddr"}
	ErrIDRequired        = &identity.Error{Code: identity.CodeMalformed, Text: "Crypto Challenge required but no Id provided"}
	ErrCrypto            = &identity.Error{Code: identity.CodeMalformed, Text: "Crypto error"}
	ErrSignature         = &identity.Error{Code: identity.CodeUnauthorized, Text: "Signature Invalid"}
	ErrNotAuthorized     = &identity.Error{Code: identity.CodeForbidden, Text: "Not authorized for this address"}
	ErrPeerNotFound      = &identity.Error{Code: identity.CodeNotFound, Text: "Peer not found"}
	ErrOtherID           = &identity.Error{Code: identity.CodeUnauthorized, Text: "Id is not matching"}
	ErrPublicKey         = &identity.Error{Code: identity.CodeMalformed, Text: "Public key is not valid"}
	ErrChallengeExpired  = &identity.Error{Code: identity.CodeTimeout, Text: "Challenge expired"}
	ErrTooManyAddresses  = &identity.Error{Code: identity.CodeLimit, Text: "Too many addresses"}
	ErrAddressInUse      = &identity.Error{Code: identity.CodePeerInUse, Text: "Address is in use"}
	ErrInvalidArguments  = &identity.Error{Code: identity.CodeMalformed, Text: "Invalid arguments"}
	ErrServerBusy        = &identity.Error{Code: identity.CodeLimit, Text: "Server busy"}
	ErrShuttingDown      = &identity.Error{Code: identity.CodeClosed, Text: "Server is shutting down"}
	ErrRegistry          = &identity.Error{Code: identity.CodeUnreachable, Text: "Registry unavailable"}
	ErrRate              = &identity.Error{Code: identity.CodeLimit, Text: "Rate limit reached"}
	ErrDialTimedOut      = &identity.Error{Code: identity.CodeTimeout, Text: "Dial timed out"}
	ErrDialRefused       = &identity.Error{Code: identity.CodeRefused, Text: "Dial refused"}
	ErrDialIDInUse       = &identity.Error{Code: identity.CodeRefused, Text: "Dial id in use"}
	ErrDialIDInvalid     = &identity.Error{Code: identity.CodeMalformed, Text: "Dial id is not valid"}
	ErrPeerDisconnected  = &identity.Error{Code: identity.CodeClosed, Text: "Peer disconnected"}
	ErrTooManyDials      = &identity.Error{Code: identity.CodeLimit, Text: "Too many dials"}
	ErrStreamStalled     = &identity.Error{Code: identity.CodeTimeout, Text: "Stream stalled"}
	ErrByteLimit         = &identity.Error{Code: identity.CodeLimit, Text: "Byte limit reached"}
	ErrTimeLimit         = &identity.Error{Code: identity.CodeLimit, Text: "Time limit reached"}
	ErrStreamFailed      = &identity.Error{Code: identity.CodeClosed, Text: "Stream failed"}
	ErrServerLost        = &identity.Error{Code: identity.CodeClosed, Text: "Star server lost"}
	errOpenStar          = &identity.Error{Code: identity.CodeRefused, Text: "the star asks for no proof: anybody could take this address there (allow it as open)"}
	errForeignNonce      = &identity.Error{Code: identity.CodeRefused, Text: "the star asked for a signature of something that is no challenge for this address"}
	errNoJoinAnswer      = &identity.Error{Code: identity.CodeTimeout, Text: "the star didn't answer the join in time"}
	errStrangeJoinAnswer = &identity.Error{Code: identity.CodeMalformed, Text: "the star answered the join with something else"}
	errStarClosed        = &identity.Error{Code: identity.CodeClosed, Text: "the star transport is closed"}
	errTooManyStars      = &identity.Error{Code: identity.CodeLimit, Text: "too many stars are in use"}
	errLeft              = &identity.Error{Code: identity.CodeClosed, Text: "nobody needs this star now"}
	errDrained           = &identity.Error{Code: identity.CodeClosed, Text: "the star is shutting down"}
	errOverrun           = &identity.Error{Code: identity.CodeMalformed, Text: "the star sent more than it had credit for"}
	errConnClosed        = &identity.Error{Code: identity.CodeClosed, Text: "connection closed"}
	errBudget            = &identity.Error{Code: identity.CodeLimit, Text: "the budget of this star for one connection is used up"}
	errDayBudget         = &identity.Error{Code: identity.CodeLimit, Text: "the budget of this star for today is used up"}
)

// said are the errors by what a star says.
var said = byText(ErrInvalidMultiaddr, ErrIDRequired, ErrCrypto, ErrSignature, ErrNotAuthorized, ErrPeerNotFound,
	ErrOtherID, ErrPublicKey, ErrChallengeExpired, ErrTooManyAddresses, ErrAddressInUse, ErrInvalidArguments,
	ErrServerBusy, ErrShuttingDown, ErrRegistry, ErrRate, ErrDialTimedOut, ErrDialRefused, ErrDialIDInUse,
	ErrDialIDInvalid, ErrPeerDisconnected, ErrTooManyDials, ErrStreamStalled, ErrByteLimit, ErrTimeLimit,
	ErrStreamFailed, ErrServerLost)

func byText(list ...*identity.Error) map[string]error {
	m := make(map[string]error, len(list))
	for _, e := range list {
		m[e.Text] = e
	}
	return m
}

// maxQuote is how much of what a star says is repeated, in bytes.
const maxQuote = 256

// refusal makes an error of a truthy answer: a known string is its own error,
// everything else (the npm server says {} for errors of its own) is a refusal that
// quotes it.
func refusal(arg []byte) error {
	if text, ok := wire.String(arg); ok {
		if err := said[text]; err != nil {
			return err
		}
		return identity.Errorf(identity.CodeRefused, "the star refused: %s", quote(text))
	}
	return identity.Errorf(identity.CodeRefused, "the star refused: %s", quote(string(arg)))
}

// quote makes text of a stranger fit to be shown: short, and without control
// characters.
func quote(text string) string {
	if len(text) > maxQuote {
		text = text[:maxQuote]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text)
}
