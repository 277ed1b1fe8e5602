package channel

import (
	"context"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/channel/internal/relay"
	"github.com/parley-p2p/parley/identity"
)

// RelayPolicy says for whom a node relays, and how much. Zero values are the
// defaults, given behind each.
type RelayPolicy = relay.Policy

// PublicRelay is the profile that serves strangers: enough to find a direct path.
func PublicRelay() RelayPolicy { return relay.Public() }

// OwnRelay is the profile that serves the agents and peers of a list, without
// limits on bytes and time.
func OwnRelay(allow ...identity.PeerID) RelayPolicy { return RelayPolicy{}.For(allow...) }

// RelayFor begins to relay for others by a policy, from now on. The node needs
// Config.Key for it. It is called once.
func (n *Node) RelayFor(p RelayPolicy) error {
	if n.cfg.Key == nil {
		return identity.Errorf(identity.CodeInternal, "channel: a relay needs the node's key")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.relay != nil {
		return errorf(Duplicate, "the node relays already")
	}
	n.relay = relay.New(relayNode{n}, p)
	return nil
}

// relaying is the node's relay service; nil without one. The node's lock must not
// be held while it is called: it calls the node.
func (n *Node) relaying() *relay.Service {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.relay
}

// relayNode is the node as its relay service sees it.
type relayNode struct{ n *Node }

// Start implements relay.Node.
func (r relayNode) Start(f func(ctx context.Context)) bool { return r.n.start(f) }

// Reach implements relay.Node.
func (r relayNode) Reach(agent identity.AgentID) relay.Client {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	for l := range r.n.links {
		if _, ok := l.proven[agent]; ok && l.conn.Err() == nil {
			return l
		}
	}
	return nil
}

// Proven implements relay.Node.
func (r relayNode) Proven(c relay.Client, ok func(identity.AgentID) bool) bool {
	l, is := c.(*link)
	if !is {
		return false
	}
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	for a := range l.proven {
		if ok(a) {
			return true
		}
	}
	return false
}

// Conn implements relay.Client.
func (l *link) Conn() *conn.Conn { return l.conn }

// Peer implements relay.Client.
func (l *link) Peer() identity.PeerID { return l.remote }

// Address implements relay.Client.
func (l *link) Address() string { return l.address }

// relay tries what a relay does with a channel that is not for an agent here.
// handled is false where it is none of the relay's business.
func (in *incoming) relay() (err *Error, handled bool) {
	r := in.link.node.relaying()
	create := relay.Create{Client: in.link, Message: in.msg, From: in.addr.from, To: in.addr.to, Verified: in.verified}
	switch in.msg.Hops {
	case 0:
		if r == nil || in.addr.to != in.link.node.self {
			return nil, false
		}
		return r.Registration(create, in.nodeProof)
	case 1:
		if in.member != nil { // it is here, and the reason is another
			return nil, false
		}
		if r == nil {
			return errorf(BadTo, "the agent is not here, and this node does not relay"), true
		}
		return r.Bridge(create), true
	}
	return nil, false
}

// nodeProof is the toProof of the node itself.
func (in *incoming) nodeProof() []byte {
	binding, bound := in.link.conn.Binding()
	if !bound {
		return nil
	}
	return in.link.node.cfg.Key.Sign(in.addr.toDigest(binding, in.msg.Channel))
}
