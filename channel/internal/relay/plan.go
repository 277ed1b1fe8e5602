package relay

import (
	"context"
	"slices"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
)

// Bridge joins a create with hops 1 to the agent's connection. The error refuses
// it.
func (s *Service) Bridge(in Create) *conn.Error {
	b, to, err := s.plan(in)
	if err != nil {
		return err
	}
	m := in.Message
	o := conn.Opening{
		SpaceHash: slices.Clone(m.SpaceHash), To: slices.Clone(m.To), From: slices.Clone(m.From),
		Proof: slices.Clone(m.Proof), Hops: 2, Window: relayedWindow(m.Window),
	}
	near := in.Client.Conn().Accept(m, conn.Accepting{Sink: b.legs[0], Hold: true})
	b.legs[0].attach(near)
	if !s.node.Start(func(ctx context.Context) { b.open(ctx, to, o) }) {
		b.end(conn.BadTo, "the relay stops")
	}
	return nil
}

func relayedWindow(asked uint32) int {
	if asked == 0 {
		return firstAllowance
	}
	return int(min(asked, firstAllowance))
}

// plan checks a bridge against contracts and quotas, and books it.
func (s *Service) plan(in Create) (b *bridge, target Client, err *conn.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if err != nil {
			s.refused++
		}
	}()
	own := s.live(in.Client)
	if own != nil {
		if _, ok := own.agents[in.From]; ok {
			in.Verified = true
		}
	}
	refuse := func(code conn.Code, text string) (*bridge, Client, *conn.Error) {
		return nil, nil, &conn.Error{Code: code, Text: text}
	}
	if !in.Verified {
		return refuse(conn.BadFrom, "the creating agent has not proved itself")
	}
	target, c := s.find(in.To, own)
	switch {
	case target == nil || target == in.Client:
		return refuse(conn.BadTo, "the agent is not reached through this relay")
	case time.Since(s.refusals[[2]identity.AgentID{in.From, in.To}]) < refusalMemory:
		return refuse(conn.BadFrom, "the agent does not take channels from you")
	case s.policy.Bridge != nil && !s.policy.Bridge(in.From, in.To):
		return refuse(conn.RelayRefused, "this relay does not join these agents")
	case c.bridges >= s.policy.Bridges:
		return refuse(conn.Limit, "too many channels through this relay")
	case s.buffer+2*firstAllowance > s.policy.Buffer:
		s.full++
		return refuse(conn.Limit, "the relay has no memory left")
	}
	b = newBridge(s, c, in.From, in.To, time.Now())
	c.bridges++
	s.buffer += 2 * firstAllowance
	s.bridges[b] = struct{}{}
	return b, target, nil
}

// find gives the connection that leads to an agent, and the contract that pays:
// the target's, or the creator's own. It is called with the lock held.
func (s *Service) find(to identity.AgentID, own *contract) (Client, *contract) {
	clients := s.agents[to]
	for i := len(clients) - 1; i >= 0; i-- {
		if c := s.live(clients[i]); c != nil {
			return clients[i], c
		}
	}
	if own == nil {
		return nil, nil
	}
	return s.node.Reach(to), own
}

// takeBuffer grows an allowance by n bytes where the relay's memory allows.
func (s *Service) takeBuffer(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buffer+n > s.policy.Buffer {
		return false
	}
	s.buffer += n
	return true
}

// finished takes an ended bridge off the books.
func (s *Service) finished(b *bridge, held int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.bridges[b]; ok {
		delete(s.bridges, b)
		b.contract.bridges--
		s.buffer -= held
	}
}

// remember keeps in mind for a minute that an agent refused another.
func (s *Service) remember(from, to identity.AgentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refusals) < maxRefusals {
		s.refusals[[2]identity.AgentID{from, to}] = time.Now()
	}
}
