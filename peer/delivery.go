package peer

import (
	"context"
	"errors"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// delivery is a message that came in for a peer. Each member that started its
// protocol gets a share of it; the first that settles its share settles the
// delivery.
type delivery struct {
	// Static once offered.
	peer     *Peer // who receives it
	from     identity.PeerID
	protocol network.Protocol
	content  network.Content
	flags    uint64
	cost     int // in the window

	// Where the outcome goes: to an inbox …
	in  *inbox
	seq uint64
	// … or to a conversation of a peer of this node.
	conv  *conversation
	entry *entry
	// … or nowhere: the reference's framing knows no settlement, only credit.
	lane *refLane

	// Guarded by the peer's mu.
	verdict   verdict
	settled   bool
	open      int  // shares that can still settle it
	took      int  // shares that were taken
	tookFinal bool // one of them by a receiver that settles nothing
	one       share
}

// verdict is how a delivery ended.
type verdict struct {
	level uint64           // wireHandled, wireTaken or verdictRefused
	reply *network.Content // with wireHandled
	code  identity.Code    // with verdictRefused
	text  string
}

// verdictRefused is no level on the wire: refusals have a frame of their own.
const verdictRefused = ^uint64(0)

// share is one member's part in a delivery; it is the network.Delivery that a
// Receiver gets.
type share struct {
	d *delivery
	m *Member

	// Guarded by the peer's mu.
	taken      bool
	done       bool
	prev, next *share // in m.open
}

var (
	_ network.Delivery = (*share)(nil)
	_ network.Lone     = (*share)(nil)
)

func (s *share) From() identity.PeerID      { return s.d.from }
func (s *share) Protocol() network.Protocol { return s.d.protocol }
func (s *share) Content() network.Content   { return s.d.content }
func (s *share) WantsReply() bool           { return s.d.flags&flagReply != 0 }
func (s *share) Lone() bool                 { return s.d.flags&flagLone != 0 }
func (s *share) Handled()                   { s.settle(verdict{level: wireHandled}) }

func (s *share) Reply(c network.Content) {
	if limit := s.d.peer.cfg.MaxMessage; len(c.Data) > limit {
		s.Refuse(errTooLarge(len(c.Data), limit))
		return
	}
	v := verdict{level: wireHandled}
	if s.WantsReply() {
		v.reply = &c
	}
	s.settle(v)
}

func (s *share) Refuse(err error) { s.settle(refusedBy(err)) }

// refusedBy is the verdict of an error.
func refusedBy(err error) verdict {
	v := verdict{level: verdictRefused, code: identity.CodeRefused, text: "refused"}
	var e *identity.Error
	switch {
	case errors.As(err, &e):
		v.code, v.text = e.Code, e.Error()
	case err != nil:
		v.text = err.Error()
	}
	return v
}

// settle ends the share with v.
func (s *share) settle(v verdict) {
	d := s.d
	var st *inStream
	d.peer.mu.Lock()
	if d.in != nil && d.in.stream != nil {
		st = d.in.stream
		st.held = true
	}
	ended := s.end(v)
	now := false
	if st != nil {
		st.held = false
		now = st.claimNow(d)
	}
	d.peer.mu.Unlock()
	if now {
		st.writeNow()
	}
	if ended {
		d.report()
	}
}

// end ends the share and reports whether that settled the delivery. The caller
// holds mu.
func (s *share) end(v verdict) bool {
	if s.done {
		return false
	}
	s.done = true
	s.m.open.remove(s)
	d := s.d
	d.open--
	if d.settled {
		return false
	}
	switch {
	case v.level == wireHandled:
		return d.settle(v)
	case v.level == wireTaken:
		d.tookFinal = true
	default:
		d.verdict = v
	}
	if d.open > 0 {
		return false
	}
	if d.tookFinal {
		return d.settle(verdict{level: wireTaken})
	}
	return d.settle(d.verdict)
}

// settle ends the delivery. The caller holds mu and calls report afterwards.
func (d *delivery) settle(v verdict) bool {
	d.verdict, d.settled = v, true
	switch {
	case d.in != nil:
		d.in.deliverySettled(d)
	case d.lane != nil:
		d.lane.credit.Give(int64(d.cost), int64(d.peer.cfg.MaxWindow))
	}
	return true
}

// report tells a conversation of this node; streams are told by their inbox.
func (d *delivery) report() {
	if d.conv != nil {
		d.conv.localSettled(d.entry, d.verdict)
	}
}

// route is where the messages of one stream go: the members that listen, as of
// generation. Owned by the goroutine that serves the stream.
type route struct {
	peer       *Peer
	protocol   network.Protocol
	ctx        context.Context // ends with the stream
	generation uint64
	targets    []target
	shares     []*share
}

type target struct {
	sub    *subscription
	ctx    context.Context // ends with the stream or the subscription
	cancel func()
}

// refresh follows changes of who listens; false when nobody does. The caller
// holds mu.
func (r *route) refresh() bool {
	l := r.peer.listening[r.protocol]
	if l == nil {
		return false
	}
	if l.generation == r.generation {
		return true
	}
	r.close()
	for _, sub := range l.subs {
		ctx, cancel := context.WithCancel(sub.ctx)
		stop := context.AfterFunc(r.ctx, cancel)
		r.targets = append(r.targets, target{sub, ctx, func() { stop(); cancel() }})
	}
	r.generation = l.generation
	return true
}

// close lets go of the contexts.
func (r *route) close() {
	for _, t := range r.targets {
		t.cancel()
	}
	r.targets, r.generation = nil, 0
}

// share prepares d for every member that listens; false when nobody does. The
// caller holds mu, and calls offer next.
func (r *route) share(d *delivery) bool {
	if !r.refresh() {
		return false
	}
	r.shares = r.shares[:0]
	for i, t := range r.targets {
		s := &d.one
		if i > 0 {
			s = new(share)
		}
		s.d, s.m = d, t.sub.member
		d.open++
		t.sub.active++
		s.m.open.add(s)
		r.shares = append(r.shares, s)
	}
	return true
}

// offer gives d to the members and returns when each has taken it or not. An
// error means that none has.
func (r *route) offer(d *delivery) error {
	if len(r.targets) == 1 {
		t := r.targets[0]
		return r.offered(d, 0, t.sub.member.receiver.Receive(t.ctx, r.shares[0]))
	}
	results := make(chan error, len(r.targets))
	for i, t := range r.targets { // side by side: one slow page must not keep it from the others
		go func() {
			results <- r.offered(d, i, t.sub.member.receiver.Receive(t.ctx, r.shares[i]))
		}()
	}
	var failed error
	taken := false
	for range r.targets {
		if err := <-results; err != nil {
			failed = err
		} else {
			taken = true
		}
	}
	if taken {
		return nil
	}
	return failed
}

// offered notes what became of the i-th share.
func (r *route) offered(d *delivery, i int, err error) error {
	p, t, s := r.peer, r.targets[i], r.shares[i]
	ended := false
	p.mu.Lock()
	t.sub.active--
	if t.sub.active == 0 && t.sub.idle != nil {
		close(t.sub.idle)
	}
	switch {
	case err != nil && !s.done:
		s.done = true
		s.m.open.remove(s)
		d.open--
		// Others that took it may have been waiting for this one.
		if d.open == 0 && d.took > 0 && !d.settled {
			ended = d.settleRest()
		}
	case err != nil: // settled and then not taken: what was settled holds
		err = nil
		fallthrough
	default:
		s.taken = true
		d.took++
		if d.took == 1 {
			p.node.count.received.Add(1)
			if d.in != nil {
				d.in.deliveryTaken(d)
			}
		}
		switch {
		case !t.sub.member.settles:
			ended = s.end(verdict{level: wireTaken})
		case t.sub.member.left: // meanwhile
			ended = s.end(pageClosed)
		}
	}
	p.mu.Unlock()
	if ended {
		d.report()
	}
	return err
}

// settleRest settles d when its last open share went without a word. The caller
// holds mu.
func (d *delivery) settleRest() bool {
	if d.tookFinal {
		return d.settle(verdict{level: wireTaken})
	}
	return d.settle(d.verdict)
}

// shareList is the deliveries that a member has not settled: a ring with the
// list itself as its head.
type shareList struct{ head share }

func (l *shareList) init() { l.head.prev, l.head.next = &l.head, &l.head }

func (l *shareList) add(s *share) {
	s.prev, s.next = l.head.prev, &l.head
	s.prev.next, s.next.prev = s, s
}

func (l *shareList) remove(s *share) {
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
}

// taken lists those that Receive has returned from.
func (l *shareList) taken() (list []*share) {
	for s := l.head.next; s != &l.head; s = s.next {
		if s.taken {
			list = append(list, s)
		}
	}
	return list
}
