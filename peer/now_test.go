package peer

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// clogged is a network whose streams take half of what is written while it is
// stuck, and then nothing more until a deadline or the end of that.
type clogged struct {
	network.Network

	mu     sync.Mutex
	stuck  chan struct{} // closed when it flows again; nil while it flows
	writes []int         // their sizes
}

func (c *clogged) stick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = make(chan struct{})
}

func (c *clogged) flow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.stuck)
	c.stuck = nil
}

func (c *clogged) Open(ctx context.Context, to identity.PeerID, ps ...network.Protocol) (network.Stream, error) {
	s, err := c.Network.Open(ctx, to, ps...)
	if err != nil {
		return nil, err
	}
	return &cloggedStream{Stream: s, net: c, late: make(chan struct{})}, nil
}

func (c *clogged) Handle(p network.Protocol, h network.Handler) func() {
	return c.Network.Handle(p, func(ctx context.Context, s network.Stream) {
		h(ctx, &cloggedStream{Stream: s, net: c, late: make(chan struct{})})
	})
}

type cloggedStream struct {
	network.Stream
	net *clogged

	mu   sync.Mutex
	late chan struct{} // closed while the deadline is over
}

func (s *cloggedStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := !t.IsZero() && !time.Now().Before(t)
	select {
	case <-s.late:
		if !over {
			s.late = make(chan struct{})
		}
	default:
		if over {
			close(s.late)
		}
	}
	return nil
}

func (s *cloggedStream) Write(p []byte) (int, error) {
	s.net.mu.Lock()
	stuck := s.net.stuck
	s.net.writes = append(s.net.writes, len(p))
	s.net.mu.Unlock()
	if stuck == nil {
		return s.Stream.Write(p)
	}
	s.mu.Lock()
	late := s.late
	s.mu.Unlock()
	n, err := s.Stream.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	select {
	case <-late:
		return n, os.ErrDeadlineExceeded
	case <-stuck:
		rest, err := s.Stream.Write(p[n:])
		return n + rest, err
	}
}

// talk is a conversation that stands, over networks that can be stuck.
func talk(t *testing.T, w *world, to *page) (m *Member, bob *Peer, out, in *clogged) {
	t.Helper()
	out = &clogged{Network: w.cluster.Host(key(t, 1))}
	in = &clogged{Network: w.cluster.Host(key(t, 2))}
	alice, err := w.node(Config{}).Add(out)
	if err != nil {
		t.Fatal(err)
	}
	bob, err = w.node(Config{}).Add(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Join(to).Start(chat); err != nil {
		t.Fatal(err)
	}
	m = alice.Join(handling())
	if o := send(t, m, bob.ID(), "first", network.Handled).wait(t); o.Err != nil {
		t.Fatal(o.Err)
	}
	synctest.Wait()
	return m, bob, out, in
}

// A lone message is written by its sender, who is not held up for long where the
// connection takes nothing; the writer finishes what he began.
func TestLoneMessage_StuckConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		to := handling()
		m, bob, out, _ := talk(t, w, to)
		for round := range 3 {
			out.stick()
			began := time.Now()
			lone := send(t, m, bob.ID(), fmt.Sprint("lone ", round), network.Handled)
			if took := time.Since(began); took > 2*nowWait {
				t.Errorf("Send took %v", took)
			}
			began = time.Now()
			next := send(t, m, bob.ID(), fmt.Sprint("next ", round), network.Handled)
			if took := time.Since(began); took > 0 {
				t.Errorf("the next Send took %v", took)
			}
			time.Sleep(time.Second)
			out.flow()
			for _, r := range []result{lone, next} {
				if o := r.wait(t); o.Err != nil {
					t.Fatal(o.Err)
				}
			}
			synctest.Wait()
		}
		if got := fmt.Sprint(to.texts()); got != "[first lone 0 next 0 lone 1 next 1 lone 2 next 2]" {
			t.Errorf("came: %s", got)
		}
	})
}

