package cluster_test

import (
	"os"
	"sync"
	"testing"
	"time"
)

// patience is how long a member may be lost: 10 s in the long run, which has the
// machine for itself. Otherwise other tests run beside.
func patience() time.Duration {
	if os.Getenv("PARLEY_LONG") != "" {
		return 10 * time.Second
	}
	return 40 * time.Second
}

// census looks again and again whether servers know members that never leave.
type census struct {
	t    *testing.T
	stop func()

	mu     sync.Mutex
	looks  int
	missed map[string]int // by member: at how many looks
}

// watch begins one, which ends with the test.
func watch(t *testing.T, nodes []*node, addrs ...string) *census {
	c := &census{t: t, missed: map[string]int{}}
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, n := range nodes {
				c.look(n, addrs)
			}
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	c.stop = sync.OnceFunc(func() { close(done); looking.Wait() })
	t.Cleanup(c.stop)
	return c
}

func (c *census) look(n *node, addrs []string) {
	there := map[string]bool{}
	for _, m := range n.star.Members() {
		there[m] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks++
	for _, a := range addrs {
		if !there[a] {
			c.missed[a]++
		}
	}
}

// nobodyMissed ends the census and checks that all were there at every look.
func (c *census) nobodyMissed() {
	c.t.Helper()
	c.stop()
	for a, n := range c.missed {
		c.t.Errorf("%s was not known at %d of %d looks", a, n, c.looks)
	}
}
