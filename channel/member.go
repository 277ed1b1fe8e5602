package channel

import (
	"context"
	"crypto/rand"
	"fmt"
	"unicode/utf8"

	"golang.org/x/crypto/blake2b"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
)

// spaceRef is a Space; it holds nothing, so it needs no closing.
type spaceRef struct {
	node *Node
	name string
	hash SpaceHash
}

// space is a space that agents of this node have joined. Its fields are guarded
// by Node.mu.
type space struct {
	hash      SpaceHash
	members   map[identity.AgentID]*member
	listeners map[string]int // how many members listen to a protocol
}

// member is an agent in a space on this node.
type member struct {
	node  *Node
	space *space
	key   identity.Agent
	agent identity.AgentID

	// guarded by Node.mu
	left      bool
	listeners map[string]*listener
	system    *system
}

func (r *spaceRef) Hash() SpaceHash { return r.hash }

// Join registers the agent once it has signed a challenge of this node.
func (r *spaceRef) Join(ctx context.Context, agent identity.Agent, _ ...JoinOption) (Member, error) {
	if len(r.name) == 0 || len(r.name) > MaxSpaceName || !utf8.ValidString(r.name) {
		return nil, errorf(BadSpace, "a space's name is 1 to 255 bytes of UTF-8")
	}
	if err := r.node.running(ctx); err != nil {
		return nil, err
	}
	id := agent.Agent()
	challenge, err := joinChallenge(r.hash, id)
	if err != nil {
		return nil, err
	}
	if !identity.Verify(id, challenge, agent.Sign(challenge)) {
		return nil, errorf(BadFrom, "the agent did not prove its key")
	}
	m, err := r.node.join(r.hash, agent)
	if err != nil {
		return nil, err
	}
	r.node.announce(m)
	return m, nil
}

// joinChallenge is what an agent signs to show the node that it holds its key.
func joinChallenge(space SpaceHash, agent identity.AgentID) ([]byte, error) {
	buf := make([]byte, 32, 128)
	if _, err := rand.Read(buf); err != nil {
		return nil, fmt.Errorf("random challenge: %w", err)
	}
	buf = append(append(append(buf, "parley/join/1"...), space[:]...), agent[:]...)
	d := blake2b.Sum256(buf)
	return d[:], nil
}

func (n *Node) join(hash SpaceHash, agent identity.Agent) (*member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil || n.stopped {
		return nil, ErrClosed
	}
	id := agent.Agent()
	s := n.spaces[hash]
	switch {
	case s != nil && s.members[id] != nil:
		return nil, errorf(Duplicate, "the agent has joined this space on this node")
	case n.members >= n.limits.Members:
		n.refused[2]++
		return nil, errorf(Limit, "too many agents have joined spaces on this node")
	case s == nil:
		s = &space{hash: hash, members: make(map[identity.AgentID]*member), listeners: make(map[string]int)}
		n.spaces[hash] = s
		n.hashes[hash] = target{space: s}
	}
	m := &member{node: n, space: s, key: agent, agent: id, listeners: make(map[string]*listener)}
	s.members[id] = m
	n.members++
	n.membersChanged()
	return m, nil
}

func (n *Node) announce(m *member) {
	if n.cfg.Locator != nil {
		n.cfg.Locator.Announce(m.space.hash, m.key, n.Relays())
	}
}

// Agent is the member's name.
func (m *member) Agent() identity.AgentID { return m.agent }

// Leave ends the member's listeners, channels and system channels.
func (m *member) Leave(ctx context.Context) error {
	n := m.node
	n.mu.Lock()
	if m.left {
		n.mu.Unlock()
		return errLeft()
	}
	m.left = true
	listeners := m.listeners
	system := m.system
	m.listeners = nil
	s := m.space
	delete(s.members, m.agent)
	n.members--
	n.membersChanged()
	for protocol := range listeners {
		n.unlisten(s, protocol)
	}
	if len(s.members) == 0 {
		delete(n.spaces, s.hash)
		delete(n.hashes, s.hash)
	}
	links := n.allLinks()
	n.mu.Unlock()

	for _, l := range listeners {
		l.end(errLeft())
	}
	for _, l := range links {
		l.conn.Each(func(s *conn.Stream) {
			if ch, ok := s.User().(*channel); ok && ch.member == m {
				s.Close()
			}
		})
	}
	if n.cfg.Locator != nil {
		n.cfg.Locator.Withdraw(s.hash, m.agent)
	}
	if system != nil {
		return system.Close()
	}
	return ctx.Err()
}

