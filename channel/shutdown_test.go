package channel

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// readAll counts the contents until the channel ends, and gives the reason.
func readAll(t *testing.T, ch Channel) (contents int, err error) {
	t.Helper()
	for {
		if _, err := ch.Receive(t.Context()); err != nil {
			return contents, err
		}
		contents++
	}
}

// wantStopped checks that a channel ended early because the other node stopped.
func wantStopped(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !e.Remote || e.Code != Unknown {
		t.Errorf("ended with %v", err)
	}
}

// TestShutdownDeliversWhatWasSent: when the sender's node stops, everything that
// Send took arrives. A channel that its user has closed is complete; any other is
// not, and says so.
func TestShutdownDeliversWhatWasSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		n.delay = func() time.Duration { return 10 * time.Millisecond }
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		l := listen(t, bob, "x")
		open, closed := mustOpen(t, alice, bob, "x"), mustOpen(t, alice, bob, "x")
		farOpen, farClosed := mustAccept(t, l), mustAccept(t, l)
		const sent = 100
		for range sent {
			send(t, open, "move")
			send(t, closed, "move")
		}
		closed.Close()
		go a.stop()
		got, err := readAll(t, farOpen)
		if wantStopped(t, err); got != sent {
			t.Errorf("received %d of %d", got, sent)
		}
		if got, err := readAll(t, farClosed); got != sent || err != io.EOF {
			t.Errorf("received %d of %d, %v", got, sent, err)
		}
	})
}

// TestShutdownOfTheReader: what a node has not given to its agent before it stops
// does not count as delivered at the sender.
func TestShutdownOfTheReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		l := listen(t, bob, "x")
		ch := mustOpen(t, alice, bob, "x")
		send(t, ch, "never read")
		synctest.Wait()
		waiting := mustAccept(t, l)
		start := time.Now()
		b.stop()
		if d := time.Since(start); d > time.Second {
			t.Errorf("the node took %v to stop", d)
		}
		<-ch.Done()
		wantStopped(t, ch.Err())
		receive(t, waiting, "never read") // the agent may still have it
		if _, err := waiting.Receive(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("then %v", err)
		}
	})
}

// TestShutdownOfTheRelay: what the relay has taken leaves it, then both ends get
// an error.
func TestShutdownOfTheRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		const sent = 50
		for range sent {
			send(t, ch, "move")
		}
		synctest.Wait()
		r.b.stop()
		got, err := readAll(t, far)
		if wantStopped(t, err); got != sent {
			t.Errorf("received %d of %d", got, sent)
		}
		<-ch.Done()
		wantStopped(t, ch.Err())
	})
}

// TestShutdownBehindARelay: a node that stops ends its relayed channels at the
// far agent, behind what was sent.
func TestShutdownBehindARelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		const sent = 50
		for range sent {
			send(t, ch, "move")
		}
		r.c.stop()
		got, err := readAll(t, far)
		if wantStopped(t, err); got != sent {
			t.Errorf("received %d of %d", got, sent)
		}
	})
}

// TestShutdownIsBounded: a node that nobody reads from stops all the same.
func TestShutdownIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		stuck := false
		n.delay = func() time.Duration {
			if stuck {
				return time.Hour
			}
			return 0
		}
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		listen(t, bob, "x")
		ch := mustOpen(t, alice, bob, "x")
		synctest.Wait()
		stuck = true
		send(t, ch, "move")
		synctest.Wait()
		start := time.Now()
		done := make(chan struct{})
		go func() { a.stop(); close(done) }()
		<-ch.Done()
		if d := time.Since(start); d > time.Second {
			t.Errorf("the channel took %v to end", d)
		}
		<-done // the write of the test's network takes its hour
	})
}
