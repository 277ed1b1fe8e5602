package topic

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
)

// simulated runs nodes in virtual time on a wire with delay and loss, so how
// long something takes can be said exactly.
func simulated(t *testing.T, cfg peertest.SimConfig, f func(t *testing.T, sim *peertest.Sim, nodes []*testNode)) {
	synctest.Test(t, func(t *testing.T) {
		sim := peertest.NewSim(t, cfg)
		nodes := make([]*testNode, cfg.Hosts)
		for i := range nodes {
			nodes[i] = startNode(t, sim.Host(i).Host(), defaultQueue, Config{Log: slog.New(slog.DiscardHandler)}, true)
		}
		f(t, sim, nodes)
		for _, n := range nodes {
			n.close()
		}
		sim.Close()
		time.Sleep(time.Minute) // what the libraries still do with streams that ended
	})
}

// meet connects each with each over the wire.
func meet(t *testing.T, nodes ...*testNode) {
	t.Helper()
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			for try := 0; ; try++ { // a handshake may get lost
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				err := a.host.Connect(ctx, peer.AddrInfo{ID: b.host.ID()})
				cancel()
				if err == nil {
					break
				}
				if try == 5 {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
			}
		}
	}
}

func memberIDs(p *page, topic string) []identity.PeerID {
	var ids []identity.PeerID
	for _, m := range p.Members(topic) {
		ids = append(ids, m.Peer)
	}
	return ids
}

// TestSimPresenceWithinASecond: join, leave and the end of a node show within a
// second (gateway.md §6.2), over paths of 50 ms; subscribing itself waits for
// nothing.
func TestSimPresenceWithinASecond(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 3, Delay: 50 * time.Millisecond}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		meet(t, nodes...)
		time.Sleep(5 * time.Second)
		a, b, c := nodes[0].page(t), nodes[1].page(t), nodes[2].page(t)
		a.subscribe(t, "room")
		time.Sleep(time.Second)
		began := time.Now()
		b.subscribe(t, "room")
		c.subscribe(t, "room")
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("subscribing took %v", took)
		}
		expect := func(what string, p *page, want ...identity.PeerID) {
			t.Helper()
			got := memberIDs(p, "room")
			slices.Sort(got)
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Errorf("%s: members are %v, want %v", what, got, want)
			}
		}
		time.Sleep(time.Second)
		expect("a after the joins", a, b.id, c.id)
		expect("b after the joins", b, a.id, c.id)
		if err := b.Unsubscribe("room"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect("a after b left", a, c.id)
		nodes[2].close()
		time.Sleep(time.Second)
		expect("a after c's node ended", a)
	})
}

// TestSimSilentLoss: a node that falls silent without a word is gone after
// deadAfter, long before the transport notices; when it is back, so are its pages.
func TestSimSilentLoss(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 2, Delay: 50 * time.Millisecond}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		meet(t, nodes...)
		a, b := nodes[0].page(t), nodes[1].page(t)
		a.subscribe(t, "room")
		b.subscribe(t, "room")
		time.Sleep(time.Minute)
		sim.Partition(0, 1)
		time.Sleep(deadAfter + time.Second)
		if got := memberIDs(a, "room"); len(got) != 0 {
			t.Errorf("still lists %v", got)
		}
		sim.Heal(0, 1)
		time.Sleep(10 * time.Second)
		if got := memberIDs(a, "room"); !slices.Equal(got, []identity.PeerID{b.id}) {
			t.Errorf("members are %v", got)
		}
		if want := []bool{true, false, true}; len(a.told()) != len(want) {
			t.Errorf("was told %q", a.told())
		}
	})
}

// TestSimLossyWire: on a wire that loses packets everything arrives once and in
// order, from several publishers, while pages come and go.
func TestSimLossyWire(t *testing.T) {
	for _, loss := range []float64{0, 0.05, 0.2} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			cfg := peertest.SimConfig{Hosts: 4, Delay: 40 * time.Millisecond, Loss: loss, Seed: 3}
			simulated(t, cfg, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
				meet(t, nodes...)
				time.Sleep(30 * time.Second)
				const each = 60
				var publishers, listeners []*page
				for i, n := range nodes {
					publishers = append(publishers, n.page(t))
					listeners = append(listeners, n.page(t))
					listeners[i].subscribe(t, "room")
				}
				time.Sleep(30 * time.Second)
				for i := range each {
					for _, p := range publishers {
						p.publish(t, "room", fmt.Sprint(i))
					}
					guest := nodes[i%len(nodes)].page(t)
					guest.subscribe(t, "room")
					time.Sleep(20 * time.Millisecond)
					guest.Leave()
				}
				time.Sleep(time.Minute)
				for i, l := range listeners {
					checkOrder(t, fmt.Sprint("listener ", i), l, len(publishers), each)
				}
				for i, n := range nodes {
					if d := n.Stats().Dropped; len(d) > 0 {
						t.Errorf("node %d dropped %v", i, d)
					}
				}
			})
		})
	}
}

