package spaces

import (
	"context"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Room is the membership of a page's agent in a space, as one session holds it.
// Sessions of one peer hold the same membership; it ends with the last of them.
// Any goroutine may call.
type Room interface {
	// Open opens a channel to an agent. It returns when the other end has accepted
	// and proved itself. Errors: CodeBadToID, CodeBadSpaceHash, CodeBadFromID,
	// CodeLimit, CodeRelayRefused, CodeRelayExpired, CodeTimeout, CodeNotJoined,
	// CodeLost, the context's.
	Open(ctx context.Context, to identity.PeerID, protocol string, o OpenOptions) (Channel, error)
	// Listen takes channels of a protocol that others open. It doesn't wait.
	// Errors: CodeAlreadyStarted where this Room listens already, CodeBadSpaceHash
	// for a protocol that is none, CodeNotJoined.
	Listen(protocol string) (Listener, error)
	// Leave ends this session's part. Its listeners and channels have been closed
	// before. It waits for nobody, and is called once.
	Leave()
}

// OpenOptions say how a channel may be reached.
type OpenOptions struct {
	Via        identity.PeerID // only through this relay
	DirectOnly bool            // through no relay
}

// Listener takes channels of one protocol.
type Listener interface {
	// Accept waits for the next channel. After Close, or Leave, it fails.
	Accept(ctx context.Context) (Channel, error)
	// Close stops listening and refuses what was not accepted; it waits for nobody.
	Close()
}

// Channel is one channel. Any goroutine may call any method.
type Channel interface {
	// Send sends one content and returns when the channel's flow control took it.
	// The content is not kept. A context that ends may leave a part of it sent: the
	// channel is to be ended then. Error: CodeTooLarge where the other end takes
	// less; the channel's own once it has ended.
	Send(ctx context.Context, content []byte) error
	// Receive gives the next content; the caller owns it. After the other end's
	// close, and what came before, it is io.EOF.
	Receive(ctx context.Context) ([]byte, error)
	// Close ends the channel in order: what was sent is delivered first. It doesn't
	// wait for that.
	Close()
	// CloseWithError ends the channel at both ends at once.
	CloseWithError(code identity.Code, text string)
	Info() Info
	// Done is closed when the channel has ended at either side. What was received
	// can still be read.
	Done() <-chan struct{}
	// Err is why it ended; nil while it is open, and after a close in order.
	Err() error
}

// Info says what a channel is.
type Info struct {
	Protocol string
	Remote   identity.PeerID // empty where the other end uses an id of its own kind
	Verified bool            // Remote has proved its key
	Path     network.Path    // local, direct, punch, relay or star
	Relay    identity.PeerID // where Path is relay through parley's own
	RTT      float64         // milliseconds; 0 when not known
}
