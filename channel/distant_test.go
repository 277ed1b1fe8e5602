package channel

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// slowLocator waits for news of an agent that it knows nothing of.
type slowLocator struct{ fixedLocator }

const slowLook = 2 * time.Second

func (l *slowLocator) Locate(ctx context.Context, s SpaceHash, a identity.AgentID) ([]Location, error) {
	if found, _ := l.fixedLocator.Locate(ctx, s, a); len(found) > 0 {
		return found, nil
	}
	select {
	case <-time.After(slowLook): // virtual time
	case <-ctx.Done():
	}
	return nil, nil
}

// TestDistantAgentIsFoundSoon: only the first open to an agent that nobody knows of,
// and that a relay leads to, waits for news of it; for half a minute, and while
// the relay leads there.
func TestDistantAgentIsFoundSoon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		r.locator.put(r.alice.Agent()) // nobody knows where she is
		r.c.cfg.Locator = &slowLocator{}
		go func() { _ = r.c.UseRelay(t.Context(), r.b.key.PeerID()) }()
		synctest.Wait()
		listen(t, r.alice, "x")
		open := func(what string, want time.Duration, opts ...OpenOption) {
			t.Helper()
			start := time.Now()
			ch, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x", opts...)
			if took := time.Since(start); took != want {
				t.Errorf("%s took %v, want %v (%v)", what, took, want, err)
			}
			if err == nil {
				ch.Close()
			}
		}
		open("the first", slowLook)
		open("the second", briefLook)
		open("a direct one", slowLook, DirectOnly())
		wait(failedFor)
		open("one after half a minute", slowLook)
		r.stopUsing()
		r.a.stop()
		synctest.Wait()
		open("one that fails", briefLook)
		open("the next", slowLook)
	})
}
