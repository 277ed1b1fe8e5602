package peer

import (
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// ConversationInfo is an outgoing conversation for people to look at.
type ConversationInfo struct {
	From     identity.PeerID // the page's peer
	To       identity.PeerID
	Protocol network.Protocol
	Path     network.Path // PathNone where there is no stream
	Queued   int          // unsettled bytes
	Waiting  int          // messages not yet on the way
	OnTheWay int          // messages on the way and not settled
	Settled  uint64       // messages settled in the present epoch
	Failed   string       // why the last attempt to reach the peer failed; empty while reached
}

// List gives up to most outgoing conversations, in no order. It takes each
// peer's lock once.
func (n *Node) List(most int) []ConversationInfo {
	var list []ConversationInfo
	for _, p := range n.list() {
		p.mu.Lock()
		for _, c := range p.conversations {
			if len(list) == most {
				break
			}
			list = append(list, c.info())
		}
		p.mu.Unlock()
	}
	return list
}

// info is called with the peer's mu.
func (c *conversation) info() ConversationInfo {
	i := ConversationInfo{
		From: c.peer.id, To: c.to, Protocol: c.protocol, Path: network.PathNone,
		Queued: c.bytes, Waiting: c.queue.len(), OnTheWay: c.flight.len(), Settled: c.settled,
	}
	switch {
	case c.link != nil:
		i.Path = c.link.stream.Path()
	case c.ref != nil:
		i.Path = c.ref.stream.Path()
	case c.here && c.reached:
		i.Path = network.PathLocal
	case c.lastErr != nil:
		i.Failed = c.lastErr.Error()
	}
	return i
}
