package topic

import (
	"context"
	"errors"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// The way of a publication out: 1. its form on the wire, 2. its turn in the
// room, 3. room in the queues of those who get it, 4. the sessions here, 5. the
// router, or 6. what is kept for the first member. The functions stand in that
// order.

// Publish sends c to every member of a topic, subscribed or not. It returns when
// the publication is on its way or kept until somebody joins, and waits when the
// node can carry no more; ctx ends the wait. Publications of calls that follow
// each other keep their order. Errors: CodeMalformed, CodeReserved, CodeTooLarge,
// CodeLimit, CodeCancelled, CodeClosed.
func (p *Page) Publish(ctx context.Context, topic string, c network.Content) error {
	if err := checkName(topic); err != nil {
		return err
	}
	if p.own {
		return identity.Errorf(identity.CodeReserved, "who attends publishes nothing")
	}
	text, err := c.JSON()
	if err != nil {
		return err
	}
	if len(text) > MaxMessage {
		return identity.Errorf(identity.CodeTooLarge, "message too large: %d bytes, limit %d", len(text), MaxMessage)
	}
	if p.left.Load() {
		return errLeft
	}
	r, err := p.node.enter(ctx, topic)
	if err != nil {
		return err
	}
	defer p.node.leave(r)
	return r.publish(ctx, &publication{key: p.key, from: p.id, content: c, text: text})
}

func (r *room) publish(ctx context.Context, p *publication) error {
	if r.turn.Take(ctx, 1) != nil {
		return contextError(ctx)
	}
	defer r.turn.Give(1, 1)
	if err := r.opened(ctx); err != nil {
		return err
	}
	if err := r.waitForPending(ctx); err != nil {
		return err
	}
	if err := r.waitForSlow(ctx); err != nil {
		return err
	}
	if err := r.node.router.meter.wait(ctx, r.ready()); err != nil {
		return contextError(ctx)
	}
	if len(r.kept.list) > 0 {
		r.flush() // what is kept goes first
	}
	r.node.counts.published.Add(1)
	if len(r.ready()) == 0 {
		return r.publishHere(ctx, p)
	}
	if err := r.deliverHere(ctx, p); err != nil {
		return err
	}
	return r.send(p)
}

// waitForPending waits for nodes that have just been seen in the topic, until the
// router can send to them too: until then it would leave them out. With nobody
// else there p is kept instead.
func (r *room) waitForPending(ctx context.Context) error {
	for {
		v := r.view.Load()
		left := time.Until(v.until)
		if v.pending == 0 || len(v.ready) == 0 || left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-v.stale:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return contextError(ctx)
		}
		timer.Stop()
	}
}

// slowPatience is how long publishers wait for a page that is behind.
const slowPatience = 250 * time.Millisecond

// waitForSlow waits for a page of this node that is behind, but not for one that
// hangs: that one drops its oldest, and is told (G-D10).
func (r *room) waitForSlow(ctx context.Context) error {
	b := r.brake.Swap(nil)
	if b == nil {
		return nil
	}
	timer := time.NewTimer(slowPatience)
	defer timer.Stop()
	select {
	case <-b.eased:
	case <-timer.C:
		b.slow.hangs.Store(true)
	case <-ctx.Done():
		return contextError(ctx)
	}
	return nil
}

// deliverHere puts p before the sessions of this node.
func (r *room) deliverHere(ctx context.Context, p *publication) error {
	err := r.queue.Push(ctx, flow.Bulk, event{local: p}, weight(len(p.text)))
	return pushError(ctx, err)
}

// publishHere is for a room with nobody on other nodes: the loop says whether
// somebody is here, and else p is kept.
func (r *room) publishHere(ctx context.Context, p *publication) error {
	answer := make(chan bool, 1)
	err := r.queue.Push(ctx, flow.Bulk, event{local: p, alone: answer}, weight(len(p.text)))
	if err != nil {
		return pushError(ctx, err)
	}
	select {
	case p.lonely = <-answer:
	case <-r.gone:
		return errClosed
	}
	if p.lonely || r.view.Load().pending > 0 {
		r.keep(p)
	}
	return nil
}

func pushError(ctx context.Context, err error) error {
	var known *identity.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return contextError(ctx)
}

// send hands p to the router. The caller has the turn.
func (r *room) send(p *publication) error {
	err := r.topic.Publish(r.node.ctx, p.text, pubsub.WithSecretKeyAndPeerId(p.key.Libp2p(), p.from))
	if err == nil {
		return nil
	}
	if r.node.ctx.Err() != nil {
		return errClosed
	}
	r.node.counts.failed.Add(1)
	return identity.Errorf(identity.CodeInternal, "publish: %w", err)
}

// keep holds p until somebody joins. The caller has the turn.
func (r *room) keep(p *publication) {
	p.kept = time.Now()
	if len(r.kept.list) == 0 {
		n := r.node
		n.mu.Lock()
		if n.spawn(r.keeper) {
			r.holds++
		}
		n.mu.Unlock()
	}
	r.lost(r.kept.add(p), "too many are kept")
}

// keeper sends what is kept when somebody joins, and drops it when nobody does.
func (r *room) keeper() {
	defer r.node.leave(r)
	for {
		if r.turn.Take(r.node.ctx, 1) != nil {
			return
		}
		next := r.flush()
		r.turn.Give(1, 1)
		if next == 0 {
			return
		}
		timer := time.NewTimer(next)
		select {
		case <-r.somebody:
		case <-timer.C:
		case <-r.gone:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// flush sends what is kept if somebody is there; otherwise it says how long the
// oldest may still wait. The caller has the turn.
func (r *room) flush() (next time.Duration) {
	lost, next := r.kept.expire(time.Now())
	r.lost(lost, "nobody joined in time")
	if next == 0 {
		return 0
	}
	there := len(r.ready()) > 0
	for _, p := range r.kept.take() {
		here := p.lonely && r.view.Load().othersHere(p.from)
		if here {
			_ = r.queue.Push(r.node.ctx, flow.Bulk, event{local: p, late: true}, weight(len(p.text)))
			p.lonely = false
		}
		if there {
			_ = r.node.router.meter.wait(r.node.ctx, r.ready())
			_ = r.send(p)
		} else if !here || r.view.Load().pending > 0 {
			r.kept.add(p) // still nobody, or for a node that is connecting
		}
	}
	_, next = r.kept.expire(time.Now())
	return next
}

// lost counts and logs publications that nobody will get.
func (r *room) lost(n int, why string) {
	if n == 0 {
		return
	}
	r.node.counts.unsent.Add(uint64(n))
	if now := time.Now(); now.Sub(r.lostLogged) > keepFor {
		r.lostLogged = now
		r.node.log.Warn("publications dropped, nobody was in the topic", "topic", r.name, "count", n, "reason", why)
	}
}
