package channel

import (
	"context"
	"slices"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire/mux"
)

// link is a connection as the node sees it: the handler that decides about its
// channels (docs/spec/channels.md §5 to §7).
type link struct {
	// static after newLink
	node    *Node
	conn    *conn.Conn
	remote  identity.PeerID // empty where the carrier has not authenticated it
	leads   identity.PeerID // where channels to this peer are opened: remote, or who it claims to be
	address string
	path    network.Path
	relay   identity.PeerID // that carries the connection itself
	counted bool            // in Node.addresses

	// guarded by Node.mu
	proven  map[identity.AgentID]struct{} // agents that proved themselves on it
	system  map[systemKey]*channel        // system channels, one for each pair of agents
	replies chan<- mux.Message            // who waits for a relay's answer; nil for nobody
}

// systemKey names a system channel on a connection.
type systemKey struct {
	space         SpaceHash
	local, remote identity.AgentID
}

// maxProven bounds the agents remembered for one connection.
const maxProven = 4096

// Hello has nothing to do: Open waits for it.
func (l *link) Hello(*conn.Conn) {}

// Create decides about a channel that the peer creates. The order of the checks
// keeps the work the same for spaces and agents that are here and that are not.
func (l *link) Create(c *conn.Conn, m *mux.Message) {
	in := incoming{link: l, msg: m}
	if err := in.identify(); err != nil {
		c.Refuse(m, err.Code, err.Text)
		return
	}
	if err := in.find(); err != nil {
		if other, handled := in.relay(); handled {
			if other != nil {
				c.Refuse(m, other.Code, other.Text)
			}
			return
		}
		if l.node.cfg.Quiet && (err.Code == BadSpace || err.Code == BadTo) {
			err = errorf(BadTo, "")
		}
		c.Refuse(m, err.Code, err.Text)
		return
	}
	in.accept()
}

// incoming is a channel that is being decided about.
type incoming struct {
	link     *link
	msg      *mux.Message
	addr     address
	remoteID []byte // where fromId is not 32 bytes
	verified bool
	target   target
	member   *member
	listener *listener
}

// identify checks who creates the channel.
func (in *incoming) identify() *Error {
	m := in.msg
	in.addr = address{space: pad32(m.SpaceHash), to: pad32(m.To)}
	if len(m.From) != 32 {
		in.remoteID = slices.Clone(m.From)
	} else {
		in.addr.from = identity.AgentID(m.From)
	}
	if in.link.conn.Config().Loopback {
		in.verified = true
		return nil
	}
	binding, ok := in.link.conn.Binding()
	if !ok || m.Hops == 2 || in.remoteID != nil || len(m.Proof) == 0 {
		return nil // unproven: whether that will do is for the target to say
	}
	if !identity.Verify(in.addr.from, in.addr.fromDigest(binding, m.Channel), m.Proof) {
		return errorf(BadFrom, "the proof of the creating agent is wrong")
	}
	in.verified = true
	in.link.prove(in.addr.from)
	return nil
}

// find looks up whom the channel is for.
func (in *incoming) find() *Error {
	n := in.link.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(in.msg.SpaceHash) == 32 {
		in.target = n.hashes[in.addr.space]
	}
	if in.msg.Hops > 2 {
		return errorf(BadTo, "no relay passes a channel on twice")
	}
	if in.target.space == nil {
		return errorf(BadSpace, "nobody here is in the space, or listens to the protocol")
	}
	if len(in.msg.To) == 32 {
		in.member = in.target.space.members[in.addr.to]
	}
	if in.member == nil {
		return errorf(BadTo, "the agent is not here")
	}
	unproven := n.cfg.AllowUnproven
	if in.target.protocol != "" {
		if in.listener = in.member.listeners[in.target.protocol]; in.listener == nil {
			return errorf(BadSpace, "nobody here is in the space, or listens to the protocol")
		}
		unproven = in.listener.unverified
	}
	if !in.verified && !unproven && in.msg.Hops == 0 {
		return errorf(BadFrom, "the creating agent has not proved itself")
	}
	if in.listener != nil && len(in.listener.queue) == cap(in.listener.queue) {
		return errorf(Limit, "too many channels wait to be accepted")
	}
	return nil
}

