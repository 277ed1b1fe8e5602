package socketio

import (
	"errors"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Limits bounds what a socket takes (star.md §11.2). Zero values are the defaults.
type Limits struct {
	Message int // bytes of a packet or a POST; 1,000,000
	Text    int // bytes of an event's text; 64 KiB
	Control int // bytes of answers that may wait before reading stops; 64 KiB

	// LongEvents begins the names of events whose text may be as long as a
	// message.
	LongEvents string
}

func (l Limits) withDefaults() Limits {
	return Limits{Message: or(l.Message, 1_000_000), Text: or(l.Text, 64<<10), Control: or(l.Control, 64<<10), LongEvents: l.LongEvents}
}

// The limits whose excess ends a socket, by the names that metrics give them.
const (
	LimitMessage     = "message"
	LimitText        = "text"
	LimitDepth       = "depth"
	LimitAttachments = "attachments"
	LimitStuck       = "stuck"
	LimitUpgrade     = "upgrade" // ends the upgrade alone
)

// LimitOf names the limit that a socket ended by, given the reason of its
// Disconnected; "" where it was none.
func LimitOf(reason error) string {
	switch {
	case errors.Is(reason, errLong):
		return LimitText
	case errors.Is(reason, wire.ErrDepth):
		return LimitDepth
	case errors.Is(reason, wire.ErrAttachments):
		return LimitAttachments
	case errors.Is(reason, ErrStuck):
		return LimitStuck
	case identity.CodeOf(reason) == identity.CodeTooLarge:
		return LimitMessage
	}
	return ""
}
