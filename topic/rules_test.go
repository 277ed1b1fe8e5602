package topic

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// The rules of gateway.md §6.2 and §6.4 that are about times and numbers.

// beside runs a node and, on the same wire, hosts that the test speaks for.
func beside(t *testing.T, hosts int, log *slog.Logger, f func(t *testing.T, n *testNode, sim *peertest.Sim)) {
	synctest.Test(t, func(t *testing.T) {
		sim := peertest.NewSim(t, peertest.SimConfig{Hosts: 1 + hosts})
		n := startNode(t, sim.Host(0).Host(), defaultQueue, Config{Log: log}, true)
		defer time.Sleep(time.Minute) // what the libraries still do with streams that ended
		defer sim.Close()
		defer n.close()
		f(t, n, sim)
	})
}

func TestRouterIsTheReferences(t *testing.T) {
	p := gossipParams()
	if p.HeartbeatInterval != 500*time.Millisecond || p.HeartbeatInitialDelay != 50*time.Millisecond ||
		p.D != 6 || p.Dlo != 5 || p.Dhi != 12 {
		t.Errorf("parameters are %+v", p)
	}
}

// A message that comes again is not delivered again: for 120 s the router knows
// it by its id, afterwards by its number.
func TestDuplicatesAreDroppedForGood(t *testing.T) {
	beside(t, 1, slog.New(slog.DiscardHandler), func(t *testing.T, n *testNode, sim *peertest.Sim) {
		a := n.page(t)
		a.subscribe(t, "room")
		connectHosts(t, sim.Host(1).Host(), n.host)
		raw := newRawPeerOn(t, sim.Host(1).Host(), n, "room", true)
		a.untilMember(t, "room", sim.Host(1).Host().ID(), true)
		m := raw.message(t, "room", `"once"`, 1, true)
		say := func() {
			t.Helper()
			if err := raw.send(&pb.RPC{Publish: []*pb.Message{m}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if got := a.texts(); len(got) != 1 {
				t.Fatalf("delivered %q", got)
			}
		}
		said := time.Now()
		for _, at := range []time.Duration{0, 0, time.Minute, 118 * time.Second, 122 * time.Second, 5 * time.Minute, 20 * time.Minute} {
			time.Sleep(time.Until(said.Add(at)))
			known := n.Stats().Dropped[DropReplayed]
			say()
			refused := n.Stats().Dropped[DropReplayed] > known
			if at <= 120*time.Second && refused || at > 180*time.Second && !refused { // it looks each minute
				t.Errorf("after %v: dropped %v", at, n.Stats().Dropped)
			}
		}
		if err := raw.send(&pb.RPC{Publish: []*pb.Message{raw.message(t, "room", `"another"`, 2, true)}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := a.texts(); !slices.Equal(got, []string{`"once"`, `"another"`}) {
			t.Errorf("got %q", got)
		}
	})
}

// What is kept for the first member is 256 publications, or 1 MiB: the last ones.
// Those that went are counted, and logged, once a topic and half a minute.
func TestKeptIsBoundedAndTold(t *testing.T) {
	for _, c := range []struct {
		name             string
		published, bytes int
		kept             int
	}{{"many", 300, 10, 256}, {"large", 25, 100_000, 10}} {
		t.Run(c.name, func(t *testing.T) {
			var said bytes.Buffer
			beside(t, 1, slog.New(slog.NewTextHandler(&said, nil)), func(t *testing.T, n *testNode, sim *peertest.Sim) {
				a := n.page(t)
				var want []string
				for i := range c.published {
					text := fmt.Sprintf(`"%d %s"`, i, strings.Repeat("x", c.bytes))
					if a.publish(t, "room", text); i >= c.published-c.kept {
						want = append(want, text)
					}
				}
				if got, lost := n.Stats().Dropped[DropNobody], uint64(c.published-c.kept); got != lost {
					t.Errorf("counted %d lost, want %d", got, lost)
				}
				if n := strings.Count(said.String(), "publications dropped"); n != 1 {
					t.Errorf("logged %d times: %s", n, said.String())
				}
				other := startNode(t, sim.Host(1).Host(), defaultQueue, Config{}, true)
				defer other.close()
				b := other.page(t)
				b.subscribe(t, "room")
				meet(t, n, other)
				time.Sleep(5 * time.Second)
				if got := b.texts(); !slices.Equal(got, want) {
					t.Errorf("%d of %d came", len(got), len(want))
				}
			})
		})
	}
}

// A page that publishes the moment it has subscribed is heard by all that are
// connected, before any mesh has formed: once each, and in order.
func TestNothingIsLostBeforeTheMesh(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 5, Delay: 50 * time.Millisecond}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		var pages []*page
		for _, n := range nodes[1:] {
			pages = append(pages, n.page(t))
			pages[len(pages)-1].subscribe(t, "room")
		}
		meet(t, nodes...)
		a := nodes[0].page(t)
		a.subscribe(t, "room")
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprint(i))
			a.publish(t, "room", fmt.Sprint(i))
			time.Sleep(20 * time.Millisecond) // over a second, in which the mesh forms
		}
		time.Sleep(5 * time.Second)
		for i, p := range append(pages, a) {
			if got := p.texts(); !slices.Equal(got, want) {
				t.Errorf("page %d got %d of 50: %q", i, len(got), got)
			}
		}
	})
}

