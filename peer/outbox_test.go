package peer

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// waiting sends like a page of v2: what doesn't fit waits.
func waiting(t testing.TB, m *Member, to identity.PeerID, text string, level network.Level) (cancel func(), r result) {
	t.Helper()
	out, r := outgoing(to, text, level)
	out.Wait = true
	cancel, err := m.Send(out)
	if err != nil {
		t.Fatal(err)
	}
	return cancel, r
}

func kilobyte(i int) string { return fmt.Sprintf("%-1000d", i) }

// count says how many are settled by now, which must be the first ones.
func count(t testing.TB, results []result) (n int) {
	t.Helper()
	synctest.Wait()
	for i, r := range results {
		if len(r) > 0 && n < i {
			t.Fatalf("message %d is settled, %d is not", i, n)
		}
		if len(r) > 0 {
			n++
		}
	}
	return n
}

// Whoever waits and wants level Queued alone is not told so before the outbox has
// room: 10 KB of 30 are in it, the others wait, and nothing is lost or reordered.
func TestG_D9_FullOutboxMakesSendersWait(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		a.cfg.Outbox = 10_000
		slow := handling()
		slow.room = make(chan struct{})
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, slow, chat)
		var results []result
		for i := range 30 {
			_, r := waiting(t, m, bob.ID(), kilobyte(i), network.Queued)
			results = append(results, r)
		}
		out, _ := outgoing(bob.ID(), "who doesn't wait", network.Queued)
		_, err := m.Send(out)
		wantCode(t, err, identity.CodeQueueFull, "send queue full: "+bob.ID().String()+" /chat/1")
		for i := range 20 { // what the page takes leaves room for as much
			if n := count(t, results); n != 10+i {
				t.Fatalf("%d are queued when %d were taken", n, i)
			}
			slow.room <- struct{}{}
			time.Sleep(takenDelay)
		}
		close(slow.room)
		for i, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
		for i, text := range slow.texts() {
			if text != kilobyte(i) {
				t.Fatalf("place %d has %.10q", i, text)
			}
		}
	})
}

