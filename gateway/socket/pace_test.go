package socket

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace_OneAtATime: whoever floods waits for all others that do, and for none
// longer than a bound.
func TestPace_OneAtATime(t *testing.T) {
	for _, c := range []struct {
		sockets, pieces int
		want            time.Duration
	}{{1, 10, 10 * turnTime}, {5, 4, 20 * turnTime}, {1000, 1, turnWait}} {
		synctest.Test(t, func(t *testing.T) {
			p, began := NewPace(), time.Now()
			var all sync.WaitGroup
			for range c.sockets {
				all.Go(func() {
					for range c.pieces {
						p.wait()
					}
				})
			}
			all.Wait()
			if took := time.Since(began); took < c.want || took > c.want+turnTime {
				t.Errorf("%d sockets had %d pieces each after %s, want %s", c.sockets, c.pieces, took, c.want)
			}
		})
	}
	(*Pace)(nil).wait() // none waits for nobody
}
