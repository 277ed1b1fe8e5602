package peer

import (
	"context"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Peer is one key on the network: the conversations it has, and the sessions
// (Member) that share it. It is safe for use by any number of goroutines. It
// owns its goroutines; Close waits for them.
type Peer struct {
	// Static after construction.
	node   *Node
	cfg    *Config
	net    network.Network
	id     identity.PeerID
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	// registering makes Start and Stop one at a time, so that the handlers on
	// the network follow the listening protocols. It is taken before mu.
	registering sync.Mutex
	withdraw    func() // guarded by registering: takes ownPeer off the network; nil before announce

	// Guarded by mu. It is never held over I/O or a call to the outside, but for
	// setting a stream's deadline.
	mu            sync.Mutex
	closed        bool
	members       map[*Member]struct{}
	listening     map[network.Protocol]*listening
	generation    uint64 // of the newest change of who listens
	conversations map[conversationKey]*conversation
	bytes         int                  // unsettled, of all conversations
	overBytes     int                  // of them, what waits for room in an outbox
	full          deque[*conversation] // those with something that waits so, in turn
	streams       int                  // incoming
	remoteStreams map[identity.PeerID]int
	current       map[currentKey]*inStream // the newest of each remote and protocol
	inboxes       map[inboxKey]*inbox
	references    map[currentKey]*refLane
	seen          seen
	memory        time.Time   // every epoch met since then is remembered
	sweeper       *time.Timer // forgets old inboxes; nil while there are none
	hasty         hasty

	wg sync.WaitGroup
}

type conversationKey struct {
	to       identity.PeerID
	protocol network.Protocol
}

// listening is a protocol that at least one member started.
type listening struct {
	generation uint64 // of the last change of subs; no two changes of a peer share one
	subs       []*subscription
	remove     []func() // takes the handlers off the network
}

// subscription is one member's listening to one protocol.
type subscription struct {
	member *Member
	ctx    context.Context // ends with Stop
	cancel context.CancelFunc

	// Guarded by the peer's mu.
	active int           // calls of Receive that run
	idle   chan struct{} // made by Stop when active > 0, closed at 0
}

func newPeer(n *Node, net network.Network) *Peer {
	ctx, cancel := context.WithCancel(context.Background())
	return &Peer{node: n, cfg: &n.cfg, net: net, id: net.Local(), ctx: ctx, cancel: cancel,
		members:       make(map[*Member]struct{}),
		listening:     make(map[network.Protocol]*listening),
		conversations: make(map[conversationKey]*conversation),
		remoteStreams: make(map[identity.PeerID]int),
		current:       make(map[currentKey]*inStream),
		inboxes:       make(map[inboxKey]*inbox),
		references:    make(map[currentKey]*refLane),
		memory:        time.Now(),
	}
}

// ID is the peer's name on the network.
func (p *Peer) ID() identity.PeerID { return p.id }

// Join lets a session share the peer. It never blocks. After Close the member
// can do nothing.
func (p *Peer) Join(r network.Receiver) *Member {
	m := &Member{peer: p, receiver: r, settles: r.SettlesDeliveries(),
		subs: make(map[network.Protocol]*subscription)}
	m.open.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		m.left = true
		return m
	}
	p.members[m] = struct{}{}
	return m
}

// Close ends the peer: members leave, unsettled sends are answered with "peer
// closed", senders to it are told, its id is free at once. It returns when
// nothing of the peer runs any more, and is idempotent. It must not be called
// from a Receiver or a Done.
func (p *Peer) Close() {
	p.node.remove(p)
	p.mu.Lock()
	p.closed = true
	members := make([]*Member, 0, len(p.members))
	for m := range p.members {
		members = append(members, m)
	}
	var settled settlements
	for _, c := range p.conversations {
		c.fail(errPeerClosed, nil, &settled)
	}
	p.mu.Unlock()
	settled.tell()
	for _, m := range members {
		m.Leave()
	}
	p.mu.Lock()
	for _, st := range p.current {
		st.end(byeClosed, "")
	}
	for _, timer := range []*time.Timer{p.sweeper, p.hasty.timer} {
		if timer != nil {
			timer.Stop()
		}
	}
	p.mu.Unlock()
	p.retract()
	p.cancel()
	p.wg.Wait()
}

// announce lets others tell the peer from one of the reference, until Close.
func (p *Peer) announce() {
	p.registering.Lock()
	defer p.registering.Unlock()
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed || p.cfg.plainOnly {
		return
	}
	p.withdraw = p.net.Handle(ownPeer, func(_ context.Context, s network.Stream) { _ = s.Close() })
}

func (p *Peer) retract() {
	p.registering.Lock()
	defer p.registering.Unlock()
	if p.withdraw != nil {
		p.withdraw()
	}
}

// enter counts a goroutine that serves the peer; it reports false once the peer
// is closed. Whoever entered leaves by wg.Done.
func (p *Peer) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Add(1)
	return true
}

// nextGeneration numbers a change of who listens. The caller holds mu.
func (p *Peer) nextGeneration() uint64 {
	p.generation++
	return p.generation
}

// listens reports whether somebody here takes protocol.
func (p *Peer) listens(protocol network.Protocol) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listening[protocol] != nil
}

var errPeerClosed = identity.Errorf(identity.CodeClosed, "peer closed")
