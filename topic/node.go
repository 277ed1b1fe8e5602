package topic

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Network is what topic needs of the node's network, for presence.
type Network interface {
	Open(ctx context.Context, to identity.PeerID, protocols ...network.Protocol) (network.Stream, error)
	Handle(p network.Protocol, h network.Handler) (remove func())
}

// Config configures a Node. The zero value is right for tests.
type Config struct {
	// Namespace goes before every topic on the network, with a slash (gateway.md
	// §6.3). Empty for none.
	Namespace string

	MaxTopics     int // topics in use on the node at once; 0 = 10,000
	MaxPageTopics int // topics one page subscribes to; 0 = 1,000

	// Addresses gives the multiaddrs at which a page of this node is reached,
	// for its presence record; at most 16 of 256 bytes are told. nil for none.
	// It must not block.
	Addresses func(page identity.PeerID) []string

	// Learned is told where a member on another node says it is reached. nil to
	// not care. It must not block.
	Learned func(member identity.PeerID, addresses []string)

	Log *slog.Logger // nil: nothing is logged
}

const (
	defaultMaxTopics     = 10_000
	defaultMaxPageTopics = 1_000

	maxLiars = 4096 // nodes whose bad presence is counted; the oldest is forgotten
)

// Node is the topics of one node: every page of it publishes and subscribes
// here. Make it with New; it works while Run runs.
type Node struct {
	// static after New
	router  *Router
	network Network
	config  Config
	log     *slog.Logger
	counts  counters
	liars   *flow.Offenders[identity.PeerID] // nodes whose presence can't be read
	ctx     context.Context                  // ends when Run returns
	stop    context.CancelFunc
	running chan struct{} // closed by Run
	tasks   sync.WaitGroup

	mu      sync.Mutex
	rooms   map[string]*room
	closing map[string]<-chan struct{} // rooms that are closed but not gone yet
	closed  bool
	told    presence
}

// New makes a Node on the node's router. net carries presence; nil turns it off,
// and every peer of the router is then listed as itself (p2p.router = "page").
func New(router *Router, net Network, config Config) *Node {
	if config.MaxTopics <= 0 {
		config.MaxTopics = defaultMaxTopics
	}
	if config.MaxPageTopics <= 0 {
		config.MaxPageTopics = defaultMaxPageTopics
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{router: router, network: net, config: config,
		log:     config.Log.With("component", "topic"),
		liars:   flow.NewOffenders[identity.PeerID](flow.DefaultOffences(), maxLiars),
		running: make(chan struct{}),
		rooms:   make(map[string]*room), closing: make(map[string]<-chan struct{}), told: newPresence()}
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

// Run serves topics until ctx ends, and returns when everything that it started
// has ended. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	if n.network != nil {
		defer n.network.Handle(presenceProtocol, n.listen)()
	}
	close(n.running)
	n.loop(ctx)
	n.mu.Lock()
	n.closed = true
	rooms := make([]*room, 0, len(n.rooms))
	for _, r := range n.rooms {
		rooms = append(rooms, r)
	}
	n.mu.Unlock()
	n.stop()
	for _, r := range rooms {
		r.queue.Close(errClosed)
	}
	n.tasks.Wait()
	return nil
}

var errClosed = &identity.Error{Code: identity.CodeClosed, Text: "node is closed"}

func (n *Node) loop(ctx context.Context) {
	renew := time.NewTicker(recordLife / 4)
	defer renew.Stop()
	for {
		select {
		case <-n.router.meter.upped:
			n.peersUp()
		case now := <-renew.C:
			n.renewRecords(now)
		case <-ctx.Done():
			return
		}
	}
}

// peersUp tells the rooms which peers the router can send to from now on.
func (n *Node) peersUp() {
	ups := n.router.meter.takeUps()
	n.mu.Lock()
	rooms := make([]*room, 0, len(n.rooms))
	for _, r := range n.rooms {
		rooms = append(rooms, r)
	}
	n.mu.Unlock()
	for _, r := range rooms {
		for p := range ups {
			r.post(func() { r.peerReady(p) })
		}
	}
}

// spawn starts f, which Run waits for; false where the node is closed. The
// caller holds mu.
func (n *Node) spawn(f func()) bool {
	if n.closed {
		return false
	}
	n.tasks.Go(f)
	return true
}

// enter gives the room of a topic, made if needed, and holds it until leave.
func (n *Node) enter(ctx context.Context, name string) (*room, error) {
	select {
	case <-n.running:
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	r, ok := n.rooms[name]
	if !ok {
		if len(n.rooms) >= n.config.MaxTopics {
			return nil, identity.Errorf(identity.CodeLimit, "too many topics on this node, limit %d", n.config.MaxTopics)
		}
		r = newRoom(n, name, n.closing[name])
		n.rooms[name] = r
		n.tasks.Go(r.run)
	}
	r.holds++
	if r.linger != nil {
		r.linger.Stop()
		r.linger = nil
	}
	return r, nil
}

// lingerFor keeps a room that nobody holds, so that a page that only publishes
// doesn't make it anew each time.
const lingerFor = 10 * time.Second

// leave gives back one hold on r.
func (n *Node) leave(r *room) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.holds--; r.holds == 0 && !n.closed {
		r.linger = time.AfterFunc(lingerFor, func() { n.discard(r) })
	}
}

// discard closes a room that nobody holds.
func (n *Node) discard(r *room) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.holds > 0 || n.rooms[r.name] != r {
		return
	}
	delete(n.rooms, r.name)
	n.closing[r.name] = r.gone
	r.queue.Close(errClosed)
}

// roomGone is called by a room's loop when it has ended.
func (n *Node) roomGone(r *room) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing[r.name] == r.gone {
		delete(n.closing, r.name)
	}
	if r.linger != nil {
		r.linger.Stop()
	}
}

// Join makes a session's hold on the topics, for the peer of key. Several
// sessions may have one key: each has its own subscriptions, and the peer is a
// member of a topic while any of them is.
func (n *Node) Join(key identity.Key, sink Sink) *Page {
	pacer, _ := sink.(Pacer)
	return &Page{node: n, key: key, agent: key, id: key.PeerID(), sink: sink, pacer: pacer,
		turn: flow.NewWindow(1), rooms: make(map[string]*room)}
}

// contextError is the error of a caller that gave up.
func contextError(ctx context.Context) error {
	return &identity.Error{Code: identity.CodeCancelled, Text: "the caller gave up", Err: ctx.Err()}
}
