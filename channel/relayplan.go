package channel

import (
	"context"
	"slices"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
)

// bridge joins a create with hops 1 to the agent's connection.
func (in *incoming) bridge() *Error {
	l, n := in.link, in.link.node
	n.mu.Lock()
	r := n.relay
	if r == nil {
		n.mu.Unlock()
		return errorf(BadTo, "the agent is not here, and this node does not relay")
	}
	b, to, err := r.plan(in)
	if err != nil {
		r.refused++
		n.mu.Unlock()
		return err
	}
	n.mu.Unlock()
	m := in.msg
	o := conn.Opening{
		SpaceHash: slices.Clone(m.SpaceHash), To: slices.Clone(m.To), From: slices.Clone(m.From),
		Proof: slices.Clone(m.Proof), Hops: 2, Window: relayedWindow(m.Window),
	}
	near := l.conn.Accept(m, conn.Accepting{Sink: b.legs[0], Hold: true})
	b.legs[0].attach(near)
	if !n.start(func(ctx context.Context) { b.open(ctx, to, o) }) {
		b.end(BadTo, "the relay stops")
	}
	return nil
}

func relayedWindow(asked uint32) int {
	if asked == 0 {
		return firstAllowance
	}
	return int(min(asked, firstAllowance))
}

// plan checks a bridge against contracts and quotas. It is called with the lock
// held.
func (r *relay) plan(in *incoming) (*bridge, *link, *Error) {
	from, to := in.addr.from, in.addr.to
	own := r.live(in.link)
	if own != nil {
		if _, ok := own.agents[from]; ok {
			in.verified = true
		}
	}
	if !in.verified {
		return nil, nil, errorf(BadFrom, "the creating agent has not proved itself")
	}
	target, c := r.find(to, own)
	switch {
	case target == nil || target == in.link:
		return nil, nil, errorf(BadTo, "the agent is not reached through this relay")
	case time.Since(r.refusals[[2]identity.AgentID{from, to}]) < refusalMemory:
		return nil, nil, errorf(BadFrom, "the agent does not take channels from you")
	case r.policy.Bridge != nil && !r.policy.Bridge(from, to):
		return nil, nil, errorf(RelayRefused, "this relay does not join these agents")
	case c.bridges >= r.policy.Bridges:
		return nil, nil, errorf(Limit, "too many channels through this relay")
	case r.buffer+2*firstAllowance > r.policy.Buffer:
		return nil, nil, errorf(Limit, "the relay has no memory left")
	}
	b := newBridge(r, c, from, to, time.Now())
	c.bridges++
	r.buffer += 2 * firstAllowance
	r.bridges[b] = struct{}{}
	return b, target, nil
}

// find gives the connection that leads to an agent, and the contract that pays:
// the target's, or the creator's own. It is called with the lock held.
func (r *relay) find(to identity.AgentID, own *contract) (*link, *contract) {
	links := r.agents[to]
	for i := len(links) - 1; i >= 0; i-- {
		if c := r.live(links[i]); c != nil {
			return links[i], c
		}
	}
	if own == nil {
		return nil, nil
	}
	for l := range r.node.links {
		if _, ok := l.proven[to]; ok && l.conn.Err() == nil {
			return l, own
		}
	}
	return nil, nil
}

// takeBuffer grows an allowance by n bytes where the relay's memory allows. It
// may be called with a bridge's lock held, never with the node's.
func (r *relay) takeBuffer(n int64) bool {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	if r.buffer+n > r.policy.Buffer {
		return false
	}
	r.buffer += n
	return true
}

// finished takes an ended bridge off the books.
func (r *relay) finished(b *bridge, held int64) {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	if _, ok := r.bridges[b]; ok {
		delete(r.bridges, b)
		b.contract.bridges--
		r.buffer -= held
	}
}

// remember keeps in mind for a minute that an agent refused another.
func (r *relay) remember(from, to identity.AgentID) {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	if len(r.refusals) < maxRefusals {
		r.refusals[[2]identity.AgentID{from, to}] = time.Now()
	}
}

// keepRelay starts what looks after times, while there are contracts.
func (n *Node) keepRelay(r *relay) {
	n.mu.Lock()
	running := r.ticking
	r.ticking = true
	n.mu.Unlock()
	if running {
		return
	}
	n.start(func(ctx context.Context) {
		t := time.NewTicker(relayTick)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				if !r.tick(now) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
}

// tick ends what is due. It reports false when there is nothing left to look
// after.
func (r *relay) tick(now time.Time) bool {
	var over, expired, idle []*bridge
	r.node.mu.Lock()
	for b := range r.bridges {
		switch {
		case now.Sub(b.contract.expires) >= expiryGrace:
			expired = append(expired, b)
		case b.contract.policy.Time > 0 && now.Sub(b.born) >= b.contract.policy.Time:
			over = append(over, b)
		default:
			idle = append(idle, b) // to be looked at without the lock
		}
	}
	for pair, since := range r.refusals {
		if now.Sub(since) >= refusalMemory {
			delete(r.refusals, pair)
		}
	}
	for l, c := range r.contracts {
		if now.Sub(c.expires) >= expiryGrace && c.bridges == 0 {
			r.gone(l)
		}
	}
	busy := len(r.contracts)+len(r.bridges)+len(r.refusals) > 0
	r.ticking = busy
	r.node.mu.Unlock()
	for _, b := range expired {
		b.expire()
	}
	for _, b := range over {
		b.end(Limit, "the relay's time for this channel is over")
	}
	for _, b := range idle {
		b.mu.Lock()
		due := now.Sub(b.active) >= idleBridge
		b.mu.Unlock()
		if due {
			b.end(Limit, "nothing was sent for two minutes")
		}
	}
	return busy
}
