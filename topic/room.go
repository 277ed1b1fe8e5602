package topic

import (
	"context"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// room is one topic in use on this node. Its loop owns its members and sinks;
// everything else reaches it through its queue.
type room struct {
	// static
	node  *Node
	name  string // as pages know it
	wire  string // as the network knows it
	queue *flow.Queue[event]
	turn  *flow.Window    // 1: whose publication is next
	prev  <-chan struct{} // the room of the same name before this one; nil for none
	open  chan struct{}   // closed when topic and openErr are set
	gone  chan struct{}   // closed when the loop has ended

	// set before open is closed
	topic   *pubsub.Topic
	openErr error
	ctx     context.Context // ends with the loop

	// shared
	view     atomic.Pointer[view]
	brake    atomic.Pointer[brake]
	somebody chan struct{} // capacity 1: a member came that kept publications wait for

	// guarded by node.mu
	holds  int
	linger *time.Timer

	// owned by who has the turn
	kept       kept
	lostLogged time.Time

	// owned by the loop
	sub      *pubsub.Subscription // nil while nobody is subscribed
	meshed   *atomic.Int64        // when the topic's mesh last grew; set with sub
	sessions map[*Page]*session
	locals   map[identity.PeerID]int // sessions of each peer of this node
	remotes  map[identity.PeerID]*remote
	early    map[identity.PeerID]map[identity.PeerID][]byte // node → members told before the router can reach it
	members  members
	order    *order
	tick     *time.Timer // when order has something to pass on; nil for never
}

// event is what a room's queue holds: one of local, remote and do.
type event struct {
	local  *publication
	alone  chan<- bool          // with local: is told whether nobody else is here
	late   bool                 // with local: for those who came after it was published
	remote remoteMessage        // where sub is set
	sub    *pubsub.Subscription // where remote came from
	do     func()
}

// view is what publishers need to know of a room; the loop replaces it.
type view struct {
	ready   []identity.PeerID // other nodes in the topic that the router can send to
	pending int               // other nodes in the topic that it can't yet
	until   time.Time         // while some are pending: when to go on without them
	locals  int               // peers of this node
	one     identity.PeerID   // the peer, where locals is 1
	stale   chan struct{}     // closed when another view holds
}

func (v *view) othersHere(than identity.PeerID) bool {
	return v.locals > 1 || v.locals == 1 && v.one != than
}

// brake tells publishers to wait for a session that is behind.
type brake struct {
	eased <-chan struct{}
	slow  *session
}

// session is a page's subscription.
type session struct {
	page    *Page
	told    bool // Subscribe has returned: presence may be told
	pending []presenceEvent
	hangs   atomic.Bool // publishers waited for it in vain
}

type presenceEvent struct {
	member network.Member
	joined bool
}

// remote is another node, or a plain GossipSub peer, in the topic.
type remote struct {
	ready bool      // the router can send to it
	plain bool      // it doesn't speak presence, and is a member itself
	since time.Time // when it was first seen
}

const (
	roomQueue  = 256 << 10 // what waits for the loop; at most 64 messages
	leastWeigh = 4 << 10
	subBuffer  = 1024 // messages of a router's subscription (gateway.md §6.2)
	earlyWait  = 750 * time.Millisecond
	readyWait  = 500 * time.Millisecond
)

func weight(size int) int { return max(size, leastWeigh) }

func newRoom(n *Node, name string, prev <-chan struct{}) *room {
	r := &room{node: n, name: name, wire: wireName(n.config.Namespace, name), prev: prev,
		queue: flow.NewQueue[event](roomQueue), turn: flow.NewWindow(1),
		open: make(chan struct{}), gone: make(chan struct{}), somebody: make(chan struct{}, 1),
		sessions: make(map[*Page]*session), locals: make(map[identity.PeerID]int),
		remotes: make(map[identity.PeerID]*remote), early: make(map[identity.PeerID]map[identity.PeerID][]byte),
		members: newMembers(), order: newOrder()}
	r.view.Store(&view{stale: make(chan struct{})})
	return r
}

// post has the loop call f. It never blocks.
func (r *room) post(f func()) { _ = r.queue.PushAlways(flow.Bulk, event{do: f}, 0) }

// call has the loop call f and returns what it gives.
func call[T any](ctx context.Context, r *room, f func() (T, error)) (T, error) {
	var none T
	if err := r.opened(ctx); err != nil {
		return none, err
	}
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	r.post(func() {
		value, err := f()
		done <- answer{value, err}
	})
	select {
	case a := <-done:
		return a.value, a.err
	case <-r.gone:
		return none, errClosed
	case <-ctx.Done():
		return none, contextError(ctx)
	}
}

// opened waits until the router knows the topic.
func (r *room) opened(ctx context.Context) error {
	select {
	case <-r.open:
		return r.openErr
	case <-r.gone:
		return errClosed
	case <-ctx.Done():
		return contextError(ctx)
	}
}

func (r *room) ready() []identity.PeerID { return r.view.Load().ready }

// run is the room's loop; it ends when the queue is closed.
func (r *room) run() {
	defer r.node.roomGone(r)
	defer close(r.gone)
	if r.prev != nil {
		<-r.prev // the router knows a topic once
	}
	ctx, cancel := context.WithCancel(r.node.ctx)
	defer cancel()
	r.ctx = ctx
	handler, err := r.join()
	if err != nil {
		r.openErr = identity.Errorf(identity.CodeClosed, "join topic: %w", err)
	}
	close(r.open)
	if err == nil {
		defer r.part(handler)
		r.node.mu.Lock()
		r.node.spawn(func() { r.watch(ctx, handler) })
		r.node.mu.Unlock()
		r.seed()
	}
	var batch []event
	for {
		batch, err = r.queue.Pop(r.node.ctx, roomQueue, batch[:0])
		if err != nil {
			return
		}
		for i := range batch {
			r.handle(&batch[i])
		}
		clear(batch)
	}
}

// join makes the topic known to the router.
func (r *room) join() (*pubsub.TopicEventHandler, error) {
	topic, err := r.node.router.pubsub.Join(r.wire)
	if err != nil {
		return nil, err
	}
	r.topic = topic
	_ = topic.SetScoreParams(topicScoreParams())
	handler, err := topic.EventHandler()
	if err != nil {
		_ = topic.Close()
	}
	return handler, err
}

func (r *room) part(handler *pubsub.TopicEventHandler) {
	if r.tick != nil {
		r.tick.Stop()
	}
	for p := range r.remotes {
		r.node.partNode(p, r.wire)
	}
	handler.Cancel()
	r.stopReading()
	r.node.router.meter.forgetMesh(r.wire)
	_ = r.topic.Close()
}

// watch brings the router's news of who is in the topic.
func (r *room) watch(ctx context.Context, handler *pubsub.TopicEventHandler) {
	for {
		ev, err := handler.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		if ev.Type == pubsub.PeerJoin {
			r.post(func() { r.peerJoined(ev.Peer) })
		} else {
			r.post(func() { r.peerLeft(ev.Peer) })
		}
	}
}

func (r *room) handle(e *event) {
	switch {
	case e.do != nil:
		e.do()
	case e.local != nil:
		r.deliverLocal(e)
	case e.sub == r.sub:
		r.deliverRemote(e.remote)
	}
}