func errLeft() *Error { return errorf(NotJoined, "the agent has left the space") }

// allLinks is called with the lock held.
func (n *Node) allLinks() []*link {
	links := make([]*link, 0, len(n.links)+2)
	for l := range n.links {
		links = append(links, l)
	}
	if n.loop != nil {
		links = append(links, n.loop.near, n.loop.far)
	}
	return links
}

// listener takes the channels of one protocol for one member.
type listener struct {
	member     *member
	protocol   string
	unverified bool
	queue      chan *channel
	done       chan struct{} // closed when it has ended
	err        error         // why; set before done is closed
	ended      bool          // guarded by Node.mu
}

// Listen registers the member for a protocol.
func (m *member) Listen(protocol string, opts ...ListenOption) (Listener, error) {
	n := m.node
	if protocol == "" || len(protocol) > MaxProtocol || !utf8.ValidString(protocol) {
		return nil, errorf(BadSpace, "a protocol is 1 to 64 bytes of UTF-8")
	}
	o := listenOptions{backlog: n.limits.Backlog}
	for _, opt := range opts {
		opt(&o)
	}
	l := &listener{
		member: m, protocol: protocol, unverified: o.unverified,
		queue: make(chan *channel, max(o.backlog, 1)), done: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.stopped:
		return nil, ErrClosed
	case m.left:
		return nil, errLeft()
	case m.listeners[protocol] != nil:
		return nil, errorf(Duplicate, "the agent listens to this protocol already")
	}
	m.listeners[protocol] = l
	m.space.listeners[protocol]++
	n.hashes[m.space.hash.App(protocol)] = target{space: m.space, protocol: protocol}
	return l, nil
}

// unlisten forgets the hash of a protocol that nobody here listens to any more.
// It is called with the lock held.
func (n *Node) unlisten(s *space, protocol string) {
	if s.listeners[protocol]--; s.listeners[protocol] <= 0 {
		delete(s.listeners, protocol)
		delete(n.hashes, s.hash.App(protocol))
	}
}

// Accept waits for a channel.
func (l *listener) Accept(ctx context.Context) (Channel, error) {
	select {
	case ch := <-l.queue:
		return ch, nil
	default:
	}
	select {
	case ch := <-l.queue:
		return ch, nil
	case <-l.done:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close stops listening.
func (l *listener) Close() error {
	n := l.member.node
	n.mu.Lock()
	if l.member.listeners[l.protocol] == l {
		delete(l.member.listeners, l.protocol)
		n.unlisten(l.member.space, l.protocol)
	}
	n.mu.Unlock()
	l.end(errorf(Closed, "the listener is closed"))
	return nil
}

// end lets Accept fail and refuses what waits.
func (l *listener) end(why error) {
	n := l.member.node
	n.mu.Lock()
	if l.ended {
		n.mu.Unlock()
		return
	}
	l.ended = true
	l.err = why
	close(l.done)
	n.mu.Unlock()
	for {
		select {
		case ch := <-l.queue:
			ch.Fail(BadSpace, "nobody listens to this protocol any more")
		default:
			return
		}
	}
}

// offer queues a channel for Accept; the error says why it can't.
func (l *listener) offer(ch *channel) *Error {
	n := l.member.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.ended {
		return errorf(BadSpace, "nobody listens to this protocol any more")
	}
	select {
	case l.queue <- ch:
		return nil
	default:
		return errorf(Limit, "too many channels wait to be accepted")
	}
}
