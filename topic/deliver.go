package topic

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// The way of a publication in: 1. the router's subscription, 2. the room's
// queue, 3. the publisher's order, 4. the sessions. Those of this node's pages
// begin at 4. The functions stand in that order, and all but read run in the
// room's loop.

// startReading subscribes at the router, if that isn't done yet.
func (r *room) startReading() error {
	if r.sub != nil {
		return nil
	}
	self := r.node.router.ID()
	r.meshed = r.node.router.meter.meshTime(r.wire)
	r.order.disturb(time.Now())
	sub, err := r.topic.Subscribe(pubsub.WithBufferSize(subBuffer), pubsub.WithMessageFilter(
		func(m *pubsub.Message) bool { return m.ReceivedFrom != self })) // the own ones were delivered here
	if err != nil {
		return identity.Errorf(identity.CodeClosed, "subscribe: %w", err)
	}
	r.sub = sub
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	r.node.spawn(func() { r.read(sub) })
	return nil
}

func (r *room) stopReading() {
	if r.sub != nil {
		r.sub.Cancel()
		r.sub = nil
		r.order = newOrder()
	}
}

// read brings the router's messages until sub is cancelled.
func (r *room) read(sub *pubsub.Subscription) {
	for {
		msg, err := sub.Next(r.ctx)
		if err != nil {
			return
		}
		m, ok := parseMessage(msg)
		if !ok {
			r.node.counts.notJSON.Add(1)
			continue
		}
		if r.queue.Push(r.ctx, flow.Bulk, event{remote: m, sub: sub}, weight(m.size)) != nil {
			return
		}
	}
}

func (r *room) deliverRemote(m remoteMessage) {
	var few [4]remoteMessage
	now := time.Now()
	r.order.disturb(time.Unix(0, max(r.node.router.meter.disturbed.Load(), r.meshed.Load())))
	r.passOn(r.order.add(m, now, few[:0]))
	if r.order.late > 0 {
		r.node.counts.late.Add(r.order.late)
		r.order.late = 0
	}
	if r.order.replayed > 0 {
		r.node.counts.replayed.Add(r.order.replayed)
		r.order.replayed = 0
	}
	if r.tick == nil && r.order.holds() {
		r.tick = time.AfterFunc(orderWindow, func() { r.post(r.expireOrder) })
	}
}

// expireOrder passes on what waited long enough for those before it.
func (r *room) expireOrder() {
	r.tick = nil
	passed, next := r.order.expire(time.Now(), nil)
	r.passOn(passed)
	if !next.IsZero() {
		r.tick = time.AfterFunc(time.Until(next), func() { r.post(r.expireOrder) })
	}
}

func (r *room) passOn(messages []remoteMessage) {
	for i := range messages {
		p := network.Publication{Topic: r.name, From: messages[i].from, Content: messages[i].content}
		for page := range r.sessions {
			page.sink.Publish(p)
		}
		r.node.counts.delivered.Add(uint64(len(r.sessions)))
	}
}

func (r *room) deliverLocal(e *event) {
	p := network.Publication{Topic: r.name, From: e.local.from, Content: e.local.content}
	for page, s := range r.sessions {
		if e.late && page.id == e.local.from {
			continue
		}
		page.sink.Publish(p)
		if page.pacer != nil {
			r.pace(page, s)
		}
	}
	r.node.counts.delivered.Add(uint64(len(r.sessions)))
	if e.alone != nil {
		e.alone <- !r.view.Load().othersHere(e.local.from)
	}
}

// pace has publishers wait for a session that is behind.
func (r *room) pace(page *Page, s *session) {
	eased := page.pacer.Behind()
	if eased == nil {
		s.hangs.Store(false)
	} else if !s.hangs.Load() {
		r.brake.Store(&brake{eased: eased, slow: s})
	}
}
