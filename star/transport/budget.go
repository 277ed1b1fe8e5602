package transport

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/parley-p2p/parley/flow"
)

// Budget is what a star may carry for this node, both ways together, in bytes. 0
// is no limit. Where Dial or Day is set, connections are marked limited, so that
// only protocols which opted in use them (star.md §10.2).
type Budget struct {
	Dial   int64 // of one connection
	Second int64 // of the star, a second
	Day    int64 // of the star, in 24 hours
}

// DefaultBudget is that of a star where nothing else is said.
func DefaultBudget() Budget { return Budget{Dial: 256 << 20} }

// spending is what was used of one star's budget.
type spending struct {
	// Static after construction.
	most   Budget
	second *flow.Bucket // nil: no rate

	mu   sync.Mutex
	day  time.Time // when the day began
	used int64     // in it
}

func newSpending(b Budget) *spending {
	s := &spending{most: b}
	if b.Second > 0 {
		s.second = flow.NewBucket(float64(b.Second), float64(b.Second))
	}
	return s
}

// spend counts n bytes; false where the day's budget is used up.
func (s *spending) spend(n int64, now time.Time) bool {
	if s.most.Day <= 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := now.Sub(s.day); age < 0 || age >= 24*time.Hour {
		s.day, s.used = now, 0
	}
	s.used += n
	return s.used <= s.most.Day
}

// pace waits until the rate allows n more bytes. The errors are those of the
// deadline and of the session's end.
func (s *spending) pace(ctx context.Context, n int, dl *deadline) error {
	if s.second == nil {
		return nil
	}
	for {
		ok, wait := s.second.Allow(min(float64(n), float64(s.most.Second)), time.Now())
		if ok {
			return nil
		}
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-timer.C:
		case <-dl.wait():
			timer.Stop()
			return os.ErrDeadlineExceeded
		case <-ctx.Done():
			timer.Stop()
			return ErrServerLost
		}
	}
}
