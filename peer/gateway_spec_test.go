package peer

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// The requirements of gateway.md §12 that fall to this package. G_D1 is in
// levels_test.go.

// 5,000 messages of 1 KiB need no virtual time: nothing between them waits.
func TestG_D2_NoPauseBetweenMessages(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, handling(), chat)
		start := time.Now()
		text := strings.Repeat("x", 1024)
		var last result
		for range 5000 {
			last = send(t, m, bob.ID(), text, network.Handled)
		}
		if o := last.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if d := time.Since(start); d > 10*ackDelay {
			t.Fatalf("took %v", d)
		}
	})
}

func TestG_D3_ThousandsOutstanding(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		w.cluster.SetDelay(50 * time.Millisecond)
		to := handling()
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, to, chat)
		for _, n := range []int{64, 1000, 4000} {
			results := make([]result, n)
			for i := range results { // 4,000 of 4 KiB are what the outbox holds
				results[i] = send(t, m, bob.ID(), fmt.Sprint(i, strings.Repeat(" ", 4000)), network.Handled)
			}
			for i, r := range results {
				if o := r.wait(t); o.Err != nil {
					t.Fatalf("%d of %d: %v", i, n, o.Err)
				}
			}
		}
		if got := len(to.texts()); got != 64+1000+4000 {
			t.Fatalf("%d came", got)
		}
	})
}

func TestG_D4_OfflineTargetDelaysOnlyItsOwn(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, handling(), chat)
		offline := send(t, m, key(t, 3).PeerID(), "x", network.Handled)
		start := time.Now()
		for range 10 {
			if o := send(t, m, bob.ID(), "y", network.Handled).wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Fatalf("the others took %v", d)
		}
		if o := offline.wait(t); identity.CodeOf(o.Err) != identity.CodeUnreachable {
			t.Fatalf("offline ended %+v", o)
		}
	})
}

// Bob is away for long, and sends fail meanwhile. When he is back the next one
// arrives, without a word from him.
func TestG_D5_PeerThatComesBack(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, handling(), chat)
		id := bob.ID()
		send(t, m, id, "before", network.Handled).wait(t)
		bob.Close()
		w.hostGone(2)
		for range 20 {
			if o := send(t, m, id, "away", network.Handled).wait(t); identity.CodeOf(o.Err) != identity.CodeUnreachable {
				t.Fatalf("while away: %+v", o)
			}
		}
		back := handling()
		waiting := send(t, m, id, "waiting", network.Handled)
		time.Sleep(5 * time.Second)
		w.peer(b, 2, back, chat)
		if o := waiting.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if o := send(t, m, id, "after", network.Handled).wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := fmt.Sprint(back.texts()); got != "[waiting after]" {
			t.Fatalf("came: %s", got)
		}
	})
}

// On the same node, and where the node is told of a change, nobody waits for the
// back-off.
func TestWaitingEndsWhenSomethingChanges(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		id := key(t, 2).PeerID()
		r := send(t, m, id, "x", network.Handled)
		time.Sleep(5 * time.Second)
		start := time.Now()
		w.peer(b, 2, handling(), chat)
		if a != b {
			a.Changed(id)
		}
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if d := time.Since(start); d > 10*ackDelay {
			t.Fatalf("took %v", d)
		}
	})
}

func TestG_D6_SimultaneousFirstSends(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				w.cluster.SetDelay(20 * time.Millisecond)
				for round := range 50 {
					pageA, pageB := handling(), handling()
					alice, a := w.peer(w.node(Config{plainOnly: plain}), 10+2*round, pageA, chat)
					bob, b := w.peer(w.node(Config{plainOnly: plain}), 11+2*round, pageB, chat)
					var results []result
					for i := range 3 {
						results = append(results, send(t, a, bob.ID(), fmt.Sprint(i), network.Handled),
							send(t, b, alice.ID(), fmt.Sprint(i), network.Handled))
					}
					for _, r := range results {
						if o := r.wait(t); o.Err != nil {
							t.Fatal(o.Err)
						}
					}
					if fmt.Sprint(pageA.texts(), pageB.texts()) != "[0 1 2] [0 1 2]" {
						t.Fatalf("came: %s and %s", pageA.texts(), pageB.texts())
					}
				}
			})
		})
	}
}

