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

// The error texts are those of gateway.md §2.6; pages of v1 see them.
func TestSendErrors(t *testing.T) {
	type scene struct {
		w      *world
		a, b   *Node
		sender *Member
		bob    identity.PeerID
	}
	cases := []struct {
		name  string
		after time.Duration // at least until the error
		code  identity.Code
		text  string // %s is the target's id
		play  func(t *testing.T, s *scene) result
	}{
		{"nobody there", 10 * time.Second, identity.CodeUnreachable, "peer unreachable: %s: no address found",
			func(t *testing.T, s *scene) result { return send(t, s.sender, s.bob, "x", network.Handled) }},
		{"path cut", 10 * time.Second, identity.CodeUnreachable, "peer unreachable: %s: the path is cut",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.b, 2, handling(), chat)
				s.w.cluster.Cut(s.sender.Peer().ID(), s.bob)
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"path silent", 10 * time.Second, identity.CodeUnreachable, "peer unreachable: %s: no answer in time",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.b, 2, handling(), chat)
				s.w.cluster.Block(s.sender.Peer().ID(), s.bob)
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"not started", 10 * time.Second, identity.CodeNotStarted, "protocol not started by peer: /chat/1",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.b, 2, handling())
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"not started on the same node", 10 * time.Second, identity.CodeNotStarted, "protocol not started by peer: /chat/1",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.a, 2, handling())
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"stopped meanwhile", 10 * time.Second, identity.CodeNotStarted, "protocol not started by peer: /chat/1",
			func(t *testing.T, s *scene) result {
				_, m := s.w.peer(s.b, 2, handling(), chat)
				send(t, s.sender, s.bob, "first", network.Handled).wait(t)
				if err := m.Stop(chat); err != nil {
					t.Fatal(err)
				}
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"handler hangs", 10 * time.Second, identity.CodeTimeout, "send timed out",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.b, 2, newPage(true), chat)
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"page full", 10 * time.Second, identity.CodeTimeout, "send timed out",
			func(t *testing.T, s *scene) result {
				p := handling()
				p.room = make(chan struct{})
				s.w.peer(s.b, 2, p, chat)
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"lost after writing", 10 * time.Second, identity.CodeTimeout, "send timed out",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.b, 2, handling(), chat)
				send(t, s.sender, s.bob, "first", network.Handled).wait(t)
				s.w.cluster.Block(s.sender.Peer().ID(), s.bob)
				r := send(t, s.sender, s.bob, "x", network.Handled)
				synctest.Wait()
				s.w.cluster.Cut(s.sender.Peer().ID(), s.bob)
				return r
			}},
		{"handler fails", 0, identity.CodeRefused, "no thanks",
			func(t *testing.T, s *scene) result {
				p := newPage(true)
				p.on = func(d network.Delivery) { d.Refuse(identity.Errorf(identity.CodeRefused, "no thanks")) }
				s.w.peer(s.b, 2, p, chat)
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"page can't take it", 0, identity.CodeTooLarge, "over the frame limit",
			func(t *testing.T, s *scene) result {
				p := handling()
				p.refuse = func(network.Delivery) error {
					return identity.Errorf(identity.CodeTooLarge, "over the frame limit")
				}
				s.w.peer(s.b, 2, p, chat)
				return send(t, s.sender, s.bob, "x", network.Handled)
			}},
		{"page leaves before it handled", 0, identity.CodeClosed, "page closed",
			func(t *testing.T, s *scene) result {
				p := newPage(true)
				_, m := s.w.peer(s.b, 2, p, chat)
				r := send(t, s.sender, s.bob, "x", network.Handled)
				p.wait(t, 1)
				m.Leave()
				return r
			}},
		{"own peer closes", 0, identity.CodeClosed, "peer closed",
			func(t *testing.T, s *scene) result {
				r := send(t, s.sender, s.bob, "x", network.Handled)
				s.sender.Peer().Close()
				return r
			}},
		{"own session leaves", 0, identity.CodeClosed, "peer closed",
			func(t *testing.T, s *scene) result {
				r := send(t, s.sender, s.bob, "x", network.Handled)
				s.sender.Leave()
				return r
			}},
		{"other side has a lower limit", 0, identity.CodeTooLarge, "message too large: 2000 bytes, limit 1000",
			func(t *testing.T, s *scene) result {
				s.w.peer(s.w.node(Config{MaxMessage: 1000}), 2, handling(), chat)
				return send(t, s.sender, s.bob, strings.Repeat("x", 2000), network.Handled)
			}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				a, b := w.node(Config{}), w.node(Config{})
				_, sender := w.peer(a, 1, handling())
				s := &scene{w: w, a: a, b: b, sender: sender, bob: key(t, 2).PeerID()}
				start := time.Now()
				o := c.play(t, s).wait(t)
				text := c.text
				if strings.Contains(text, "%s") {
					text = fmt.Sprintf(text, s.bob)
				}
				wantCode(t, o.Err, c.code, text)
				if took := time.Since(start); took < c.after || took > c.after+time.Second {
					t.Fatalf("took %v, want %v", took, c.after)
				}
			})
		})
	}
}

