package relay

import (
	"context"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
)

// keepTime starts what looks after times, while there are contracts.
func (s *Service) keepTime() {
	s.mu.Lock()
	running := s.ticking
	s.ticking = true
	s.mu.Unlock()
	if running {
		return
	}
	s.node.Start(func(ctx context.Context) {
		t := time.NewTicker(tickEvery)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				if !s.tick(now) {
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
func (s *Service) tick(now time.Time) bool {
	var over, expired, idle []*bridge
	s.mu.Lock()
	for b := range s.bridges {
		switch {
		case now.Sub(b.contract.expires) >= expiryGrace:
			expired = append(expired, b)
		case b.contract.policy.Time > 0 && now.Sub(b.born) >= b.contract.policy.Time:
			over = append(over, b)
		default:
			idle = append(idle, b) // to be looked at without the lock
		}
	}
	for pair, since := range s.refusals {
		if now.Sub(since) >= refusalMemory {
			delete(s.refusals, pair)
		}
	}
	for l, c := range s.contracts {
		if now.Sub(c.expires) >= expiryGrace && c.bridges == 0 {
			s.gone(l)
		}
	}
	busy := len(s.contracts)+len(s.bridges)+len(s.refusals) > 0
	s.ticking = busy
	s.mu.Unlock()
	for _, b := range expired {
		b.expire()
	}
	for _, b := range over {
		b.end(conn.Limit, "the relay's time for this channel is over")
	}
	for _, b := range idle {
		b.mu.Lock()
		due := now.Sub(b.active) >= idleBridge
		b.mu.Unlock()
		if due {
			b.end(conn.Limit, "nothing was sent for two minutes")
		}
	}
	return busy
}
