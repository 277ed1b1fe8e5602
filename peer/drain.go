package peer

import (
	"context"
	"math"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// drainLook is how often Drain looks whether the outboxes are empty. It runs
// once, at the end of a node.
const drainLook = 5 * time.Millisecond

// Drain waits until everything that was put into an outbox is on its way and
// taken by the other side, messages that nobody waits for (level queued) too. It
// returns CodeTimeout with the number of those left when ctx ends first. New
// messages are still taken: the caller stops those who send.
func (n *Node) Drain(ctx context.Context) error {
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		if n.unsettled(1) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return identity.Errorf(identity.CodeTimeout, "%d messages are still on their way", n.unsettled(math.MaxInt))
		}
	}
}

// unsettled counts what is on its way, and stops where it has found enough.
func (n *Node) unsettled(enough int) (left int) {
	for _, p := range n.list() {
		if left >= enough {
			return left
		}
		p.mu.Lock()
		for _, c := range p.conversations {
			for i := range c.queue.len() {
				if !c.queue.at(i).resolved() {
					left++
				}
			}
			for i := range c.flight.len() {
				if !c.flight.at(i).taken {
					left++
				}
			}
		}
		p.mu.Unlock()
	}
	return left
}
