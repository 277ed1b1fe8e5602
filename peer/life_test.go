package peer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// The life of a conversation's stream: made on demand, one for all messages,
// closed when idle, made again with a back-off (gateway.md §2.6, §5.4, §6.4).

// dialled is a network that notes when a stream was opened, or tried to be.
type dialled struct {
	network.Network

	mu    sync.Mutex
	start time.Time
	at    []time.Duration
}

func (d *dialled) Open(ctx context.Context, to identity.PeerID, p ...network.Protocol) (network.Stream, error) {
	d.mu.Lock()
	d.at = append(d.at, time.Since(d.start))
	d.mu.Unlock()
	return d.Network.Open(ctx, to, p...)
}

// restart forgets what was noted; what follows counts from now.
func (d *dialled) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.start, d.at = time.Now(), nil
}

func (d *dialled) times() []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.at)
}

// dialler is a page whose network notes its tries, and a page on another node.
func dialler(t *testing.T, w *world, cfg Config) (m *Member, d *dialled, bob *Peer, to *page) {
	t.Helper()
	d = &dialled{Network: w.cluster.Host(key(t, 1)), start: time.Now()}
	alice, err := w.node(cfg).Add(d)
	if err != nil {
		t.Fatal(err)
	}
	to = handling()
	bob, _ = w.peer(w.node(Config{}), 2, to, chat)
	return alice.Join(handling()), d, bob, to
}

// One stream carries all messages to one (peer, protocol), however many sessions
// send and whatever the pauses between them; none is there before the first and
// none after two quiet minutes. Another protocol has one of its own, and so has
// the other direction.
func TestOneStreamCarriesAConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		a, b := w.node(Config{}), w.node(Config{})
		back := handling()
		alice, m := w.peer(a, 1, back, chat)
		second := alice.Join(handling())
		to := handling()
		bob, other := w.peer(b, 2, to, chat, "/other")
		streams := func() int { return w.cluster.Streams(alice.ID(), bob.ID()) }
		if n := streams(); n != 0 {
			t.Fatalf("%d streams before the first message", n)
		}
		for round := range 20 {
			var results []result
			for i := range 50 {
				from := m
				if i%2 == 1 {
					from = second
				}
				results = append(results, send(t, from, bob.ID(), fmt.Sprint(round, ".", i), network.Level(i%3)))
			}
			for _, r := range results {
				if o := r.wait(t); o.Err != nil {
					t.Fatal(o.Err)
				}
			}
			if n := streams(); n != 1 {
				t.Fatalf("%d streams in round %d", n, round)
			}
			time.Sleep(2*time.Minute - time.Second) // just not idle
		}
		if n := a.Stats().Streamed; n != 1 || len(to.texts()) != 1000 {
			t.Fatalf("%d streams were opened for %d messages", n, len(to.texts()))
		}

		send(t, m, bob.ID(), "x", network.Handled).wait(t)
		out, r := outgoing(bob.ID(), "y", network.Handled)
		out.Protocol = "/other"
		if _, err := m.Send(out); err != nil {
			t.Fatal(err)
		}
		r.wait(t)
		send(t, other, alice.ID(), "z", network.Handled).wait(t)
		if n := streams(); n != 3 || a.Stats().Streamed != 2 || b.Stats().Streamed != 1 {
			t.Fatalf("%d streams for two protocols and a way back", n)
		}
		time.Sleep(2*time.Minute - time.Second)
		if n := streams(); n != 3 {
			t.Fatalf("%d streams after less than two quiet minutes", n)
		}
		time.Sleep(time.Second + farewell)
		synctest.Wait()
		if n := streams(); n != 0 {
			t.Fatalf("%d streams after two quiet minutes", n)
		}
		send(t, m, bob.ID(), "again", network.Handled).wait(t)
		if n := a.Stats().Streamed; n != 3 {
			t.Fatalf("%d streams were opened", n)
		}
	})
}

// Pages of one node need no stream at all.
func TestPagesOfOneNodeNeedNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{})
		alice, m := w.peer(n, 1, handling(), chat)
		bob, other := w.peer(n, 2, handling(), chat)
		for i := range 100 {
			send(t, m, bob.ID(), fmt.Sprint(i), network.Handled).wait(t)
			send(t, other, alice.ID(), fmt.Sprint(i), network.Handled).wait(t)
			if w.cluster.Streams(alice.ID(), bob.ID()) != 0 {
				t.Fatal("a stream was opened")
			}
		}
		if s := n.Stats(); s.Streamed != 0 || s.Conversations != 2 || s.Handled != 200 {
			t.Fatalf("stats: %+v", s)
		}
		if list := n.List(10); len(list) != 2 || list[0].Path != network.PathLocal {
			t.Fatalf("list: %+v", list)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := n.Stats().Conversations; n != 0 {
			t.Fatalf("%d idle conversations are left", n)
		}
	})
}