// Messages that keep coming in don't hide that the first one's handler hangs.
func TestHangingHandlerIsToldInTime(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, newPage(true), chat)
		start := time.Now()
		first := send(t, m, bob.ID(), "first", network.Handled)
		for range 20 {
			time.Sleep(time.Second)
			send(t, m, bob.ID(), "more", network.Handled)
		}
		if o := first.wait(t); o.Err != errTimedOut {
			t.Fatalf("ended %+v", o)
		}
		if n := a.Stats().Timeouts; n < 10 || time.Since(start) > 21*time.Second {
			t.Fatalf("%d timeouts after %v", n, time.Since(start))
		}
	})
}

// A burst that takes longer than the timeout is no fault while it moves.
func TestSlowButSteadyIsNotTimedOut(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		slow := handling()
		slow.room = make(chan struct{})
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, slow, chat)
		var results []result
		for range 30 {
			results = append(results, send(t, m, bob.ID(), "x", network.Handled))
		}
		for range results {
			time.Sleep(5 * time.Second)
			slow.room <- struct{}{}
		}
		for i, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
	})
}

func TestSendRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{MaxMessage: 1000, Outbox: 2500})
		_, m := w.peer(n, 1, handling())
		bob := key(t, 2).PeerID()
		try := func(to identity.PeerID, p network.Protocol, size int, code identity.Code, text string) {
			t.Helper()
			out, r := outgoing(to, strings.Repeat("x", size), network.Handled)
			out.Protocol = p
			_, err := m.Send(out)
			wantCode(t, err, code, text)
			if len(r) != 0 {
				t.Fatal("Done was called besides")
			}
		}
		try(bob, chat, 1001, identity.CodeTooLarge, "message too large: 1001 bytes, limit 1000")
		try("x", chat, 1, identity.CodeMalformed, "invalid peer ID: multihash too short. must be >= 2 bytes")
		try(bob, "/parley/msg/1.0.0/x", 1, identity.CodeReserved, "protocol is reserved: /parley/msg/1.0.0/x")
		send(t, m, bob, strings.Repeat("x", 1000), network.Handled)
		send(t, m, bob, strings.Repeat("x", 1000), network.Handled)
		try(bob, chat, 501, identity.CodeQueueFull, "send queue full: "+bob.String()+" /chat/1")
		send(t, m, bob, strings.Repeat("x", 500), network.Handled)
		out, _ := outgoing(bob, strings.Repeat("x", 1000), network.Handled)
		out.Wait = true
		if _, err := m.Send(out); err != nil {
			t.Fatalf("a waiting send was refused: %v", err)
		}
		m.Leave()
		try(bob, chat, 1, identity.CodeClosed, "peer closed")
	})
}

func TestCancelTakesBackWhatIsNotOnItsWay(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob := key(t, 2).PeerID()
		var cancels []func()
		var results []result
		for i := range 3 {
			out, r := outgoing(bob, fmt.Sprint(i), network.Handled)
			cancel, err := m.Send(out)
			if err != nil {
				t.Fatal(err)
			}
			cancels, results = append(cancels, cancel), append(results, r)
		}
		cancels[1]()
		wantCode(t, results[1].wait(t).Err, identity.CodeCancelled, "send cancelled")
		to := handling()
		w.peer(b, 2, to, chat)
		for _, i := range []int{0, 2} {
			if o := results[i].wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		cancels[0]() // settled: nothing happens
		cancels[1]()
		synctest.Wait()
		if got := fmt.Sprint(to.texts()); got != "[0 2]" {
			t.Fatalf("came: %s", got)
		}
		if len(results[0])+len(results[1]) != 0 {
			t.Fatal("Done was called twice")
		}
	})
}

// A message that timed out before it was written never arrives later.
func TestTimedOutUnwrittenIsNotDeliveredLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		_, m := w.peer(w.node(Config{}), 1, handling())
		bob := key(t, 2).PeerID()
		old := send(t, m, bob, "old", network.Handled)
		time.Sleep(5 * time.Second)
		young := send(t, m, bob, "young", network.Handled)
		if o := old.wait(t); o.Err == nil {
			t.Fatal("old arrived")
		}
		to := handling()
		w.peer(w.node(Config{}), 2, to, chat)
		if o := young.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := fmt.Sprint(to.texts()); got != "[young]" {
			t.Fatalf("came: %s", got)
		}
	})
}