// With the reference, which closes the older of two streams.
func TestG_D6_SimultaneousFirstSendsWithTheReference(t *testing.T) {
	refWorld(t, func(t *testing.T, w *world, m *Member, to *page, d *double) {
		for round := range 50 {
			r := send(t, m, d.net.Local(), fmt.Sprintf(`"parley %d"`, round), network.Handled)
			d.send(m.Peer().ID(), fmt.Sprintf(`"reference %d"`, round))
			if o := r.wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
			to.wait(t, round+1)
			time.Sleep(3 * time.Minute) // the streams are idle and go
		}
		counts := make(map[string]int)
		for _, text := range append(to.texts(), d.texts()...) {
			counts[text]++
		}
		if len(counts) != 100 {
			t.Fatalf("%d different messages came, want 100", len(counts))
		}
	})
}

// watched is a network whose streams fail the test when two write at once, and
// keep what was written.
type watched struct {
	network.Network
	t       testing.TB
	mu      sync.Mutex
	streams []*watchedStream
}

type watchedStream struct {
	network.Stream
	w       *watched
	writing atomic.Bool
	mu      sync.Mutex
	bytes   []byte
}

func (w *watched) wrap(s network.Stream) network.Stream {
	ws := &watchedStream{Stream: s, w: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = append(w.streams, ws)
	return ws
}

func (w *watched) Open(ctx context.Context, to identity.PeerID, p ...network.Protocol) (network.Stream, error) {
	s, err := w.Network.Open(ctx, to, p...)
	if err != nil {
		return nil, err
	}
	return w.wrap(s), nil
}

func (w *watched) Handle(p network.Protocol, h network.Handler) func() {
	return w.Network.Handle(p, func(ctx context.Context, s network.Stream) { h(ctx, w.wrap(s)) })
}

func (s *watchedStream) Write(b []byte) (int, error) {
	if s.writing.Swap(true) {
		s.w.t.Error("two write to a stream at once")
	}
	defer s.writing.Store(false)
	runtime.Gosched()
	s.mu.Lock()
	s.bytes = append(s.bytes, b...)
	s.mu.Unlock()
	return s.Stream.Write(b)
}

func TestG_D7_OneWriterAStream(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			var nets []*watched
			var members []*Member
			for i := range 2 {
				net := &watched{Network: w.cluster.Host(key(t, i)), t: t}
				p, err := w.node(Config{plainOnly: plain}).Add(net)
				if err != nil {
					t.Fatal(err)
				}
				m := p.Join(handling())
				if err := m.Start(chat); err != nil {
					t.Fatal(err)
				}
				nets, members = append(nets, net), append(members, m)
			}
			var wg sync.WaitGroup
			for i, m := range members {
				to := members[1-i].Peer().ID()
				for range 4 { // several senders at once, sizes around every threshold
					wg.Go(func() {
						for _, size := range []int{0, 1, 100, 4000, 31 << 10, 33 << 10, 70 << 10} {
							text := `"` + strings.Repeat("x", size) + `"`
							if o := send(t, m, to, text, network.Handled).wait(t); o.Err != nil {
								t.Error(o.Err)
							}
						}
					})
				}
			}
			wg.Wait()
			for _, net := range nets {
				for _, s := range net.streams {
					checkWhole(t, s, plain)
				}
			}
		})
	}
}

// checkWhole reads everything that was written to a stream as frames.
func checkWhole(t *testing.T, s *watchedStream, plain bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := strings.NewReader(string(s.bytes))
	own, theirs := newFrameReader(left, 8<<20), newRefReader(left, 8<<20)
	for left.Len() > 0 || own.more() || theirs.here() {
		var err error
		if plain {
			_, err = theirs.read()
		} else {
			err = own.next(new(frame))
		}
		if err != nil {
			t.Fatalf("frames aren't whole: %v", err)
		}
	}
}

// The last message of a burst that filled the window goes out by itself.
func TestG_D8_NothingWaitsForTheNext(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		to := handling()
		bob, _ := w.peer(b, 2, to, chat)
		text := strings.Repeat("x", 100<<10)
		var results []result
		for range 100 {
			results = append(results, send(t, m, bob.ID(), text, network.Handled))
		}
		for _, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
		}
	})
}

