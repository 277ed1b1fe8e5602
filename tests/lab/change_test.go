//go:build linux

package lab

import (
	"slices"
	"testing"
	"time"

	"github.com/parley-p2p/parley/internal/labtest"
)

// talk is a conversation that goes on: one message after the other, each way.
type talk struct {
	a, b *page
	sent uint64
}

// begin sends n messages each way, all at once; the function that it gives wants
// each handled.
func (c *talk) begin(n int) (wait func(t *testing.T)) {
	var answers []<-chan answer
	for range n {
		c.sent++
		answers = append(answers, c.a.send(c.b, c.sent), c.b.send(c.a, c.sent))
	}
	return func(t *testing.T) {
		t.Helper()
		for _, ch := range answers {
			if a := <-ch; a != handled {
				t.Errorf("%s and %s: %s", c.a.node.Name, c.b.node.Name, a)
			}
		}
	}
}

// on sends n messages each way, and wants each handled.
func (c *talk) on(t *testing.T, n int) {
	t.Helper()
	c.begin(n)(t)
}

// complete fails the test unless every message came once, and in order.
func (c *talk) complete(t *testing.T) {
	t.Helper()
	var want []uint64
	for n := range c.sent {
		want = append(want, n+1)
	}
	for _, got := range [][]uint64{c.a.received(c.b), c.b.received(c.a)} {
		if !slices.Equal(got, want) {
			t.Errorf("of 1 to %d came %v", c.sent, got)
		}
	}
}

// TestAbuse41_ChangeOfNetwork: a host gets another address, is off its network
// for a while, and comes back; what its pages say to others goes on by itself,
// and nothing that was acknowledged is lost or doubled.
func TestAbuse41_ChangeOfNetwork(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp/4001", "udp/4001/quic-v1"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t)
			home := lab.Router("home", labtest.Cone)
			first := run(t, lab.Public("bob"), append(alone, "--set", fixed, "--set", "peer.sendTimeout=60s")...)
			second := run(t, home.Host("ann"), append(alone, "--connect", first.at(transport), "--set", "peer.sendTimeout=60s")...)
			c := &talk{a: open(t, second), b: open(t, first)}
			c.on(t, 10)
			for _, change := range []struct {
				name string
				off  time.Duration
				host int // the last number of the new address
			}{
				{"another address", 0, 77},
				{"10 s without a network", 10 * time.Second, 77},
				{"another address again", 0, 78},
			} {
				before := c.begin(20)
				second.Unplug()
				amid := c.begin(20)
				<-time.After(change.off) // nobody can tell, so there is nothing to wait for
				second.Plug(change.host)
				began := time.Now()
				before(t)
				amid(t)
				t.Logf("%s: all handled %s after", change.name, time.Since(began).Round(time.Millisecond))
				c.on(t, 10)
			}
			c.complete(t)
		})
	}
}