func seconds(s ...float64) []time.Duration {
	list := make([]time.Duration, len(s))
	for i, v := range s {
		list[i] = time.Duration(v * float64(time.Second))
	}
	return list
}

// A peer that can't be reached is tried again after 250 ms, doubling to 4 s, and
// given up with a code when peer.sendTimeout is over; then nobody tries any more.
func TestReconnectBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		m, d, bob, to := dialler(t, w, Config{})
		expect := func(what string, want ...float64) {
			t.Helper()
			if got := d.times(); !slices.Equal(got, seconds(want...)) {
				t.Fatalf("%s: tried at %v, want %v", what, got, seconds(want...))
			}
		}
		cut := func() { w.cluster.Cut(m.Peer().ID(), bob.ID()) }
		heal := func() { w.cluster.Heal(m.Peer().ID(), bob.ID()) }

		cut()
		d.restart()
		o := send(t, m, bob.ID(), "1", network.Handled).wait(t)
		wantCode(t, o.Err, identity.CodeUnreachable, "peer unreachable: "+bob.ID().String()+": the path is cut")
		if took := time.Since(d.start); took != 10*time.Second {
			t.Fatalf("given up after %v", took)
		}
		time.Sleep(time.Minute)
		expect("first", 0, 0.25, 0.75, 1.75, 3.75, 7.75)

		// The next message begins anew, and so does a stream that was useful.
		d.restart()
		r := send(t, m, bob.ID(), "2", network.Handled)
		time.Sleep(5 * time.Second)
		heal()
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		expect("healed after 5 s", 0, 0.25, 0.75, 1.75, 3.75, 7.75)
		d.restart()
		cut()
		r = send(t, m, bob.ID(), "3", network.Handled)
		time.Sleep(3 * time.Second)
		heal()
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		expect("cut once more", 0, 0.25, 0.75, 1.75, 3.75)
		if got := fmt.Sprint(to.texts()); got != "[2 3]" {
			t.Fatalf("came: %s", got)
		}
	})
}

// With more time than the default the pauses stay at 4 s; a message that comes
// meanwhile makes no further try, and one that is taken back ends them.
func TestReconnectPausesFourSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		m, d, bob, _ := dialler(t, w, Config{SendTimeout: time.Minute})
		w.cluster.Cut(m.Peer().ID(), bob.ID())
		d.restart()
		out, r := outgoing(bob.ID(), "x", network.Handled)
		cancel, err := m.Send(out)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			time.Sleep(time.Second)
			out, _ := outgoing(bob.ID(), "more", network.Handled)
			also, err := m.Send(out)
			if err != nil {
				t.Fatal(err)
			}
			also()
		}
		cancel()
		wantCode(t, r.wait(t).Err, identity.CodeCancelled, "send cancelled")
		time.Sleep(time.Minute)
		want := seconds(0, 0.25, 0.75, 1.75, 3.75, 7.75, 11.75, 15.75, 19.75, 23.75, 27.75)
		if got := d.times(); !slices.Equal(got, want) {
			t.Fatalf("tried at %v, want %v", got, want)
		}
	})
}

// A peer that ends each stream without taking anything is tried with the same
// back-off: it can't make us dial without end.
func TestStreamsThatEndAtOnceBackOff(t *testing.T) {
	for name, answer := range map[string][]byte{
		"reset": nil, "welcome": appendWelcome(nil, 0, firstWindow, 1<<20, 0, 0),
		"bye": cat(appendWelcome(nil, 0, firstWindow, 1<<20, 0, 0), appendBye(nil, byeLater, 0, "")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				m, d, _, _ := dialler(t, w, Config{})
				evil := w.cluster.Host(key(t, 66))
				evil.Handle(ownPrefix+chat, func(_ context.Context, s network.Stream) {
					_, _ = s.Read(make([]byte, 1000))
					_, _ = s.Write(answer)
					_ = s.CloseWrite()
					_ = s.Reset()
				})
				d.restart()
				if o := send(t, m, evil.Local(), "x", network.Handled).wait(t); o.Err == nil {
					t.Fatalf("ended %+v", o)
				}
				time.Sleep(time.Minute)
				if got := d.times(); len(got) > 7 || !slices.Equal(got[:3], seconds(0, 0.25, 0.75)) {
					t.Fatalf("tried at %v", got)
				}
			})
		})
	}
}
