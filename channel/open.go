package channel

import (
	"context"
	"errors"
	"net"
	"slices"
	"unicode/utf8"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Open opens a channel to an agent of the space. It looks for it in this order:
// on this node, proven on an open connection, where the Locator says, as a peer,
// and at the relays that this node uses (docs/spec/channels.md §5).
func (m *member) Open(ctx context.Context, to identity.AgentID, protocol string, opts ...OpenOption) (Channel, error) {
	if protocol == "" || len(protocol) > MaxProtocol || !utf8.ValidString(protocol) {
		return nil, errorf(BadSpace, "a protocol is 1 to 64 bytes of UTF-8")
	}
	ch, err := m.open(ctx, to, protocol, opts)
	if err != nil {
		return nil, err
	}
	return ch, nil
}

// open is Open; protocol "" opens the system channel.
func (m *member) open(ctx context.Context, to identity.AgentID, protocol string, opts []OpenOption) (*channel, error) {
	var o openOptions
	for _, opt := range opts {
		opt(&o)
	}
	a := attempt{member: m, to: to, protocol: protocol, openOptions: o}
	a.addr = address{space: m.space.hash, to: to, from: m.agent}
	if protocol != "" {
		a.addr.space = m.space.hash.App(protocol)
	}
	return a.run(ctx)
}

// attempt is one call of Open.
type attempt struct {
	openOptions
	member   *member
	to       identity.AgentID
	protocol string
	addr     address
	last     error
}

func (a *attempt) run(ctx context.Context) (*channel, error) {
	n := a.member.node
	link, err := n.nearest(a.member, a.to)
	if err != nil {
		return nil, err
	}
	if a.via != "" {
		return a.through(ctx, a.via)
	}
	if link != nil {
		if n.outrun(link) {
			if better, err := n.connect(ctx, link.leads); err == nil {
				link = better
			}
		}
		if ch, done := a.try(ctx, link); done {
			return ch, a.last
		}
	}
	places, err := a.places(ctx)
	if err != nil {
		return nil, err
	}
	relays := a.relays(places)
	for _, p := range places {
		if len(relays) > 0 && n.failedLately(p.Node) {
			continue
		}
		if ch, done := a.tryNode(ctx, p.Node); done {
			return ch, a.last
		}
	}
	if !a.answered() { // what can't be found may be reached as this node is
		relays = a.ownRelays(relays)
	}
	for _, r := range relays {
		ch, err := a.through(ctx, r)
		if err == nil || ctx.Err() != nil {
			n.noteDistant(a.to, err == nil && len(places) == 1)
			return ch, err
		}
		a.fail(err)
	}
	n.noteDistant(a.to, false)
	if a.last == nil {
		a.last = errorf(BadTo, "the agent can't be found")
	}
	return nil, a.last
}

// places lists where the agent may be, its own peer id last.
func (a *attempt) places(ctx context.Context) ([]Location, error) {
	n := a.member.node
	var places []Location
	if n.cfg.Locator != nil {
		looking, cancel := ctx, func() {}
		if !a.directOnly && n.distantLately(a.to) {
			looking, cancel = context.WithTimeout(ctx, briefLook)
		}
		found, err := n.cfg.Locator.Locate(looking, a.member.space.hash, a.to)
		cancel()
		if err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		places = append(places, found...)
	}
	if id, err := a.to.PeerID(); err == nil {
		places = append(places, Location{Node: id})
	}
	return places, nil
}

// relays lists the relays that lead to the places.
func (a *attempt) relays(places []Location) []identity.PeerID {
	var out []identity.PeerID
	if a.directOnly {
		return nil
	}
	for _, p := range places {
		for _, r := range p.Relays {
			if !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// ownRelays adds the relays that lead to this node, which let it name whoever
// else they lead to.
func (a *attempt) ownRelays(relays []identity.PeerID) []identity.PeerID {
	if a.directOnly {
		return relays
	}
	for _, r := range a.member.node.Relays() {
		if !slices.Contains(relays, r) {
			relays = append(relays, r)
		}
	}
	return relays
}

// answered reports whether a node that the agent may be at has said why not.
func (a *attempt) answered() bool {
	var e *Error
	return errors.As(a.last, &e) && e.Remote
}

// through opens the channel through a relay.
func (a *attempt) through(ctx context.Context, relay identity.PeerID) (*channel, error) {
	n := a.member.node
	if n.leadsHere(relay) {
		return nil, errorf(BadTo, "this node is not a relay to itself")
	}
	l, err := n.connect(ctx, relay)
	if err != nil {
		return nil, err
	}
	ch, err := a.openOn(ctx, l, 1)
	if err != nil {
		return nil, err
	}
	n.upgrade(a.member.space.hash, a.to)
	return ch, nil
}

// tryNode tries to open the channel on a connection to a node. It reports done
// when no other place needs to be tried.
func (a *attempt) tryNode(ctx context.Context, node identity.PeerID) (*channel, bool) {
	n := a.member.node
	if n.leadsHere(node) {
		return nil, false // it is not among the members here
	}
	l, err := n.connect(ctx, node)
	if err != nil {
		a.fail(err)
		return nil, ctx.Err() != nil
	}
	return a.try(ctx, l)
}

func (a *attempt) try(ctx context.Context, l *link) (*channel, bool) {
	if a.directOnly && l.path == network.PathRelay {
		a.fail(errorf(BadTo, "only a relay leads to the agent"))
		return nil, false
	}
	ch, err := a.openOn(ctx, l, 0)
	if err == nil {
		a.last = nil
		return ch, true
	}
	a.fail(err)
	// Elsewhere it may be known, or the path may hold.
	again := errors.Is(err, ErrNoAgent) || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrLost) || errors.Is(err, net.ErrClosed)
	return nil, !again || ctx.Err() != nil
}

// fail keeps the error that says most: what a node answered counts more than
// that another could not be reached.
func (a *attempt) fail(err error) {
	var e *Error
	switch {
	case errors.As(err, &e) && e.Remote:
		a.last = err
	case a.last == nil && e == nil && !isContext(err): // the network can't reach it
		a.last = errorf(BadTo, "the agent can't be reached: "+err.Error())
	case a.last == nil:
		a.last = err
	}
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// openOn opens the channel on a connection: with hops 0 to the agent's node, with
// hops 1 to a relay.
func (a *attempt) openOn(ctx context.Context, l *link, hops uint8) (*channel, error) {
	ch := &channel{member: a.member, link: l, protocol: a.protocol, addr: a.addr, own: true}
	o := conn.Opening{
		SpaceHash: a.addr.space[:], To: a.addr.to[:], From: a.addr.from[:],
		System: a.protocol == "", Hops: hops, Window: a.window, User: ch,
	}
	if hops > 0 {
		ch.relayed, ch.relay = true, l.remote
	}
	o.Prove = func(id uint32) ([]byte, error) {
		binding, ok := l.conn.Binding()
		if !ok {
			return nil, nil
		}
		if proof := a.member.key.Sign(a.addr.fromDigest(binding, id)); proof != nil {
			return proof, nil
		}
		return nil, errorf(BadFrom, "the agent does not sign")
	}
	s, err := l.conn.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	ch.stream, ch.wireEnd = s, s
	if a.optimistic && hops == 0 {
		return ch, nil
	}
	if err := s.WaitAccepted(ctx); err != nil {
		return nil, err
	}
	if hops > 0 {
		if err := ch.encrypt(ctx); err != nil {
			return nil, err
		}
	}
	return ch, nil
}

// nearest gives the best connection known already: the node's own, or the oldest
// on which the agent has proved itself; nil where there is none.
func (n *Node) nearest(m *member, to identity.AgentID) (*link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.ctx == nil || n.stopped:
		return nil, ErrClosed
	case m.left:
		return nil, errLeft()
	case m.space.members[to] != nil:
		return n.loopback()
	}
	for _, links := range n.byPeer {
		for _, l := range links {
			if _, ok := l.proven[to]; ok && l.conn.Err() == nil {
				return l, nil
			}
		}
	}
	return nil, nil
}