// accept registers the channel and hands it to its listener or system handler.
func (in *incoming) accept() {
	l, c, m := in.link, in.link.conn, in.msg
	ch := &channel{member: in.member, link: l, protocol: in.target.protocol, addr: in.addr, remoteID: in.remoteID}
	ch.verified.Store(in.verified)
	if m.Hops > 0 {
		in.acceptRelayed(ch)
		return
	}
	var proof []byte
	if binding, ok := c.Binding(); ok {
		if proof = in.member.key.Sign(in.addr.toDigest(binding, m.Channel)); proof == nil {
			c.Refuse(m, BadTo, "the agent does not sign")
			return
		}
	}
	ch.stream = c.Accept(m, conn.Accepting{Proof: proof, System: in.listener == nil, User: ch})
	ch.wireEnd = ch.stream
	in.deliver(ch)
}

func (in *incoming) deliver(ch *channel) {
	if in.listener == nil {
		in.link.node.systemOpened(ch)
		return
	}
	if err := in.listener.offer(ch); err != nil {
		ch.Fail(err.Code, err.Text)
	}
}

// acceptRelayed accepts a channel that came through a relay, or was to be
// relayed by this node, and hands it over once the two agents have proved
// themselves inside.
func (in *incoming) acceptRelayed(ch *channel) {
	ch.relayed, ch.relay = true, in.link.remote
	ch.verified.Store(false)
	if in.remoteID != nil {
		in.link.conn.Refuse(in.msg, BadFrom, "the creating agent can't prove itself")
		return
	}
	ch.stream = in.link.conn.Accept(in.msg, conn.Accepting{System: in.listener == nil, User: ch})
	ch.wireEnd = ch.stream
	next := *in
	next.msg = nil // it belongs to the read loop
	started := ch.link.node.start(func(ctx context.Context) {
		if err := ch.encrypt(ctx); err != nil {
			ch.link.node.log.Debug("relayed channel", "from", ch.addr.from, "reason", err)
			return
		}
		ch.link.node.upgrade(ch.member.space.hash, ch.addr.from)
		next.deliver(ch)
	})
	if !started {
		ch.stream.Close()
	}
}

// Accepted checks the proof of who accepted a channel of ours.
func (l *link) Accepted(s *conn.Stream, proof []byte) *Error {
	ch, ok := s.User().(*channel)
	if !ok || ch.relayed {
		return nil // a relay's: the ends prove themselves inside
	}
	if l.conn.Config().Loopback {
		ch.verified.Store(true)
		return nil
	}
	binding, ok := l.conn.Binding()
	if !ok {
		return nil
	}
	if !identity.Verify(ch.addr.to, ch.addr.toDigest(binding, s.ID()), proof) {
		return errorf(BadTo, "the proof of the accepting agent is wrong")
	}
	ch.verified.Store(true)
	l.prove(ch.addr.to)
	return nil
}

// Relay gets messages about relaying, and errors about the whole connection.
func (l *link) Relay(_ *conn.Conn, m *mux.Message) {
	if m.Kind == mux.RelayRequest {
		l.node.relaying().Request(l)
		return
	}
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	if l.replies == nil || m.Kind == mux.Error && m.Code != mux.RelayRefused {
		l.node.log.Debug("not about a channel", "peer", l.remote, "kind", m.Kind, "code", m.Code, "text", m.Text)
		return
	}
	select {
	case l.replies <- *m:
	default: // more answers than were asked for
	}
}

// prove remembers that an agent is at the other end of the connection.
func (l *link) prove(a identity.AgentID) {
	l.node.mu.Lock()
	if l.proven == nil {
		l.proven = make(map[identity.AgentID]struct{})
	}
	if len(l.proven) < maxProven {
		l.proven[a] = struct{}{}
	}
	r := l.node.relay
	l.node.mu.Unlock()
	if r != nil {
		r.Register(l, a) // under a contract, whoever proved itself is reached
	}
}

// pad32 takes the first 32 bytes, which are all of a good id.
func pad32(b []byte) (out [32]byte) {
	copy(out[:], b)
	return out
}
