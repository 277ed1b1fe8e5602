package conn

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/wire/mux"
)

// TestDrain: what was sent leaves first, then each channel ends as its user left
// it.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := net.Pipe()
		p := connect(t, a, b, Limits{})
		var near, far [3]*Stream
		for i := range near {
			near[i], far[i] = p.open(t, ids)
		}
		for i, s := range near {
			for k := range 20 {
				if err := s.Send(t.Context(), filled(i, k, 9_000)); err != nil {
					t.Fatal(err)
				}
			}
		}
		near[1].Close()
		p.a.Drain()
		for i, s := range far {
			for k := range 20 {
				if got, err := s.Receive(t.Context()); err != nil || string(got) != string(filled(i, k, 9_000)) {
					t.Fatalf("channel %d, content %d: %d bytes, %v", i, k, len(got), err)
				}
			}
			_, err := s.Receive(t.Context())
			var e *Error
			switch {
			case i == 1 && err != io.EOF:
				t.Errorf("the closed channel ended with %v", err)
			case i != 1 && (!errors.As(err, &e) || !e.Remote || e.Code != Unknown || e.Text != textStops):
				t.Errorf("channel %d ended with %v", i, err)
			}
		}
		<-p.b.Done()
		if err := p.a.Err(); !errors.Is(err, &Error{Code: Lost}) && !errors.Is(err, &Error{Code: Closed}) {
			t.Errorf("the connection ended with %v", err)
		}
		if err := near[0].Err(); !errors.Is(err, &Error{Code: Closed}) {
			t.Errorf("here it ended with %v", err)
		}
	})
}

// TestDrainRefusesWhatIsNew: creates of both ends, and contents that wait for
// credit.
func TestDrainRefusesWhatIsNew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, nil)
		r.got()
		waiting := make(chan error, 1)
		go func() {
			for {
				if err := s.Send(context.Background(), make([]byte, 65_536)); err != nil {
					waiting <- err
					return
				}
			}
		}()
		synctest.Wait()
		const sent = 4 // 256 KiB, all the credit there is
		if got, _ := r.got(); len(got) != sent {
			t.Fatalf("%d contents", len(got))
		}
		if _, err := r.c.Open(t.Context(), ids); err != nil { // the create leaves
			t.Fatal(err)
		}
		r.got()
		r.c.Drain()
		if err := <-waiting; !errors.Is(err, &Error{Code: Closed}) {
			t.Errorf("who waited got %v", err)
		}
		if _, err := r.c.Open(t.Context(), ids); !errors.Is(err, &Error{Code: Closed}) {
			t.Errorf("opened: %v", err)
		}
		got, _ := r.got()
		for _, m := range got {
			if m.Kind != mux.Error || m.Code != mux.Unknown {
				t.Errorf("unexpected %+v", m)
			}
		}
		if len(got) != 2 {
			t.Errorf("%d records, want an error for each of the two channels", len(got))
		}
	})
}

// halfPipe is one end of a connection that ends one direction at a time.
type halfPipe struct {
	*io.PipeReader
	*io.PipeWriter
}

func halfPipes() (a, b *halfPipe) {
	ra, wb := io.Pipe()
	rb, wa := io.Pipe()
	return &halfPipe{ra, wa}, &halfPipe{rb, wb}
}

func (h *halfPipe) CloseWrite() error { return h.PipeWriter.Close() }
func (h *halfPipe) Close() error {
	h.PipeReader.Close()
	return h.PipeWriter.Close()
}

// TestDrainWaitsForTheOtherEnd: the connection is given up only once the other
// end has read to the end of it, or when the time is over.
func TestDrainWaitsForTheOtherEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reads bool
		took  time.Duration
	}{{"it reads", true, 100 * time.Millisecond}, {"it does not", false, flushTime}} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := halfPipes()
				c := New(a, newConfig(false, Limits{}), newAcceptAll())
				done := make(chan error, 1)
				go func() { done <- c.Run(context.Background()) }()
				if tt.reads {
					go func() {
						if _, err := io.Copy(io.Discard, b); err != nil {
							t.Error(err)
						}
						<-time.After(tt.took)
						b.Close()
					}()
				}
				start := time.Now()
				c.Drain()
				err := <-done
				if d := time.Since(start); d != tt.took {
					t.Errorf("after %v with %v, want %v", d, err, tt.took)
				}
				b.Close()
			})
		})
	}
}

// TestDrainProperty: whenever a node stops, a content that was sent has arrived,
// or the channel has ended with an error where it is read.
func TestDrainProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plans := drawPlans(rt)
		after := time.Duration(rapid.IntRange(0, 40).Draw(rt, "after, ms")) * time.Millisecond
		slow := time.Duration(rapid.IntRange(0, 3).Draw(rt, "ms a write")) * time.Millisecond
		var fault string
		synctest.Test(t, func(t *testing.T) { fault = runDrain(t, plans, after, slow) })
		if fault != "" {
			rt.Fatal(fault)
		}
	})
}

func runDrain(t *testing.T, plans []plan, after, slow time.Duration) string {
	a, tapA := net.Pipe()
	tapB, b := net.Pipe()
	p := &tap{delay: slow}
	p.between(tapA, tapB)
	pr := connect(t, a, b, Limits{})
	type result struct {
		sent, received int
		closed         bool
		err            error
	}
	results := make([]result, len(plans))
	done := make(chan struct{}, 2*len(plans))
	for i, plan := range plans {
		near, err := pr.a.Open(t.Context(), ids)
		if err != nil {
			return err.Error()
		}
		if err := near.WaitAccepted(t.Context()); err != nil {
			return err.Error()
		}
		far := <-pr.hb.accepted
		go func() {
			defer func() { done <- struct{}{} }()
			for k, n := range plan.Sizes {
				<-time.After(time.Duration(rand.IntN(3)) * time.Millisecond)
				if near.Send(t.Context(), filled(i, k, n)) != nil {
					return
				}
				results[i].sent++
			}
			if plan.Stream { // some close when they are done, some do not
				near.Close()
				results[i].closed = near.Err() == nil
			}
		}()
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				if _, err := far.Receive(t.Context()); err != nil {
					results[i].err = err
					return
				}
				results[i].received++
			}
		}()
	}
	<-time.After(after)
	pr.a.Drain()
	for range cap(done) {
		<-done
	}
	a.Close()
	b.Close()
	p.wg.Wait()
	for i, r := range results {
		if r.err == io.EOF && (!r.closed || r.received != r.sent) {
			return "a channel looks complete that is not"
		}
		if r.err != io.EOF && r.received > r.sent || r.received > len(plans[i].Sizes) {
			return "more was received than sent"
		}
	}
	return ""
}
