package gateway

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	"github.com/parley-p2p/parley/gateway/spaces"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// session is one page: what it listens to, what it waits for, and what waits
// for it. Its peer sees it as a Page (page.go). A v1 session has one link and
// ends with it; a v2 session outlives its links.
//
//	page ── reader ──▶ Peer                      requests.go: what is unsettled
//	page ◀─ writer ◀── queue ◀── Page methods    page.go: what comes in
type session struct {
	// static after construction
	g       *Gateway
	version int
	number  uint64 // of the sessions since the start
	since   time.Time
	visitor access.Visitor
	log     *slog.Logger
	ctx     context.Context // ends with the session
	cancel  context.CancelFunc

	spent int64 // owned by the reader: requests since the node takes no more

	tokenHash [sha256.Size]byte // guarded by the Gateway's mu; zero for v1

	// with locks of their own
	queue    *flow.Queue[item] // answers are Control, everything else Bulk
	requests *flow.Window      // how many more may be unsettled
	outgoing *flow.Window      // how many bytes more may be unsettled
	contents *flow.Window      // how many bytes of channels' contents more may be in the queue (v2)
	settling *flow.Window      // how many deliveries more the page may hold, of all conversations (v2)
	rate     *flow.Bucket
	work     sync.WaitGroup                    // publications that wait, and refusals
	writer   atomic.Pointer[link.Writer[item]] // of the socket that it has (v2); nil without
	spaces   *spaces.Page                      // what it has joined, and its channels; nil for v1

	mu            sync.Mutex  // guards all below
	peer          Peer        // nil until joined
	link          *link.Link  // nil while there is no socket
	grace         *time.Timer // runs while a v2 session has no socket
	stopping      bool        // the node stops: no grace any more
	expired       bool        // its grace is over, or it was dismissed: nobody may resume it
	ended         bool
	protocols     map[network.Protocol]*gate
	topics        map[string]*topicGate
	pending       map[*request]struct{}
	lanes         map[string][]func() // publications that wait behind one of their topic
	unsettled     map[uint64]network.Delivery
	delivered     uint64                 // the last delivery's number
	conversations map[pair]*conversation // that the page holds messages of (v2)
	lost          map[string]uint64      // publications dropped and not yet told
	warned        bool                   // about dropped publications, in the log
	members       int                    // in all topics, v1
}

// errClosed is what everybody gets who still wants something of an ended session.
var errClosed = &identity.Error{Code: identity.CodeClosed, Text: "peer closed"}