func TestG_D9_OutboxIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{Outbox: 1 << 20, OutboxTotal: 3 << 20})
		_, m := w.peer(n, 1, handling())
		text := strings.Repeat("x", 10_000)
		full := 0
		for i := range 10 { // peers that aren't there
			for range 200 {
				out, _ := outgoing(key(t, 100+i).PeerID(), text, network.Handled)
				_, err := m.Send(out)
				if code := identity.CodeOf(err); code == identity.CodeQueueFull {
					full++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if s := n.Stats(); s.QueuedBytes > 3<<20+10*len(text) {
				t.Fatalf("%d bytes are queued", s.QueuedBytes)
			}
		}
		if full == 0 || n.Stats().QueueFull != uint64(full) {
			t.Fatalf("%d sends found it full, stats say %d", full, n.Stats().QueueFull)
		}
	})
}

// A page that reads nothing holds up its senders; what is held for it on the way
// is bounded; when it reads again everything comes.
func TestG_D10_SlowPageSlowsItsSenders(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		slow := newPage(true)
		slow.room = make(chan struct{})
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, slow, chat)
		text := strings.Repeat("x", 1000)
		var results []result
		for range 5000 {
			results = append(results, send(t, m, bob.ID(), text, network.Handled))
		}
		synctest.Wait()
		m.Peer().mu.Lock()
		c := m.Peer().conversations[conversationKey{bob.ID(), chat}]
		onTheWay, queued := c.flightBytes, c.queue.len()
		m.Peer().mu.Unlock()
		if onTheWay > a.cfg.MaxWindow || queued == 0 {
			t.Fatalf("%d bytes are on the way, %d messages wait", onTheWay, queued)
		}
		slow.on = func(d network.Delivery) { d.Handled() }
		close(slow.room)
		for i, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
	})
}

// A hanging handler holds up its own conversation only.
func TestHangingHandlerHoldsUpItsConversationOnly(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		p := newPage(true)
		p.on = func(d network.Delivery) {
			if d.Protocol() != chat {
				d.Handled()
			}
		}
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, p, chat, "/other")
		for range 10 {
			send(t, m, bob.ID(), strings.Repeat("x", 100_000), network.Handled)
		}
		out, r := outgoing(bob.ID(), "y", network.Handled)
		out.Protocol = "/other"
		if _, err := m.Send(out); err != nil {
			t.Fatal(err)
		}
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if n := len(p.texts()); n > 4 {
			t.Fatalf("%d messages of 100 KB are with a page that handles none; the window is 256 KiB", n-1)
		}
	})
}

func TestG_R9_OneOfTwoEqualKeys(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	n := w.node(Config{})
	host := w.cluster.Host(key(t, 1))
	for range 100 {
		var peers [2]*Peer
		var errs [2]error
		var wg sync.WaitGroup
		for i := range peers {
			wg.Go(func() { peers[i], errs[i] = n.Add(host) })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("both or none got in: %v", errs)
		}
		for i := range peers {
			if errs[i] != nil {
				wantCode(t, errs[i], identity.CodePeerInUse, "peer ID already in use (possible duplicate browser tab)")
			} else {
				peers[i].Close() // the id is free at once
			}
		}
	}
}

func TestG_R10_NoTableOnlyGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		hub := w.node(Config{})
		p, m := w.peer(hub, 0, handling(), chat)
		for i := 1; i <= 100; i++ {
			n := w.node(Config{plainOnly: i%3 == 0})
			q, other := w.peer(n, i, handling(), chat)
			send(t, m, q.ID(), "1", network.Handled).wait(t)
			send(t, other, p.ID(), "2", network.Handled).wait(t)
			hub.offence(q.ID())
			n.Close()
			w.hostGone(i)
			send(t, m, q.ID(), "3", network.Handled) // to nobody
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s := hub.Stats()
		if s.Conversations+s.Streams+s.Remembered+s.QueuedBytes != 0 {
			t.Errorf("stats: %+v", s)
		}
		for name, n := range map[string]int{"waiting": len(hub.waiting), "remote streams": len(p.remoteStreams),
			"current": len(p.current), "references": len(p.references), "ids seen": len(p.seen.remotes)} {
			if n != 0 {
				t.Errorf("%d %s are left", n, name)
			}
		}
		if p.sweeper != nil {
			t.Error("the sweeper still runs")
		}
	})
}

