package link

import (
	"errors"
	"fmt"

	"github.com/parley-p2p/parley/gateway/socket"
	"github.com/parley-p2p/parley/identity"
)

// Closing is why a link ends, and so how its socket is closed. It is an error
// that reading and writing may return.
type Closing struct {
	Code   socket.Code // 0: the connection broke, there is nobody to tell
	Reason string
	Theirs bool // the page sent the close frame; its code is Code

	bye *identity.Error // what waits is written first, and this behind it
}

// Error says code and reason.
func (c *Closing) Error() string { return fmt.Sprintf("closed with %d: %s", c.Code, c.Reason) }

// Violation is an end because of what the page did.
func Violation(code socket.Code, reason string) *Closing {
	return &Closing{Code: code, Reason: reason}
}

// The ends that don't depend on what came.
var (
	Replaced = &Closing{Code: socket.GoingAway, Reason: "another socket took the session"}
	Flooded  = &Closing{Code: socket.Overloaded, Reason: "reads too slowly: too much waits for it"}
	Stopping = &Closing{Code: socket.GoingAway, Reason: "the node stops",
		bye: &identity.Error{Code: identity.CodeClosed, Text: "the node stops"}}

	lost         = &Closing{Reason: "the connection broke"}
	silent       = &Closing{Code: socket.GoingAway, Reason: "no answer to pings for 60 s"}
	stuck        = &Closing{Code: socket.Overloaded, Reason: "reads too slowly: nothing moved for 30 s"}
	tooManyPings = &Closing{Code: socket.Policy, Reason: "too many pings, limit 10 a second"}
	panicked     = &Closing{Code: socket.Internal, Reason: "internal error"}
)

// AsClosing gives the Closing in err; anything else is a lost connection.
func AsClosing(err error) *Closing {
	var c *Closing
	if errors.As(err, &c) {
		return c
	}
	return lost
}