func TestWaitingForTheOutbox(t *testing.T) {
	type scene struct {
		w       *world
		n       *Node
		m       *Member
		bob     identity.PeerID
		cancels []func()
		results []result
	}
	// play sends 30 KB to a peer that isn't there; the outbox holds 10.
	play := func(name string, cfg Config, then func(t *testing.T, s *scene)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scene{w: newWorld(t), bob: key(t, 2).PeerID()}
				defer s.w.close()
				if cfg.Outbox == 0 {
					cfg.Outbox = 10_000
				}
				s.n = s.w.node(cfg)
				_, s.m = s.w.peer(s.n, 1, handling())
				for i := range 30 {
					cancel, r := waiting(t, s.m, s.bob, kilobyte(i), network.Queued)
					s.cancels, s.results = append(s.cancels, cancel), append(s.results, r)
				}
				if n := count(t, s.results); n != 10 {
					t.Fatalf("%d of 30 KB are queued in 10", n)
				}
				then(t, s)
				synctest.Wait()
				p := s.m.Peer()
				if p.bytes != 0 || p.overBytes != 0 || p.full.len() != 0 {
					t.Fatalf("left: %d bytes, %d over, %d full", p.bytes, p.overBytes, p.full.len())
				}
			})
		})
	}
	// rest expects what became of those that waited.
	rest := func(t *testing.T, s *scene, from int, code identity.Code) {
		t.Helper()
		for i, r := range s.results[from:] {
			if o := r.wait(t); identity.CodeOf(o.Err) != code {
				t.Fatalf("message %d ended %+v", from+i, o)
			}
			if len(r) != 0 {
				t.Fatal("Done was called twice")
			}
		}
	}
	play("the peer comes", Config{}, func(t *testing.T, s *scene) {
		to := handling()
		s.w.peer(s.n, 2, to, chat)
		rest(t, s, 10, "")
		to.wait(t, 30)
	})
	play("nobody comes", Config{}, func(t *testing.T, s *scene) {
		rest(t, s, 10, identity.CodeUnreachable)
		if n := s.n.Stats().Timeouts; n != 30 {
			t.Fatalf("%d time-outs counted", n)
		}
	})
	play("the oldest are given up first", Config{}, func(t *testing.T, s *scene) {
		time.Sleep(5 * time.Second)
		var young []result
		for i := range 5 {
			_, r := waiting(t, s.m, s.bob, kilobyte(30+i), network.Queued)
			young = append(young, r)
		}
		time.Sleep(5*time.Second + time.Millisecond)
		rest(t, s, 10, identity.CodeUnreachable) // not told to be queued, to be dropped right after
		if n := count(t, young); n != 5 {
			t.Fatalf("%d of 5 that are younger are queued when the older ones are gone", n)
		}
		time.Sleep(10 * time.Second)
	})
	play("some are taken back", Config{}, func(t *testing.T, s *scene) {
		for i := range 10 {
			s.cancels[18-2*i]() // 5 that wait, then 5 that are queued
		}
		for i := 10; i < 20; i += 2 {
			wantCode(t, s.results[i].wait(t).Err, identity.CodeCancelled, "send cancelled")
		}
		s.results = append(s.results[:10:10], s.results[11], s.results[13], s.results[15], s.results[17], s.results[19])
		if n := count(t, s.results); n != 15 {
			t.Fatalf("%d are queued", n)
		}
		s.m.Leave()
	})
	play("the session leaves", Config{}, func(t *testing.T, s *scene) {
		s.m.Leave()
		rest(t, s, 10, identity.CodeClosed)
	})
	play("the peer closes", Config{}, func(t *testing.T, s *scene) {
		s.m.Peer().Close()
		rest(t, s, 10, identity.CodeClosed)
	})
	play("the other side is blocked", Config{}, func(t *testing.T, s *scene) {
		s.n.Block(s.bob)
		rest(t, s, 10, identity.CodeForbidden)
	})
	play("the peer's outboxes together", Config{Outbox: 1 << 20, OutboxTotal: 10_000}, func(t *testing.T, s *scene) {
		other := key(t, 3).PeerID()
		_, r := waiting(t, s.m, other, kilobyte(0), network.Queued)
		time.Sleep(time.Second)
		if len(r) != 0 {
			t.Fatal("queued beyond what the peer's outboxes hold together")
		}
		to := handling()
		s.w.peer(s.n, 2, to, chat)
		rest(t, s, 10, "")
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		time.Sleep(10 * time.Second)
	})
	play("one message is larger than all", Config{Outbox: 10_000}, func(t *testing.T, s *scene) {
		_, large := waiting(t, s.m, s.bob, strings.Repeat("x", 50_000), network.Queued)
		_, small := waiting(t, s.m, s.bob, "small", network.Queued)
		to := handling()
		s.w.peer(s.n, 2, to, chat)
		for _, r := range append(s.results[10:], large, small) {
			if o := r.wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		if d := to.wait(t, 32); string(d.Content().Data) != "small" {
			t.Fatalf("the last is %.10q", d.Content().Data)
		}
	})
}

// Room in all outboxes together goes to the conversations in turn, whichever message
// of whose left it, and to a large message before smaller ones that came later.
func TestRoomGoesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{OutboxTotal: 10_000, SendTimeout: time.Hour})
		_, m := w.peer(n, 1, handling())
		var cancels []func()
		for i := range 10 {
			cancel, _ := waiting(t, m, key(t, 2).PeerID(), kilobyte(i), network.Queued)
			cancels = append(cancels, cancel)
		}
		var results []result // in the order in which they must be told
		for turn := range 2 {
			for other := range 4 {
				size := 1000
				if turn == 0 && other == 1 {
					size = 2000
				}
				_, r := waiting(t, m, key(t, 3+other).PeerID(), strings.Repeat("x", size), network.Queued)
				results = append(results, r)
			}
		}
		for i, want := range []int{1, 1, 2, 3, 4, 5, 6, 7, 8} { // the second needs what two leave
			cancels[i]()
			if n := count(t, results); n != want {
				t.Fatalf("%d are queued when %d were taken back, want %d", n, i+1, want)
			}
		}
	})
}
