package channel

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestWindowOption: what the other end may send before this end reads is what the
// creator says.
func TestWindowOption(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		l := listen(t, bob, "x")
		ch := mustOpen(t, alice, bob, "x", Window(16<<10))
		far := mustAccept(t, l)
		wantErr(t, far.Send(t.Context(), make([]byte, 8<<10+1)), ErrTooLarge) // it must fit into half
		for range 2 {
			if err := far.Send(t.Context(), make([]byte, 8<<10)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // virtual
		defer cancel()
		if err := far.Send(ctx, []byte("more")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("sent beyond the window: %v", err)
		}
		if _, err := ch.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		send(t, far, "more")
	})
}

// TestRelayBuffer: bridges whose allowances pass the relay's memory are refused,
// and what an ended one held is free again.
func TestRelayBuffer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{Buffer: 64 << 10}) // one bridge of 32 KiB a direction
		l := listen(t, r.alice, "x")
		first := mustOpen(t, r.charlie, r.alice, "x")
		mustAccept(t, l)
		if got := r.b.Metrics().Relay.Buffer; got != 64<<10 {
			t.Errorf("the relay holds %d", got)
		}
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x")
		wantErr(t, err, ErrLimit)
		if u := limitOf(t, r.b.Node, "relay.buffer"); u.Refused != 1 || u.Current != u.Max {
			t.Errorf("the limit stands at %+v", u)
		}
		first.Close()
		synctest.Wait()
		if got := r.b.Metrics().Relay.Buffer; got != 0 {
			t.Errorf("the relay holds %d after the end", got)
		}
		mustOpen(t, r.charlie, r.alice, "x")
	})
}

// TestRelayForgetsWhoLeft: an agent that leaves its spaces is no longer reached
// through the relay, although the contract goes on.
func TestRelayForgetsWhoLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		other := r.a.join(t, "chess", testKey(t, 21))
		synctest.Wait()
		if n := r.b.Metrics().Relay.Registered; n != 2 {
			t.Fatalf("%d agents", n)
		}
		if err := r.alice.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m := r.b.Metrics().Relay; m.Registered != 1 || m.Contracts.Current != 1 {
			t.Errorf("%+v", m)
		}
		listen(t, other, "x")
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x", Via(r.b.key.PeerID()))
		wantErr(t, err, ErrNoAgent)
		mustOpen(t, r.charlie, other, "x", Via(r.b.key.PeerID()))
	})
}
