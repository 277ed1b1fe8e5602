package channel

import (
	"context"
	"io"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Space is a named space as this node sees it.
type Space interface {
	Hash() SpaceHash
	// Join makes agent a member of the space on this node, after it proved its
	// key; the agent signs, its key never leaves it. Errors: Duplicate where it
	// has joined already, BadFrom where its signature is wrong, Limit.
	Join(ctx context.Context, agent identity.Agent, opts ...JoinOption) (Member, error)
}

// Member is an agent in a space on this node. Its methods may be called by any
// goroutine; after Leave they fail with NotJoined.
type Member interface {
	Agent() identity.AgentID
	// Open opens a channel to another agent of the space, wherever it is. It
	// returns when the other end has proved itself, unless Optimistic. Errors:
	// NotJoined, BadTo, BadSpace, BadFrom, Limit, Timeout, Relay…, the context's.
	Open(ctx context.Context, to identity.AgentID, protocol string, opts ...OpenOption) (Channel, error)
	// Listen takes channels of a protocol that others open to this agent. Errors:
	// Duplicate where it does so already.
	Listen(protocol string, opts ...ListenOption) (Listener, error)
	// System makes h the one user of the space's system channels of this agent,
	// until its Close. Errors: Duplicate.
	System(ctx context.Context, h SystemHandler) (System, error)
	// Leave ends this member's channels and listeners.
	Leave(ctx context.Context) error
}

// Listener takes channels of one protocol.
type Listener interface {
	// Accept waits for the next channel. After Close it fails with Closed, after
	// Leave with NotJoined.
	Accept(ctx context.Context) (Channel, error)
	// Close stops listening and refuses what was not accepted yet.
	Close() error
}

// Channel joins two agents. Any goroutine may call any method; a reader uses
// Read or Receive, not both.
type Channel interface {
	// Read, Write and Close are stream mode: borders of contents do not matter.
	// Read gives io.EOF after the other end's close. Close closes both directions;
	// what was written before is delivered first.
	io.ReadWriteCloser
	// Send sends one content and returns when credit took it. One that is larger
	// than the other end takes fails with TooLarge.
	Send(ctx context.Context, msg []byte) error
	// Receive gives the next content; the caller owns it.
	Receive(ctx context.Context) ([]byte, error)
	// CloseWithError ends the channel at both ends at once; the other end gets
	// the code, where it is one of the wire, and the text.
	CloseWithError(code ErrorCode, text string) error
	// SetDeadline sets when calls give up with os.ErrDeadlineExceeded, those that
	// wait included; the zero time means never.
	SetDeadline(t time.Time) error
	Info() Info
	// Done is closed when the channel has ended at either side. What was received
	// can still be read.
	Done() <-chan struct{}
	// Err is why it ended; nil while it is open and after an orderly close.
	Err() error
}

// Info says what a channel is.
type Info struct {
	Space    SpaceHash
	Protocol string // "" for a system channel
	Local    identity.AgentID
	Remote   identity.AgentID // zero where a document-only peer uses an id of its own kind
	RemoteID []byte           // the remote id as on the wire
	Verified bool             // Remote has proved its key
	Path     network.Path     // direct, punch, relay, star or local
	Node     identity.PeerID  // the node at the other end of the connection; empty for local and where not known
	Relay    identity.PeerID  // the relay where Path is relay; empty where not known
	Packed   bool             // contents of a system channel are packed
	RTT      time.Duration    // of the connection; 0 when not known
}

// SystemHandler serves the system channels of a member; gossip is one.
type SystemHandler interface {
	// ServeSystem is called in a goroutine of its own for every system channel,
	// whichever side opened it. The channel is closed when it returns; ctx ends
	// when the handler was removed or the node stops. Pings and pongs never come.
	ServeSystem(ctx context.Context, ch Channel)
}

// System opens the system channels of a member.
type System interface {
	// Connect makes sure that there is a system channel to an agent: where there
	// is none it opens one, which the handler then serves.
	Connect(ctx context.Context, to identity.AgentID, opts ...OpenOption) error
	// Close ends the system channels; the handler has returned everywhere when it
	// returns.
	Close() error
}

// JoinOption is an option of Space.Join. There is none yet.
type JoinOption func(*joinOptions)

type joinOptions struct{}

// OpenOption is an option of Member.Open.
type OpenOption func(*openOptions)

type openOptions struct {
	optimistic bool
	directOnly bool
	via        identity.PeerID
	window     int
}

// Optimistic lets Open return before the other end has accepted and proved
// itself. Contents may be sent at once; a refusal shows as the channel's error.
func Optimistic() OpenOption { return func(o *openOptions) { o.optimistic = true } }

// Via opens the channel through this relay.
func Via(relay identity.PeerID) OpenOption { return func(o *openOptions) { o.via = relay } }

// DirectOnly forbids relays, of channels and of connections.
func DirectOnly() OpenOption { return func(o *openOptions) { o.directOnly = true } }

// Window is how much the other end may send before this end has read it, at
// first: 16 KiB to 16 MiB. Relayed channels ignore it.
func Window(n int) OpenOption { return func(o *openOptions) { o.window = n } }

// ListenOption is an option of Member.Listen.
type ListenOption func(*listenOptions)

type listenOptions struct {
	backlog    int
	unverified bool
}

// Backlog is how many channels may wait for Accept; more are refused with Limit.
// The default is 128.
func Backlog(n int) ListenOption { return func(o *listenOptions) { o.backlog = n } }

// AllowUnverified takes channels whose creator did not prove its key: from
// document-only peers and over carriers without authenticated ends.
func AllowUnverified() ListenOption { return func(o *listenOptions) { o.unverified = true } }
