package gateway

import (
	"context"

	"github.com/parley-p2p/parley/gateway/spaces"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Backend makes and shares the peers of pages. The root implements it with
// host, peer and topic; tests with a fake.
type Backend interface {
	// Join gives a session its peer: a new one, or, with Share, the living one
	// of the same key. Errors: CodePeerInUse, CodeLimit, CodeClosed.
	Join(ctx context.Context, req JoinRequest, page Page) (Peer, error)
}

// JoinRequest says which peer a session wants.
type JoinRequest struct {
	Key   identity.Key
	Share bool // join the living peer of this key instead of CodePeerInUse
}

// Page is a session as its peer sees it. Calls come from any goroutine.
type Page interface {
	network.Receiver

	// Publish takes a publication of a subscribed topic. It never blocks: where
	// the page is too slow the oldest is dropped, counted, and the page told.
	// Publications of one publisher come in order.
	Publish(p network.Publication)

	// Presence tells that a member came, changed its state, or went. It never
	// blocks.
	Presence(topic string, m network.Member, joined bool)

	// PathChanged tells that a peer the page talks to is now reached otherwise.
	// It never blocks.
	PathChanged(p PathInfo)
}

// Peer is one session's hold on its peer.
type Peer interface {
	Key() identity.Key

	// Start and Stop listen to a protocol. After Stop returned no delivery of
	// it comes. Errors: CodeAlreadyStarted, CodeNotStarted, CodeReserved.
	Start(p network.Protocol) error
	Stop(p network.Protocol) error

	// Send puts a message into the outbox and never blocks. Messages of one
	// (To, Protocol) leave in the order of the calls. An error here means that
	// Done is not called.
	Send(out network.Outgoing) (cancel func(), err error)

	// Subscribe returns the members known now; changes follow by Presence, from
	// the moment it returns. It is idempotent; state replaces the last one.
	Subscribe(ctx context.Context, topic string, state []byte) ([]network.Member, error)
	Unsubscribe(topic string) error
	// Publish returns when the publication is on its way, or kept until somebody
	// joins; it waits when the node can carry no more.
	Publish(ctx context.Context, topic string, c network.Content) error
	// Members lists who is in a topic, without the own peer. For "" it lists
	// every connected pubsub peer.
	Members(topic string) []network.Member

	// AddPeers keeps connections to peers, at these addresses (multiaddrs) too
	// if given; it returns when that is recorded. RemovePeers ends it.
	AddPeers(ids []identity.PeerID, addresses []string) error
	RemovePeers(ids []identity.PeerID)

	// Path tells how a peer is reached now, and why not.
	Path(id identity.PeerID) PathInfo

	// JoinSpace makes the peer's agent a member of the space of this name, 1 to 255
	// bytes of UTF-8. Sessions of one peer share its membership; each has a Room of
	// its own. It may wait until the node runs. Errors: CodeBadSpaceHash for a name
	// that is none, CodeLimit, CodeClosed, CodeUnsupported, the context's.
	JoinSpace(ctx context.Context, name string) (Room, error)

	// Leave ends this session's hold; the peer ends with its last session. Its
	// Rooms have been left before.
	Leave()
}

// Room is a session's part in a space.
type Room = spaces.Room

// Listener takes the channels of a protocol that others open.
type Listener = spaces.Listener

// Channel is a channel between the page's agent and another one.
type Channel = spaces.Channel

// OpenOptions say how a channel may be reached.
type OpenOptions = spaces.OpenOptions

// ChannelInfo says what a channel is.
type ChannelInfo = spaces.Info

// PathInfo says how a peer is reached, for people and programs.
type PathInfo struct {
	Peer    identity.PeerID
	Path    network.Path
	Address string        // the remote multiaddr in use; empty for none
	RTT     float64       // milliseconds; 0 when not known
	Tried   []PathAttempt // what was tried last and failed, newest last; at most 16
}

// PathAttempt is one failed way to a peer.
type PathAttempt struct {
	Path  network.Path
	Error string
}