// A connection that ends shows to both sides within a second, and its return soon
// after they know each other again; nobody calls back who was just left, and each
// change is told once.
func TestConnectionLossShowsWithinASecond(t *testing.T) {
	simulated(t, peertest.SimConfig{Hosts: 2, Delay: 50 * time.Millisecond}, func(t *testing.T, sim *peertest.Sim, nodes []*testNode) {
		meet(t, nodes...)
		a, b := nodes[0].page(t), nodes[1].page(t)
		a.subscribe(t, "room")
		b.subscribe(t, "room")
		for round := range 3 {
			// A packet of the handshake or of identify that is late costs QUIC a second.
			for tries := 5; tries > 0 && (len(memberIDs(a, "room")) == 0 || len(memberIDs(b, "room")) == 0); tries-- {
				time.Sleep(time.Second)
			}
			for p, other := range map[*page]identity.PeerID{a: b.id, b: a.id} {
				if got := memberIDs(p, "room"); !slices.Equal(got, []identity.PeerID{other}) {
					t.Fatalf("round %d: members are %v", round, got)
				}
			}
			disconnect(t, nodes[0].host, nodes[1].host)
			time.Sleep(time.Second)
			if got := append(memberIDs(a, "room"), memberIDs(b, "room")...); len(got) != 0 {
				t.Fatalf("round %d: a second after the loss members are %v", round, got)
			}
			if round == 2 {
				break
			}
			meet(t, nodes...)
		}
		for _, p := range []*page{a, b} {
			var joined []bool
			for _, text := range p.told() {
				joined = append(joined, strings.Contains(text, " true "))
			}
			if !slices.Equal(joined, []bool{true, false, true, false, true, false}) {
				t.Errorf("was told %q", p.told())
			}
		}
	})
}

// heardFrame is a frame of presence, and when it came.
type heardFrame struct {
	kind byte
	body []byte
	at   time.Duration
}

