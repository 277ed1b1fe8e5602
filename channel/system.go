package channel

import (
	"context"
	"errors"
	"sync"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/p2p"
)

// system is a member's System: the one user of its system channels.
type system struct {
	member  *member
	handler SystemHandler
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup
}

// System makes h serve the member's system channels. Those that are there
// already, without a user, are closed so that they can be opened anew.
func (m *member) System(_ context.Context, h SystemHandler) (System, error) {
	n := m.node
	n.mu.Lock()
	switch {
	case n.ctx == nil || n.stopped:
		n.mu.Unlock()
		return nil, ErrClosed
	case m.left:
		n.mu.Unlock()
		return nil, errLeft()
	case m.system != nil:
		n.mu.Unlock()
		return nil, errorf(Duplicate, "the member's system channels have a user already")
	}
	s := &system{member: m, handler: h}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	m.system = s
	old := m.systemChannels()
	n.mu.Unlock()
	for _, ch := range old {
		ch.Close()
	}
	return s, nil
}

// systemChannels lists those open now. It is called with the lock held.
func (m *member) systemChannels() []*channel {
	var out []*channel
	for _, l := range m.node.allLinks() {
		for _, ch := range l.system {
			if ch.member == m {
				out = append(out, ch)
			}
		}
	}
	return out
}

// Connect makes sure that there is a system channel to an agent.
func (s *system) Connect(ctx context.Context, to identity.AgentID, opts ...OpenOption) error {
	n := s.member.node
	n.mu.Lock()
	there := false
	for _, ch := range s.member.systemChannels() {
		there = there || ch.remote() == to
	}
	n.mu.Unlock()
	if there {
		return nil
	}
	ch, err := s.member.open(ctx, to, "", opts)
	if err != nil {
		return err
	}
	n.systemOpened(ch)
	return nil
}

// Close ends the system channels and waits for the handler.
func (s *system) Close() error {
	n := s.member.node
	n.mu.Lock()
	if s.member.system == s {
		s.member.system = nil
	}
	open := s.member.systemChannels()
	n.mu.Unlock()
	s.cancel()
	for _, ch := range open {
		ch.Close()
	}
	s.serving.Wait()
	return nil
}

// systemOpened registers a system channel and starts its user. Where both sides
// created one at once, the acceptor of the connection closes its own
// (docs/spec/channels.md §5).
func (n *Node) systemOpened(ch *channel) {
	key := systemKey{space: ch.member.space.hash, local: ch.member.agent, remote: ch.remote()}
	var close []*channel
	n.mu.Lock()
	if ch.link.system == nil {
		ch.link.system = make(map[systemKey]*channel)
	}
	other := ch.link.system[key]
	dialer := ch.link.conn.Config().Dialer
	switch {
	case other == nil || other.stream.Err() != nil:
		ch.link.system[key] = ch
	case ch.own && !dialer:
		close = append(close, ch) // the dialer's is here already
	case other.own && !dialer:
		close = append(close, other)
		ch.link.system[key] = ch
	}
	sys := ch.member.system
	stopped := n.ctx == nil || n.stopped || ch.member.left
	if !stopped {
		n.wg.Add(1)
		if sys != nil {
			sys.serving.Add(1)
		}
	}
	ctx := n.ctx
	n.mu.Unlock()
	for _, c := range close {
		c.Close()
	}
	if stopped {
		ch.Close()
		return
	}
	go func() {
		defer n.wg.Done()
		n.serveSystem(ctx, sys, ch)
		n.mu.Lock()
		if ch.link.system[key] == ch {
			delete(ch.link.system, key)
		}
		n.mu.Unlock()
		if sys != nil {
			sys.serving.Done()
		}
	}()
}

func (n *Node) serveSystem(ctx context.Context, sys *system, ch *channel) {
	defer ch.Close()
	if sys != nil {
		sys.handler.ServeSystem(sys.ctx, ch)
		return
	}
	n.answerUnknown(ctx, ch)
}

// answerUnknown is the user of system channels where there is no other: it tells
// the peer that nobody reads its messages.
func (n *Node) answerUnknown(ctx context.Context, ch *channel) {
	answer, err := p2p.Append(nil, &p2p.Error{Text: "unknown message"})
	if err != nil {
		return
	}
	if ch.packed() {
		answer = wire.Pack(nil, answer)
	}
	answered := false
	for {
		content, err := ch.Receive(ctx)
		if err != nil {
			return
		}
		if answered || isError(ch.packed(), content) {
			continue
		}
		answered = true
		if err := ch.Send(ctx, answer); err != nil && !errors.Is(err, ErrLimit) {
			return
		}
	}
}

// isError reports whether a content is an error, which is never answered.
func isError(packed bool, content []byte) bool {
	e := wire.Unpacked
	if packed {
		e = wire.Packed
	}
	raw, err := p2p.Unpacked(e, content, nil)
	if err != nil {
		return false
	}
	m, err := p2p.Decode(raw)
	return err == nil && m.Kind() == p2p.KindError
}
