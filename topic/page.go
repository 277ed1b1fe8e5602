package topic

import (
	"context"
	"sync/atomic"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Sink takes what comes for one session. Its methods are called by one goroutine
// a topic and must not block.
type Sink interface {
	// Publish takes a publication of a subscribed topic. One publisher's come in
	// its order, each once.
	Publish(p network.Publication)
	// Presence tells that a member came, changed its state, or went.
	Presence(topic string, m network.Member, joined bool)
}

// Pacer is a Sink that can tell when it is behind, so that publishers on this
// node wait for it before it has to drop.
type Pacer interface {
	// Behind gives nil while there is ample room, and otherwise a channel that
	// is closed when there is again. It must not block.
	Behind() <-chan struct{}
}

// Page is one session's hold on the topics. Its methods may be called by any
// goroutine, also from a Sink's methods, where they must not be waited for.
type Page struct {
	// static
	node  *Node
	key   identity.Key   // signs publications; none where it only attends
	agent identity.Agent // signs presence
	id    identity.PeerID
	own   bool // topics of parley itself, and nothing published
	sink  Sink
	pacer Pacer        // nil where the sink is none
	turn  *flow.Window // 1: one subscribe or unsubscribe at a time

	left atomic.Bool

	// guarded by node.mu
	rooms map[string]*room // subscribed topics
}

// Subscribe joins a topic and returns who is in it now without the own peer,
// complete as far as this node's pages go; changes follow by Sink.Presence. It
// is idempotent; state replaces the last one and is one CBOR item of at most 1
// KiB, nil for none. Errors: CodeMalformed, CodeReserved, CodeTooLarge (the
// state), CodeLimit, CodeCancelled, CodeClosed.
func (p *Page) Subscribe(ctx context.Context, topic string, state []byte) ([]network.Member, error) {
	if err := p.check(topic); err != nil {
		return nil, err
	}
	if err := checkState(state); err != nil {
		return nil, err
	}
	if p.turn.Take(ctx, 1) != nil {
		return nil, contextError(ctx)
	}
	defer p.turn.Give(1, 1)
	r, fresh, err := p.enter(ctx, topic)
	if err != nil {
		return nil, err
	}
	found, err := call(ctx, r, func() ([]network.Member, error) { return r.subscribe(p, state) })
	if err != nil {
		if fresh {
			p.exit(r)
		}
		return nil, err
	}
	r.post(func() { r.tellPending(p) })
	return found, nil
}

// enter holds the room of a topic for as long as it is subscribed; fresh is true
// where it was not before.
func (p *Page) enter(ctx context.Context, topic string) (r *room, fresh bool, err error) {
	n := p.node
	if p.left.Load() {
		return nil, false, errLeft
	}
	n.mu.Lock()
	r, there := p.rooms[topic]
	count := len(p.rooms)
	n.mu.Unlock()
	if there {
		return r, false, nil
	}
	if count >= n.config.MaxPageTopics {
		return nil, false, identity.Errorf(identity.CodeLimit, "too many topics subscribed, limit %d", n.config.MaxPageTopics)
	}
	if r, err = n.enter(ctx, topic); err != nil {
		return nil, false, err
	}
	n.mu.Lock()
	p.rooms[topic] = r
	n.mu.Unlock()
	return r, true, nil
}

var errLeft = &identity.Error{Code: identity.CodeClosed, Text: "page has left"}

// Unsubscribe leaves a topic; nothing of it comes after it returned. It is
// idempotent.
func (p *Page) Unsubscribe(topic string) error {
	if err := p.check(topic); err != nil {
		return err
	}
	if p.turn.Take(p.node.ctx, 1) != nil {
		return errClosed
	}
	defer p.turn.Give(1, 1)
	p.node.mu.Lock()
	r, there := p.rooms[topic]
	p.node.mu.Unlock()
	if there {
		p.exit(r)
	}
	return nil
}

// exit ends a subscription, also one that only half began.
func (p *Page) exit(r *room) {
	_, _ = call(p.node.ctx, r, func() (struct{}, error) { r.unsubscribe(p); return struct{}{}, nil })
	p.node.mu.Lock()
	delete(p.rooms, r.name)
	p.node.mu.Unlock()
	p.node.leave(r)
}

// Leave ends the session's hold; nothing comes after it returned. It waits for
// calls of its sink that are under way. It may be called more than once.
func (p *Page) Leave() {
	n := p.node
	p.left.Store(true)
	if p.turn.Take(n.ctx, 1) != nil {
		return // the node is closed, and its rooms with it
	}
	defer p.turn.Give(1, 1)
	n.mu.Lock()
	rooms := make([]*room, 0, len(p.rooms))
	for _, r := range p.rooms {
		rooms = append(rooms, r)
	}
	n.mu.Unlock()
	for _, r := range rooms {
		r.post(func() { r.unsubscribe(p) }) // all at once, then wait for each
	}
	for _, r := range rooms {
		p.exit(r)
	}
}

// Members lists who is in a topic now, without the own peer; nobody where the
// topic isn't in use on this node. For "" it lists every peer that the node
// knows in any topic and every connected pubsub peer; parley's nodes themselves
// are not members.
func (p *Page) Members(topic string) []network.Member {
	n := p.node
	if topic == "" {
		return n.everyone(p.id)
	}
	n.mu.Lock()
	r, ok := n.rooms[topic]
	n.mu.Unlock()
	if !ok {
		return nil
	}
	found, _ := call(n.ctx, r, func() ([]network.Member, error) { return r.members.others(p.id), nil })
	return found
}

// everyone is Members for "".
func (n *Node) everyone(self identity.PeerID) []network.Member {
	n.mu.Lock()
	rooms := make([]*room, 0, len(n.rooms))
	for _, r := range n.rooms {
		rooms = append(rooms, r)
	}
	n.mu.Unlock()
	seen := map[identity.PeerID]struct{}{self: {}}
	var all []network.Member
	add := func(m network.Member) {
		if _, there := seen[m.Peer]; !there {
			seen[m.Peer] = struct{}{}
			all = append(all, network.Member{Peer: m.Peer})
		}
	}
	for _, r := range rooms {
		found, _ := call(n.ctx, r, func() ([]network.Member, error) { return r.members.others(self), nil })
		for _, m := range found {
			add(m)
		}
	}
	for _, id := range n.router.pubsub.ListPeers("") {
		if n.network == nil || !n.router.speaksPresence(id) {
			add(network.Member{Peer: id})
		}
	}
	return all
}