func TestG_S7_ReservedProtocols(t *testing.T) {
	long := network.Protocol("/" + strings.Repeat("x", 256))
	for _, p := range []network.Protocol{"", "/parley/x", "/parley-x", "/http/1.1", "/ipfs/id/1.0.0", "/libp2p/x",
		"/meshsub/1.1.0", "/floodsub/1.0.0", "/x/", "/p2p-webapp/1.0.0", "a\x00b", "a\nb", "\xff", long, "/own/files"} {
		if err := CheckProtocol(p, "/own/files"); identity.CodeOf(err) != identity.CodeReserved {
			t.Errorf("%q is allowed: %v", p, err)
		}
	}
	for _, p := range []network.Protocol{"x", "/x", "chat", "/t/1", "/parley", "/p2p-webapp/1.0.1", long[:256], "ü"} {
		if err := CheckProtocol(p, "/own/files"); err != nil {
			t.Errorf("%q is refused: %v", p, err)
		}
	}
	w := newWorld(t)
	defer w.close()
	_, m := w.peer(w.node(Config{}), 1, handling())
	wantCode(t, m.Start("/ipfs/id/1.0.0"), identity.CodeReserved, "protocol is reserved: /ipfs/id/1.0.0")
}

func TestG_S7_BlockedPeer(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				n := w.node(Config{plainOnly: plain})
				mine := handling()
				alice, m := w.peer(n, 1, mine, chat)
				bob, other := w.peer(w.node(Config{plainOnly: plain}), 2, handling(), chat)
				send(t, m, bob.ID(), "1", network.Handled).wait(t)
				send(t, other, alice.ID(), "2", network.Handled).wait(t)
				n.Block(bob.ID())
				out, _ := outgoing(bob.ID(), "3", network.Handled)
				_, err := m.Send(out)
				wantCode(t, err, identity.CodeForbidden, "peer is blocked: "+bob.ID().String())
				if o := send(t, other, alice.ID(), "4", network.Handled).wait(t); o.Err == nil {
					t.Fatal("a blocked peer's message was taken")
				}
				synctest.Wait()
				if s := n.Stats(); s.Streams+s.Conversations != 0 {
					t.Fatalf("left: %+v", s)
				}
				n.Unblock(bob.ID())
				if o := send(t, m, bob.ID(), "5", network.Handled).wait(t); o.Err != nil {
					t.Fatal(o.Err)
				}
				if o := send(t, other, alice.ID(), "6", network.Handled).wait(t); o.Err != nil {
					t.Fatal(o.Err)
				}
				if got := fmt.Sprint(mine.texts()); got != "[2 6]" {
					t.Fatalf("came: %s", got)
				}
			})
		})
	}
}

func TestStartStopErrors(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	p, m := w.peer(w.node(Config{}), 1, handling(), chat)
	wantCode(t, m.Start(chat), identity.CodeAlreadyStarted, "already started protocol: /chat/1")
	wantCode(t, m.Stop("/y"), identity.CodeNotStarted, "protocol not started: /y")
	if err := m.Stop(chat); err != nil {
		t.Fatal(err)
	}
	wantCode(t, m.Stop(chat), identity.CodeNotStarted, "protocol not started: /chat/1")
	handlers := func(want ...network.Protocol) {
		t.Helper()
		if host, ok := p.net.(*peertest.Host); !ok || !slices.Equal(host.Protocols(), want) {
			t.Fatalf("handlers are left: %v, want %v", host.Protocols(), want)
		}
	}
	handlers(ownPeer)
	m.Leave()
	wantCode(t, m.Start(chat), identity.CodeClosed, "peer closed")
	handlers(ownPeer)
	p.Close()
	handlers()
	wantCode(t, p.Join(handling()).Start(chat), identity.CodeClosed, "peer closed")
}
