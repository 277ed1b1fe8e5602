package peer

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Sessions that share a peer: each with its own protocols, a message to each
// that started its protocol (gateway.md §2.7).
func TestSharedPeer(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		first, second, third := handling(), handling(), handling()
		bob, one := w.peer(b, 2, first, chat)
		two := bob.Join(second)
		if err := two.Start(chat); err != nil {
			t.Fatal(err)
		}
		if err := bob.Join(third).Start("/other"); err != nil {
			t.Fatal(err)
		}
		send(t, m, bob.ID(), "both", network.Handled).wait(t)
		if err := one.Stop(chat); err != nil {
			t.Fatal(err)
		}
		send(t, m, bob.ID(), "second", network.Handled).wait(t)
		two.Leave()
		r := send(t, m, bob.ID(), "again", network.Handled)
		synctest.Wait()
		if err := one.Start(chat); err != nil {
			t.Fatal(err)
		}
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		synctest.Wait()
		if got := fmt.Sprint(first.texts(), second.texts(), third.texts()); got != "[both again] [both second] []" {
			t.Fatalf("came: %s", got)
		}
	})
}

// What the sessions do decides how the message ends: the first that handles it
// settles it.
func TestSharedPeerSettles(t *testing.T) {
	hangs := func() *page { return newPage(true) }
	refuses := func() *page {
		p := newPage(true)
		p.on = func(d network.Delivery) { d.Refuse(fmt.Errorf("no")) }
		return p
	}
	v1 := func() *page { return newPage(false) }
	gone := func() *page {
		p := newPage(true)
		p.refuse = func(network.Delivery) error { return errPeerClosed }
		return p
	}
	full := func() *page {
		p := handling()
		p.room = make(chan struct{})
		return p
	}
	cases := []struct {
		name  string
		pages []*page
		level network.Level
		code  identity.Code
		after time.Duration
	}{
		{"one handles, one hangs", []*page{hangs(), handling()}, network.Handled, "", 0},
		{"one refuses, one handles", []*page{refuses(), handling()}, network.Handled, "", 0},
		{"both refuse", []*page{refuses(), refuses()}, 0, identity.CodeRefused, 0},
		{"v1 and one that handles", []*page{v1(), handling()}, network.Handled, "", 0},
		{"v1 and one that refuses", []*page{v1(), refuses()}, network.Delivered, "", 0},
		{"v1 and v1", []*page{v1(), v1()}, network.Delivered, "", 0},
		{"one is gone, one handles", []*page{gone(), handling()}, network.Handled, "", 0},
		{"one is gone, one is v1", []*page{gone(), v1()}, network.Delivered, "", 0},
		{"one refuses, one is gone", []*page{refuses(), gone()}, 0, identity.CodeRefused, 0},
		{"one is full, one handles", []*page{full(), handling()}, network.Handled, "", 0},
		{"both hang", []*page{hangs(), hangs()}, 0, identity.CodeTimeout, 10 * time.Second},
		{"both are gone", []*page{gone(), gone()}, 0, identity.CodeNotStarted, 10 * time.Second},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, w *world, a, b *Node) {
				_, m := w.peer(a, 1, handling())
				bob, _ := w.peer(b, 2, c.pages[0], chat)
				if err := bob.Join(c.pages[1]).Start(chat); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				o := send(t, m, bob.ID(), "x", network.Handled).wait(t)
				if identity.CodeOf(o.Err) != c.code || o.Level != c.level {
					t.Fatalf("ended %+v (%s)", o, identity.CodeOf(o.Err))
				}
				if d := time.Since(start).Truncate(time.Second); d != c.after {
					t.Fatalf("took %v, want %v", d, c.after)
				}
			})
		})
	}
}

// A session that shares the peer leaves: its own sends end, the others' don't,
// and what it had not settled is settled by the other.
func TestLeaveTouchesItsOwnOnly(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		alice, one := w.peer(a, 1, handling())
		two := alice.Join(handling())
		bob := key(t, 2).PeerID()
		mine, others := send(t, one, bob, "mine", network.Handled), send(t, two, bob, "other's", network.Handled)
		one.Leave()
		wantCode(t, mine.wait(t).Err, identity.CodeClosed, "peer closed")
		to := handling()
		w.peer(b, 2, to, chat)
		if o := others.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := fmt.Sprint(to.texts()); got != "[other's]" {
			t.Fatalf("came: %s", got)
		}
	})
}

// After Stop returned no delivery comes, also not one that waited for room.
func TestStopIsABarrier(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		p := handling()
		p.room = make(chan struct{}, 100)
		_, m := w.peer(a, 1, handling())
		bob, started := w.peer(b, 2, p, chat)
		p.room <- struct{}{}
		send(t, m, bob.ID(), "1", network.Handled).wait(t)
		r := send(t, m, bob.ID(), "2", network.Handled)
		synctest.Wait() // it is in Receive
		if err := started.Stop(chat); err != nil {
			t.Fatal(err)
		}
		p.room <- struct{}{}
		time.Sleep(5 * time.Second)
		if got := fmt.Sprint(p.texts()); got != "[1]" {
			t.Fatalf("after Stop came: %s", got)
		}
		if err := started.Start(chat); err != nil { // it was not lost
			t.Fatal(err)
		}
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
	})
}

func TestSendToTheOwnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		p := handling()
		self, m := w.peer(w.node(Config{}), 1, p, chat)
		for i := range 100 {
			if o := send(t, m, self.ID(), fmt.Sprint(i), network.Handled).wait(t); o.Err != nil || o.Level != network.Handled {
				t.Fatalf("ended %+v", o)
			}
		}
		if got := p.wait(t, 100); got.From() != self.ID() || got.Protocol() != chat {
			t.Fatalf("from %v, %v", got.From(), got.Protocol())
		}
	})
}

// A page that moves from its node to another node, and back, keeps its order.
func TestPeerMovesBetweenNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		a, b := w.node(Config{}), w.node(Config{})
		_, m := w.peer(a, 1, handling())
		var got []string
		for round := range 6 {
			n := a
			if round%2 == 1 {
				n = b
			}
			to := handling()
			bob, _ := w.peer(n, 2, to, chat)
			for i := range 10 {
				if o := send(t, m, bob.ID(), fmt.Sprint(round, ".", i), network.Handled).wait(t); o.Err != nil {
					t.Fatalf("round %d: %v", round, o.Err)
				}
			}
			got = append(got, to.texts()...)
			bob.Close()
		}
		if len(got) != 60 {
			t.Fatalf("%d came", len(got))
		}
	})
}

func TestNodeRunClosesItsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{})
		bob, m := w.peer(n, 1, handling(), chat)
		r := send(t, m, key(t, 2).PeerID(), "x", network.Handled)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- n.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		wantCode(t, r.wait(t).Err, identity.CodeClosed, "peer closed")
		if n.Lookup(bob.ID()) != nil {
			t.Fatal("the peer is still there")
		}
		_, err := n.Add(bob.net)
		wantCode(t, err, identity.CodeClosed, "peer closed")
	})
}