// checkOrder holds that l got 0 … each-1 from every publisher, in order.
func checkOrder(t *testing.T, who string, l *page, publishers, each int) {
	t.Helper()
	next := make(map[identity.PeerID]int)
	for i, text := range l.texts() {
		from := l.got[i].From
		if text != fmt.Sprint(next[from]) {
			t.Errorf("%s: %s from %s in place of %d", who, text, from, next[from])
			return
		}
		next[from]++
	}
	for from, n := range next {
		if n != each {
			t.Errorf("%s: %d of %d from %s", who, n, each, from)
		}
	}
	if len(next) != publishers {
		t.Errorf("%s: heard %d publishers", who, len(next))
	}
}

// TestSimKeptForHalfAMinute: what was published before anybody came is sent to
// who comes within 30 s, and counted as lost afterwards.
func TestSimKeptForHalfAMinute(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 2}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		a, b := nodes[0].page(t), nodes[1].page(t)
		a.publish(t, "room", "1")
		a.publish(t, "gone", "1")
		time.Sleep(29 * time.Second)
		a.publish(t, "room", "2")
		b.subscribe(t, "room")
		meet(t, nodes...)
		time.Sleep(900 * time.Millisecond)
		if got := b.texts(); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("got %q", got)
		}
		time.Sleep(10 * time.Second)
		b.subscribe(t, "gone")
		time.Sleep(time.Second)
		if got := b.texts(); len(got) != 2 {
			t.Errorf("got %q: it was too old", got)
		}
		if d := nodes[0].Stats().Dropped; d[DropNobody] != 1 {
			t.Errorf("counted %v", d)
		}
	})
}

// TestSimKeptForAPageOfThisNode: the first member may be a page of the same node.
func TestSimKeptForAPageOfThisNode(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 1}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		a, own, b, late := nodes[0].page(t), nodes[0].page(t), nodes[0].page(t), nodes[0].page(t)
		own.Page = nodes[0].Join(a.key, own.sink) // another session of a's peer
		own.subscribe(t, "room")
		a.publish(t, "room", "1")
		time.Sleep(time.Second)
		b.subscribe(t, "room")
		time.Sleep(time.Second)
		a.publish(t, "room", "2")
		late.subscribe(t, "room")
		time.Sleep(time.Minute)
		for name, c := range map[string]struct {
			p    *page
			want []string
		}{"own session": {own, []string{"1", "2"}}, "first": {b, []string{"1", "2"}}, "later": {late, []string{}}} {
			if got := c.p.texts(); !slices.Equal(got, c.want) {
				t.Errorf("%s got %q, want %q", name, got, c.want)
			}
		}
		if d := nodes[0].Stats().Dropped; len(d) > 0 {
			t.Errorf("counted %v", d)
		}
	})
}

// TestSimRecordsAreRenewed: presence holds for longer than a record lives.
func TestSimRecordsAreRenewed(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 2}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		meet(t, nodes...)
		a, b := nodes[0].page(t), nodes[1].page(t)
		a.subscribe(t, "room")
		b.subscribe(t, "room")
		time.Sleep(5 * recordLife)
		if got := memberIDs(a, "room"); !slices.Equal(got, []identity.PeerID{b.id}) {
			t.Errorf("members are %v", got)
		}
		if told := a.told(); len(told) != 1 {
			t.Errorf("was told %q", told)
		}
		nodes[1].mu.Lock()
		nodes[1].told.mine["room"][b.id].signed = time.Now().Add(time.Hour) // it forgets to renew
		nodes[1].mu.Unlock()
		time.Sleep(2 * recordLife)
		if got := memberIDs(a, "room"); len(got) != 0 {
			t.Errorf("still lists %v", got)
		}
	})
}

// TestSimRoomsAreLeft: a topic that nobody uses costs nothing after a while, and
// can be used again.
func TestSimRoomsAreLeft(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 1}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		a := nodes[0].page(t)
		for range 3 {
			a.subscribe(t, "room")
			a.publish(t, "room", "1")
			if err := a.Unsubscribe("room"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(keepFor + lingerFor + time.Second)
			if s := nodes[0].Stats(); s.Topics != 0 {
				t.Errorf("%d topics in use", s.Topics)
			}
			if topics := nodes[0].router.pubsub.GetTopics(); len(topics) != 0 {
				t.Errorf("the router is still in %v", topics)
			}
		}
	})
}
