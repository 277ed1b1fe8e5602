package channel

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// wireEnd is what a channel runs on: a stream of a connection, or the encrypted
// form of one.
type wireEnd interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Send(ctx context.Context, msg []byte) error
	Receive(ctx context.Context) ([]byte, error)
	Close() error
	Fail(code ErrorCode, text string)
	SetDeadline(t time.Time) error
	Done() <-chan struct{}
	Err() error
}

// channel is a Channel.
type channel struct {
	wireEnd

	// static after it was opened or accepted
	member   *member
	link     *link
	stream   *conn.Stream
	protocol string
	addr     address // as on the wire
	own      bool
	remoteID []byte // where it is not an agent id
	relayed  bool
	relay    identity.PeerID

	verified atomic.Bool
}

// remote is the agent at the other end.
func (ch *channel) remote() identity.AgentID {
	if ch.own {
		return ch.addr.to
	}
	return ch.addr.from
}

// CloseWithError ends the channel at both ends.
func (ch *channel) CloseWithError(code ErrorCode, text string) error {
	ch.Fail(code, text)
	return nil
}

// Info says what the channel is.
func (ch *channel) Info() Info {
	remote := ch.remote()
	info := Info{
		Space: ch.member.space.hash, Protocol: ch.protocol, Local: ch.member.agent, Remote: remote,
		RemoteID: remote[:], Verified: ch.verified.Load(), Path: ch.link.path, Relay: ch.link.relay, Node: ch.link.remote,
		Packed: ch.packed(), RTT: ch.link.conn.RTT(),
	}
	if ch.remoteID != nil {
		info.RemoteID = ch.remoteID
	}
	if ch.relayed {
		info.Path, info.Relay, info.Node = network.PathRelay, ch.relay, ""
	}
	return info
}

// packed reports how contents of a system channel are written.
func (ch *channel) packed() bool {
	return ch.protocol == "" && !ch.relayed && ch.link.conn.Config().Encoding != 0
}