// Presence is told when something changes and else only kept alive: a frame each
// 5 s, and each page's record anew after half of its 10 minutes.
func TestPresenceIsNotPolled(t *testing.T) {
	beside(t, 1, slog.New(slog.DiscardHandler), func(t *testing.T, n *testNode, sim *peertest.Sim) {
		began := time.Now()
		var mu sync.Mutex
		var heard []heardFrame
		sim.Host(1).Handle(presenceProtocol, func(_ context.Context, s network.Stream) {
			r := bufio.NewReader(s)
			for {
				size, err := readSize(r)
				if err != nil {
					return
				}
				frame := make([]byte, size)
				if _, err := io.ReadFull(r, frame); err != nil {
					return
				}
				mu.Lock()
				heard = append(heard, heardFrame{frame[0], frame[1:], time.Since(began)})
				mu.Unlock()
			}
		})
		a := n.page(t)
		a.subscribe(t, "room")
		connectHosts(t, sim.Host(1).Host(), n.host)
		newRawPeerOn(t, sim.Host(1).Host(), n, "room", true)
		time.Sleep(20 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		last, alive := time.Duration(0), 0
		var records []time.Duration
		for i, f := range heard {
			if gap := f.at - last; i > 0 && gap > aliveEvery+time.Second {
				t.Fatalf("nothing was said for %v", gap)
			}
			last = f.at
			switch f.kind {
			case frameAlive:
				alive++
			case frameAnnounce:
				c, err := openClaim(f.body, n.host.ID(), began.Add(f.at))
				if err != nil || c.page != a.id {
					t.Fatalf("announced %+v, %v", c, err)
				}
				if left := c.expires.Sub(began.Add(f.at)); left > recordLife || left < recordLife-time.Second {
					t.Errorf("a record lives for %v", left)
				}
				records = append(records, f.at)
			default:
				t.Errorf("frame of kind %d", f.kind)
			}
		}
		if want := int(20 * time.Minute / aliveEvery); alive < want-10 || alive > want {
			t.Errorf("%d signs of life in 20 minutes", alive)
		}
		for i := 1; i < len(records); i++ {
			if gap := records[i] - records[i-1]; gap < recordLife/2-time.Second || gap > recordLife*3/4+time.Second {
				t.Errorf("a record was renewed after %v", gap)
			}
		}
		if len(records) < 3 || len(records) > 5 {
			t.Errorf("records came at %v", records)
		}
	})
}

// A record that is not renewed is believed until it expires, and for no longer than
// it takes to look.
func TestPresenceExpires(t *testing.T) {
	beside(t, 1, slog.New(slog.DiscardHandler), func(t *testing.T, n *testNode, sim *peertest.Sim) {
		a := n.page(t)
		a.subscribe(t, "room")
		l := &liar{host: sim.Host(1).Host(), net: sim.Host(1), key: newKey(t)}
		began := time.Now()
		s := l.tell(t, n, appendFrame(nil, frameAnnounce, l.record(t, func(c *claim) { c.expires = began.Add(recordLife) })))
		for time.Since(began) < recordLife+recordLife/4 {
			time.Sleep(aliveEvery)
			if _, err := s.Write(appendFrame(nil, frameAlive, nil)); err != nil {
				t.Fatal(err)
			}
			if there := len(a.Members("room")) == 1; !there && time.Since(began) < recordLife {
				t.Fatalf("gone after %v", time.Since(began))
			}
		}
		time.Sleep(time.Second)
		if got := a.Members("room"); len(got) != 0 {
			t.Errorf("still lists %v", got)
		}
		if told := a.told(); len(told) != 2 {
			t.Errorf("was told %q", told)
		}
	})
}

// A teller that falls silent is gone after 12 s, and not before.
func TestSilentTellerIsGoneAfterTwelveSeconds(t *testing.T) {
	beside(t, 1, slog.New(slog.DiscardHandler), func(t *testing.T, n *testNode, sim *peertest.Sim) {
		a := n.page(t)
		a.subscribe(t, "room")
		l := &liar{host: sim.Host(1).Host(), net: sim.Host(1), key: newKey(t)}
		l.tell(t, n, appendFrame(nil, frameAnnounce, l.record(t, nil)))
		time.Sleep(deadAfter - time.Second)
		if got := a.Members("room"); len(got) != 1 {
			t.Fatalf("after 11 s members are %v", got)
		}
		time.Sleep(2 * time.Second)
		if got := a.Members("room"); len(got) != 0 {
			t.Errorf("after 13 s members are %v", got)
		}
	})
}
