package channel

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// TestRelayReadsNothing: what a relay is given holds nothing of what the agents
// say to each other, both ways, and there is as much of it as they said.
func TestRelayReadsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		var mu sync.Mutex
		var relayed, direct []byte
		relay := r.b.key.PeerID()
		r.net.filter = func(from, to identity.PeerID, record []byte) [][]byte {
			mu.Lock()
			defer mu.Unlock()
			if from == relay || to == relay {
				relayed = append(relayed, record...)
			} else {
				direct = append(direct, record...)
			}
			return [][]byte{record}
		}
		const secret = "the eagle has landed at noon"
		text := []byte(strings.Repeat(secret+". ", 10_000))
		ch, far := r.pair(t)
		talk(t, ch, far, text)
		talk(t, far, ch, text)
		if i := ch.Info(); i.Path != network.PathRelay || i.Relay != relay {
			t.Errorf("info %+v", i)
		}
		mu.Lock()
		if len(relayed) < 4*len(text) { // two connections, two directions
			t.Errorf("the relay saw %d bytes of two times %d", len(relayed), len(text))
		}
		for n := len(secret); n >= 8; n-- {
			if bytes.Contains(relayed, []byte(secret[:n])) {
				t.Fatalf("the relay can read %q", secret[:n])
			}
		}
		mu.Unlock()

		// The same on a direct path is there to be seen, so the tap would tell.
		d := r.net.start(t, 4, nil)
		dave := d.join(t, "chess", d.key)
		r.net.mu.Lock()
		r.net.cut = nil
		r.net.mu.Unlock()
		l := listen(t, r.charlie, "y")
		near := mustOpen(t, dave, r.charlie, "y")
		talk(t, near, mustAccept(t, l), text)
		mu.Lock()
		defer mu.Unlock()
		if !bytes.Contains(direct, []byte(secret)) {
			t.Error("the tap does not see what goes by in the clear")
		}
	})
}

// talk sends a text on one end and reads it at the other.
func talk(t *testing.T, from, to Channel, text []byte) {
	t.Helper()
	written := make(chan error, 1)
	go func() {
		_, err := from.Write(text)
		written <- err
	}()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("read other than was written: %v", err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

// TestDirectOnly: a connection that a circuit relay carries is not direct either.
func TestDirectOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		listen(t, bob, "x")
		for _, node := range n.nodes {
			node.path = network.PathRelay
		}
		for range 2 { // the second finds a connection on which bob has proved himself
			_, err := alice.Open(t.Context(), bob.Agent(), "x", DirectOnly())
			wantErr(t, err, ErrNoAgent)
			ch := mustOpen(t, alice, bob, "x")
			if p := ch.Info().Path; p != network.PathRelay {
				t.Errorf("path %s", p)
			}
		}
	})
}

// pathed is two nodes whose network says how they reach each other, now and for
// what is opened.
func pathed(t *testing.T) (a, b *testPeer, set func(now, opened network.Path)) {
	n := newTestNet(t)
	now := network.PathRelay
	tell := func(c *Config) { c.Path = func(identity.PeerID) network.Path { return now } }
	a, b = n.start(t, 1, tell), n.start(t, 2, tell)
	return a, b, func(p, opened network.Path) {
		now = p
		for _, node := range n.nodes {
			node.path = opened
		}
	}
}

// TestBetterPath: a channel over a relayed connection runs on, unmoved; new ones
// take the direct path once there is one.
func TestBetterPath(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, set := pathed(t)
		set(network.PathRelay, network.PathRelay)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		l := listen(t, bob, "x")
		first := mustOpen(t, alice, bob, "x")
		far := mustAccept(t, l)
		set(network.PathPunch, network.PathPunch)
		for range 2 {
			if p, q := mustOpen(t, alice, bob, "x").Info().Path, first.Info().Path; p != network.PathPunch || q != network.PathRelay {
				t.Errorf("paths %s and %s", p, q)
			}
		}
		send(t, first, "still here")
		receive(t, far, "still here")
		if n := len(a.List(10)); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestBetterPathThatIsNone: where what is said to be direct turns out not to be,
// there is one connection more and not one for each channel.
func TestBetterPathThatIsNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, set := pathed(t)
		set(network.PathDirect, network.PathRelay)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		listen(t, bob, "x")
		for range 5 {
			mustOpen(t, alice, bob, "x")
		}
		if n := len(a.List(10)); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestOpenThroughOwnRelay: two agents that know nothing of each other's place, but
// use the same relay, reach each other through it.
func TestOpenThroughOwnRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		var asked atomic.Int64 // records from charlie to the relay
		r.net.filter = func(from, to identity.PeerID, record []byte) [][]byte {
			if from == r.c.key.PeerID() && to == r.b.key.PeerID() {
				asked.Add(1)
			}
			return [][]byte{record}
		}
		r.locator.put(r.alice.Agent()) // nobody knows where she is
		l := listen(t, r.alice, "x")
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x")
		wantErr(t, err, ErrNoAgent)

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.c.UseRelay(ctx, r.b.key.PeerID()) }()
		synctest.Wait()
		ch := mustOpen(t, r.charlie, r.alice, "x")
		far := mustAccept(t, l)
		send(t, ch, "hello")
		receive(t, far, "hello")
		if i := ch.Info(); i.Path != network.PathRelay || i.Relay != r.b.key.PeerID() {
			t.Errorf("info %+v", i)
		}
		_, err = r.charlie.Open(t.Context(), r.alice.Agent(), "x", DirectOnly())
		wantErr(t, err, ErrNoAgent)
		// What the agent's own node says is not asked of others.
		r.net.mu.Lock()
		r.net.cut = nil
		r.net.mu.Unlock()
		wait(failedFor)
		before := asked.Load()
		_, err = r.charlie.Open(t.Context(), r.alice.Agent(), "nobody listens")
		wantErr(t, err, ErrNoSpace)
		if after := asked.Load(); after != before {
			t.Errorf("the relay was told %d times", after-before)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
