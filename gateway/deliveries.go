package gateway

import (
	"context"

	"github.com/parley-p2p/parley/flow"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// This file is the way of a message to the page, and of its settling back.
//
//	Receive ── started? ── room in its conversation? in the session? in the queue?
//	        ── the writer numbers it: unsettled ── the page settles it ── room again
//
// The room is counted for v2 pages alone: a v1 page's messages are settled when
// they are taken.

// gate holds back the messages of a protocol until its start is answered.
type gate struct{ opened chan struct{} }

// conversation is the messages of one (peer, protocol) that the page holds, or
// that wait to get there.
type conversation struct {
	room *flow.Window
	held int
}

// SettlesDeliveries is true for v2 pages.
func (s *session) SettlesDeliveries() bool { return s.version == 2 }

// Receive takes a message for a started protocol. It waits for room, and checks
// that the message can be put into a frame: what comes from other peers must
// never break a page's frames.
func (s *session) Receive(ctx context.Context, d network.Delivery) error {
	s.mu.Lock()
	g := s.protocols[d.Protocol()]
	s.mu.Unlock()
	if g == nil {
		return notStarted(d.Protocol())
	}
	if err := s.waitOpened(ctx, g); err != nil {
		return err
	}
	it, c := item{kind: itemMessage, ref: d}, d.Content()
	if s.version == 1 {
		var err error
		if it.data, err = c.JSON(); err != nil {
			return err
		}
		return s.queue.Push(ctx, flow.Bulk, it, len(it.data)+itemOverhead)
	}
	if err := v2.CheckContent(c); err != nil {
		return err
	}
	lone, err := s.takeRoom(ctx, d)
	if err != nil || s.now(lone && isLone(d), it, len(c.Data)) {
		return err
	}
	err = s.queue.Push(ctx, flow.Bulk, it, len(c.Data)+itemOverhead)
	if err != nil {
		s.giveRoom(d)
	}
	return err
}

func isLone(d network.Delivery) bool {
	l, ok := d.(network.Lone)
	return ok && l.Lone()
}

func (s *session) waitOpened(ctx context.Context, g *gate) error {
	select {
	case <-g.opened:
		return nil
	default:
	}
	select {
	case <-g.opened:
		return nil
	case <-s.ctx.Done():
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func notStarted(p network.Protocol) *identity.Error {
	return identity.Errorf(identity.CodeNotStarted, "protocol not started by peer: %s", p)
}

// takeRoom waits until the page holds few enough messages: of this conversation
// first, so that a handler that hangs holds up no other. lone tells that it holds
// none at all.
func (s *session) takeRoom(ctx context.Context, d network.Delivery) (lone bool, err error) {
	key := pair{d.From(), d.Protocol()}
	s.mu.Lock()
	c := s.conversations[key]
	if c == nil {
		c = &conversation{room: flow.NewWindow(maxHandling)}
		if s.conversations == nil {
			s.conversations = make(map[pair]*conversation)
		}
		s.conversations[key] = c
	}
	c.held++
	lone = c.held == 1 && len(s.conversations) == 1
	s.mu.Unlock()
	if err := take(ctx, c.room); err != nil {
		s.leave(key, c)
		return false, err
	}
	if err := take(ctx, s.settling); err != nil {
		c.room.Give(1, maxHandling)
		s.leave(key, c)
		return false, err
	}
	return lone, nil
}

func take(ctx context.Context, w *flow.Window) error {
	if w.TryTake(1) {
		return nil
	}
	return w.Take(ctx, 1)
}

// giveRoom is called when the page no longer holds a message.
func (s *session) giveRoom(d network.Delivery) {
	key := pair{d.From(), d.Protocol()}
	s.mu.Lock()
	c := s.conversations[key]
	s.mu.Unlock()
	if c == nil {
		return
	}
	s.settling.Give(1, maxDeliveries)
	c.room.Give(1, maxHandling)
	s.leave(key, c)
}

// leave forgets a conversation of which nothing is left.
func (s *session) leave(key pair, c *conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.held--; c.held == 0 {
		delete(s.conversations, key)
	}
}

// settled takes a delivery off the list of those that the page holds; nil where
// that has been done, or the number was never given.
func (s *session) settled(n uint64) network.Delivery {
	s.mu.Lock()
	d := s.unsettled[n]
	delete(s.unsettled, n)
	s.mu.Unlock()
	if d != nil {
		s.giveRoom(d)
	}
	return d
}

// refuseAll refuses what the page holds, or would have got, when the session
// ends; those that wait for room give up.
func (s *session) refuseAll(unsettled map[uint64]network.Delivery, conversations map[pair]*conversation) {
	for _, c := range conversations {
		c.room.Close(errClosed)
	}
	for _, d := range unsettled {
		d.Refuse(errClosed)
	}
	for {
		items, err := s.queue.TryPop(keepBuffer, nil)
		for _, it := range items {
			if it.kind == itemMessage && s.version == 2 {
				it.ref.(network.Delivery).Refuse(errClosed)
			}
		}
		if err != nil || len(items) == 0 {
			return
		}
	}
}