func newSession(g *Gateway, version int, v access.Visitor, queueBytes int) *session {
	number := g.stats.Opened.Add(1)
	s := &session{
		g: g, version: version, visitor: v, number: number, since: time.Now(),
		log:      g.log.With("session", number, "version", version),
		queue:    flow.NewQueue[item](queueBytes),
		requests: flow.NewWindow(int64(g.cfg.Requests)),
		outgoing: flow.NewWindow(int64(g.cfg.OutboxTotal)),
		settling: flow.NewWindow(maxDeliveries),
		rate:     flow.NewBucket(float64(g.cfg.RequestRate), 2*float64(g.cfg.RequestRate)),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if version == 2 {
		s.contents = flow.NewWindow(s.contentRoom())
		s.spaces = spaces.New(s.joinSpace, toPage{s})
	}
	return s
}

// join gives the session its peer.
func (s *session) join(ctx context.Context, key identity.Key, share bool) error {
	var peer Peer
	err := link.Guard(s.log, func() (err error) {
		peer, err = s.g.backend.Join(ctx, JoinRequest{Key: key, Share: share}, s)
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	ended := s.ended // the node stops
	if !ended {
		s.peer = peer
		s.log = s.log.With("peer", key.PeerID().String())
	}
	s.mu.Unlock()
	if ended {
		peer.Leave()
		return errClosed
	}
	return nil
}

// end ends the session, once. What the page has not settled is refused, and its
// peer is free when end returns.
func (s *session) end() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	s.stopGrace()
	peer, unsettled, conversations := s.peer, s.unsettled, s.conversations
	s.unsettled, s.conversations, s.pending = nil, nil, nil
	s.mu.Unlock()

	s.cancel()
	for _, close := range []func(error){s.queue.Close, s.requests.Close, s.outgoing.Close, s.settling.Close} {
		close(errClosed)
	}
	s.refuseAll(unsettled, conversations)
	if s.spaces != nil {
		s.contents.Close(errClosed)
		s.spaces.Close()
	}
	if peer != nil {
		peer.Leave()
	}
	s.work.Wait()
	s.g.gone(s)
}

// frees reports whether the session has this peer, and is ending: a v1 session
// ends with its socket.
func (s *session) frees(id identity.PeerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ending := s.ended || s.version == 1 && s.link.Why() != nil
	return ending && s.peer != nil && s.peer.Key().PeerID() == id
}

// stop ends the session because the node stops: what the page waits for is
// answered with an error first. It does not wait: there may be many.
func (s *session) stop() {
	s.failPending(errClosed)
	s.mu.Lock()
	s.stopping = true
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.End(link.Stopping)
	} else {
		s.g.work.Go(s.end)
	}
}

// dismiss ends the session of a page that may not be here any more. A socket that
// was being lost at that moment gets no grace.
func (s *session) dismiss() {
	s.mu.Lock()
	l := s.link
	s.expired = true
	s.mu.Unlock()
	if l != nil {
		l.Drop(dismissed)
	} else {
		s.end()
	}
}

var dismissed = link.Violation(socket.Policy, "the person took the permission back")

// stopGrace stops the timer of a session that has a socket again, or ends.
// Called with mu.
func (s *session) stopGrace() {
	if s.grace != nil && s.grace.Stop() {
		s.g.work.Done()
	}
	s.grace = nil
}

// item is something that waits to be written. What its fields hold depends on
// the kind.
type item struct {
	kind itemKind
	flag bool       // presence: joined
	id   int64      // of the request; ack: its number
	n    int64      // level; request of an ack
	text string     // topic, or name of an event
	data []byte     // an encoded result; JSON for v1
	gate *topicGate // the subscription it belongs to
	ref  any        // see the kinds
}

type itemKind uint8

const (
	itemResult      itemKind = iota // id, data: encoded; none is null
	itemLevel                       // id, n: the level that a send reached (v2)
	itemReply                       // id, ref: Content (v2)
	itemError                       // id, ref: *identity.Error
	itemFailure                     // id, n: v1 code, text
	itemAck                         // id, n: ack number; the push and the response (v1)
	itemNoFiles                     // text: peer (v1)
	itemNoFile                      // text: cid, ref: *identity.Error (v1)
	itemMessage                     // ref: Delivery, data: JSON (v1)
	itemPublication                 // gate, ref: *Publication, data: JSON (v1)
	itemPresence                    // gate, text: topic, flag: joined, ref: Member
	itemEvent                       // text, data (v2)
	itemContent                     // id: channel, data (v2)
	itemCredit                      // id: channel, n (v2)
	itemIncoming                    // id: channel, n: window, text: space, ref: ChannelInfo (v2)
	itemEnd                         // id: channel, flag: more, text: code, ref: text (v2)
)

// itemOverhead is what an item counts for besides its data, and itemRoom the most
// that its frame has around it.
const (
	itemOverhead = 64
	itemRoom     = 1 << 10
)

// push queues an item that is never dropped, over the queue's bound: an answer,
// or a change of membership. Their number is bounded by what the page asked for;
// a page that takes none of them is let go.
func (s *session) push(class flow.Class, it item, size int) {
	if s.queue.PushAlways(class, it, size+itemOverhead) == nil && s.queue.Bytes() > s.g.hardLimit() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.overflow()
	}
}

// now has an item of size bytes of content written at once, where it is a lone
// and small one and nothing is in its way; false leaves it to a push.
func (s *session) now(lone bool, it item, size int) bool {
	if !lone || size > socket.NowLimit-itemRoom {
		return false
	}
	w := s.writer.Load()
	return w != nil && w.Now(it)
}

// overflow lets go of a page that takes nothing. Called with mu.
func (s *session) overflow() {
	s.g.stats.Flooded.Add(1)
	switch {
	case s.link != nil:
		s.link.Drop(link.Flooded)
	case s.grace != nil && s.grace.Stop():
		s.grace.Reset(0) // what can't be kept for the page ends its session
	}
}

// result and fail answer a request.
func (s *session) result(id int64, encoded []byte) {
	s.push(flow.Control, item{kind: itemResult, id: id, data: encoded}, len(encoded))
}

func (s *session) fail(id int64, err error) {
	e := asError(err)
	s.push(flow.Control, item{kind: itemError, id: id, ref: e}, len(e.Text))
}

// retryHint is what a limit without a hint of its own is told with: room comes when
// something ends.
const retryHint = time.Second

// asError gives the error as pages see it: limits with a hint when to come again. A
// fault of parley shows no detail.
func asError(err error) *identity.Error {
	if e := v2.AsError(err); e != nil {
		if e.RetryAfter > 0 || e.Code != identity.CodeLimit && e.Code != identity.CodeQueueFull {
			return e
		}
		hinted := *e
		hinted.RetryAfter = retryHint
		return &hinted
	}
	return &identity.Error{Code: identity.CodeInternal, Text: "internal error", Err: err}
}

// limited is nil while the page asks slowly enough.
func (s *session) limited() error {
	ok, retry := s.rate.Allow(1, time.Now())
	if ok {
		return nil
	}
	s.g.stats.Limited.Add(1)
	return &identity.Error{Code: identity.CodeLimit, RetryAfter: max(retry, time.Millisecond),
		Text: "too many requests, limit " + itoa(s.g.cfg.RequestRate) + " a second"}
}