// The same for who settles, and writes the ack.
func TestLoneAck_StuckConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		to := newPage(true)
		to.on = func(d network.Delivery) {
			if string(d.Content().Data) == "first" {
				d.Handled()
			}
		}
		m, bob, _, in := talk(t, w, to)
		for round := range 3 {
			in.stick()
			r := send(t, m, bob.ID(), fmt.Sprint(round), network.Handled)
			d := to.wait(t, round+2)
			began := time.Now()
			d.Handled()
			if took := time.Since(began); took > 2*nowWait {
				t.Errorf("Handled took %v", took)
			}
			time.Sleep(time.Second)
			in.flow()
			if o := r.wait(t); o.Err != nil || o.Level != network.Handled {
				t.Fatalf("%+v", o)
			}
			synctest.Wait()
		}
	})
}

// A conversation whose stream is lost while its sender writes goes on.
func TestLoneMessage_StreamLostMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		to := handling()
		m, bob, out, _ := talk(t, w, to)
		out.stick()
		time.AfterFunc(nowWait/2, func() { w.cluster.Reset(m.Peer().ID(), bob.ID()) })
		r := send(t, m, bob.ID(), "lone", network.Handled)
		out.flow()
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := fmt.Sprint(to.texts()); got != "[first lone]" {
			t.Errorf("came: %s", got)
		}
	})
}

// Many senders at once: each message arrives once, and in the order of its
// sender, whoever writes it.
func TestLoneMessages_OfManySenders(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	to := handling()
	_, m := w.peer(w.node(Config{}), 1, handling())
	bob, _ := w.peer(w.node(Config{}), 2, to, chat)
	const senders, each = 4, 200
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				if o := send(t, m, bob.ID(), fmt.Sprint(s, i), network.Handled).wait(t); o.Err != nil {
					t.Error(o.Err)
				}
			}
		})
	}
	all.Wait()
	next := make([]int, senders)
	for _, text := range to.texts() {
		var s, i int
		if _, err := fmt.Sscan(text, &s, &i); err != nil || next[s] != i {
			t.Fatalf("%q, want %d: %v", text, next[s], err)
		}
		next[s]++
	}
	if got := len(to.texts()); got != senders*each {
		t.Errorf("%d came", got)
	}
}

// The receiver knows which messages are alone on their way.
func TestLoneMessage_IsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.SetDelay(time.Millisecond)
		to := newPage(true)
		m, bob, _, _ := talk(t, w, handling())
		if err := bob.Join(to).Start(chat); err != nil {
			t.Fatal(err)
		}
		for i, c := range []struct {
			more, behind, lone bool
		}{{lone: true}, {more: true}, {behind: true}, {lone: true}} {
			var before result
			if c.behind {
				before = send(t, m, bob.ID(), "before", network.Handled)
			}
			out, r := outgoing(bob.ID(), "x", network.Handled)
			out.More = c.more
			if _, err := m.Send(out); err != nil {
				t.Fatal(err)
			}
			if before != nil {
				before.wait(t)
			}
			r.wait(t)
			synctest.Wait()
			to.mu.Lock()
			last := to.got[len(to.got)-1]
			to.mu.Unlock()
			if got := last.(network.Lone).Lone(); got != c.lone {
				t.Errorf("%d: lone %v", i, got)
			}
		}
	})
}

// A large message leaves in as few full writes as it fits in.
func TestLargeMessages_LeaveInFullWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		to := handling()
		m, bob, out, _ := talk(t, w, to)
		for _, size := range []int{largePayload, batchBytes - 20, batchBytes, 64 << 10, 100 << 10, 3 * batchBytes, 512 << 10} {
			out.mu.Lock()
			out.writes = nil
			out.mu.Unlock()
			text := strings.Repeat("0123456789", size/10+1)[:size]
			if o := send(t, m, bob.ID(), text, network.Handled).wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
			if got := to.texts(); got[len(got)-1] != text {
				t.Errorf("%d bytes: %d others came", size, len(got[len(got)-1]))
			}
			out.mu.Lock()
			if fewest := (size + 20 + batchBytes - 1) / batchBytes; len(out.writes) > fewest || slices.Max(out.writes) > batchBytes {
				t.Errorf("%d bytes in writes of %v", size, out.writes)
			}
			out.mu.Unlock()
		}
	})
}
