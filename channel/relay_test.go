package channel

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// relayed is three nodes: alice and charlie can't reach each other, bob relays.
type relayed struct {
	net            *testNet
	a, b, c        *testPeer
	alice, charlie Member
	locator        *fixedLocator
	stopUsing      func()
}

func withKey(p *testNet, key identity.Key, loc Locator) func(*Config) {
	return func(c *Config) {
		c.Key = key
		c.Locator = loc
	}
}

func newRelayed(t *testing.T, policy RelayPolicy) *relayed {
	t.Helper()
	n := newTestNet(t)
	r := &relayed{net: n, locator: &fixedLocator{}}
	far := []identity.PeerID{testKey(t, 1).PeerID(), testKey(t, 3).PeerID()}
	n.cut = func(x, y identity.PeerID) bool { return slices.Contains(far, x) && slices.Contains(far, y) }
	r.a = n.start(t, 1, withKey(n, testKey(t, 1), r.locator))
	r.b = n.start(t, 2, withKey(n, testKey(t, 2), r.locator))
	r.c = n.start(t, 3, withKey(n, testKey(t, 3), r.locator))
	if err := r.b.RelayFor(policy); err != nil {
		t.Fatal(err)
	}
	r.alice = r.a.join(t, "chess", r.a.key)
	r.charlie = r.c.join(t, "chess", r.c.key)
	r.locator.put(r.alice.Agent(), Location{Node: r.a.key.PeerID(), Relays: []identity.PeerID{r.b.key.PeerID()}})
	r.use(t)
	return r
}

// use lets alice use bob, and waits until she is registered.
func (r *relayed) use(t *testing.T) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.a.UseRelay(ctx, r.b.key.PeerID()) }()
	r.stopUsing = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("UseRelay: %v", err)
		}
	})
	t.Cleanup(r.stopUsing)
	synctest.Wait()
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func TestRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		l := listen(t, r.alice, "moves/1")
		ch := mustOpen(t, r.charlie, r.alice, "moves/1")
		far := mustAccept(t, l)
		if i := ch.Info(); i.Path != network.PathRelay || i.Relay != r.b.key.PeerID() || !i.Verified || i.Remote != r.alice.Agent() {
			t.Errorf("info %+v", i)
		}
		if i := far.Info(); i.Path != network.PathRelay || !i.Verified || i.Remote != r.charlie.Agent() {
			t.Errorf("far info %+v", i)
		}
		for _, n := range []int{0, 1, 16_367, 16_368, 65_536} {
			msg := randomBytes(rand.New(rand.NewPCG(1, uint64(n))), n)
			sent := make(chan error, 1)
			go func() { sent <- ch.Send(t.Context(), msg) }()
			got, err := far.Receive(t.Context())
			if err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		wantErr(t, ch.Send(t.Context(), make([]byte, 65_537)), ErrTooLarge)

		data := randomBytes(rand.New(rand.NewPCG(1, 2)), 1<<20)
		go func() {
			far.Write(data)
			far.Close()
		}()
		got, err := io.ReadAll(ch)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

// relayedPair is a channel from charlie to alice through bob.
func (r *relayed) pair(t *testing.T) (near, far Channel) {
	t.Helper()
	l := listen(t, r.alice, "x")
	near = mustOpen(t, r.charlie, r.alice, "x")
	return near, mustAccept(t, l)
}

// wait lets virtual time pass and everything settle.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestRelayRefusal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, OwnRelay()) // nobody is on the list
		if n := r.a.Relays(); len(n) != 0 {
			t.Errorf("relays %v", n)
		}
		l, err := r.a.connect(t.Context(), r.b.key.PeerID())
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.a.ask(t.Context(), l)
		wantErr(t, err, ErrRelayRefused)
		_, err = r.c.ask(t.Context(), must(r.c.connect(t.Context(), r.b.key.PeerID())))
		wantErr(t, err, ErrRelayRefused)
		listen(t, r.alice, "x")
		_, err = r.charlie.Open(t.Context(), r.alice.Agent(), "x")
		wantErr(t, err, ErrNoAgent)
		if m := r.b.Metrics(); m.Relay.Refused < 2 || m.Relay.Contracts.Current != 0 {
			t.Errorf("metrics %+v", m.Relay)
		}
		if l.conn.Err() != nil {
			t.Error("the refusal ended the connection")
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestRelayWithoutContract: a node that does not relay says so.
func TestRelayWithoutContract(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		l := must(a.connect(t.Context(), b.key.PeerID()))
		_, err := a.ask(t.Context(), l)
		wantErr(t, err, ErrRelayRefused)
		m := a.join(t, "chess", a.key)
		_, err = m.Open(t.Context(), testKey(t, 9).Agent(), "x", Via(b.key.PeerID()))
		wantErr(t, err, ErrNoAgent)
	})
}

// TestRelayAliceToDave: her contract lets her name agents that are proven on the
// relay's other connections.
func TestRelayAliceToDave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		// charlie shows himself to bob by a channel that is refused.
		r.charlie.Open(t.Context(), r.b.key.Agent(), "nothing")
		l := listen(t, r.charlie, "x")
		ch := mustOpen(t, r.alice, r.charlie, "x", Via(r.b.key.PeerID()))
		far := mustAccept(t, l)
		send(t, ch, "hello")
		receive(t, far, "hello")

		// Without a contract of his own charlie may not do the same to others.
		d := r.net.start(t, 4, nil)
		dave := d.join(t, "chess", d.key)
		dave.Open(t.Context(), r.b.key.Agent(), "nothing")
		_, err := r.charlie.Open(t.Context(), dave.Agent(), "x", Via(r.b.key.PeerID()))
		wantErr(t, err, ErrNoAgent)
	})
}

// TestRelayToItsOwnAgent: a create with hops 1 for an agent of the relay is
// delivered there, with the inner handshake all the same.
func TestRelayToItsOwnAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		bob := r.b.join(t, "chess", r.b.key)
		l := listen(t, bob, "x")
		ch := mustOpen(t, r.charlie, bob, "x", Via(r.b.key.PeerID()))
		far := mustAccept(t, l)
		send(t, ch, "hello")
		receive(t, far, "hello")
		if i := far.Info(); i.Path != network.PathRelay || !i.Verified {
			t.Errorf("info %+v", i)
		}
	})
}

// TestAbuse38_ByteCap: past its quota of bytes a bridge ends, with the reason.
func TestAbuse38_ByteCap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, PublicRelay())
		ch, far := r.pair(t)
		go io.Copy(io.Discard, far)
		n, err := ch.Write(make([]byte, 1<<20))
		if err == nil {
			<-ch.Done()
			err = ch.Err()
		}
		wantErr(t, err, ErrLimit)
		if n >= 512<<10 { // the quota, and what the relay may hold
			t.Errorf("%d bytes were taken", n)
		}
		synctest.Wait()
		wantErr(t, far.Err(), ErrLimit)
		if m := r.b.Metrics().Relay; m.Bridges != 0 || m.Buffer != 0 || m.Bytes > 128<<10 {
			t.Errorf("metrics %+v", m)
		}
	})
}

func TestRelayQuotaTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, PublicRelay())
		ch, far := r.pair(t)
		for range 12 {
			wait(9 * time.Second)
			send(t, ch, "still here")
			receive(t, far, "still here")
		}
		wait(15 * time.Second)
		wantErr(t, ch.Err(), ErrLimit)
		wantErr(t, far.Err(), ErrLimit)
	})
}

func TestRelayQuotaBridges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{Bridges: 2})
		l := listen(t, r.alice, "x")
		first := mustOpen(t, r.charlie, r.alice, "x")
		mustOpen(t, r.charlie, r.alice, "x")
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x")
		wantErr(t, err, ErrLimit)
		first.Close()
		mustAccept(t, l)
		synctest.Wait()
		mustOpen(t, r.charlie, r.alice, "x")
	})
}

func TestRelayIdleBridge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		wait(2*time.Minute - 5*time.Second)
		if ch.Err() != nil {
			t.Error("ended early")
		}
		wait(10 * time.Second)
		wantErr(t, ch.Err(), ErrLimit)
		wantErr(t, far.Err(), ErrLimit)
	})
}

func TestRelayExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{Duration: time.Minute})
		ch, far := r.pair(t)
		r.stopUsing() // alice renews no more
		wait(70 * time.Second)
		send(t, ch, "in the grace")
		receive(t, far, "in the grace")
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x")
		wantErr(t, err, ErrNoAgent)
		wait(25 * time.Second)
		wantErr(t, ch.Err(), ErrRelayExpired)
		wantErr(t, far.Err(), ErrRelayExpired)
	})
}

func TestRelayRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{Duration: time.Minute})
		ch, far := r.pair(t)
		for range 20 {
			wait(30 * time.Second)
			send(t, ch, "x")
			receive(t, far, "x")
		}
		mustOpen(t, r.charlie, r.alice, "x")
	})
}

// TestRelayMoves: when the relay is lost the next one is used, within two
// seconds, and new channels run through it.
func TestRelayMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		second := r.net.start(t, 5, withKey(r.net, testKey(t, 5), nil))
		if err := second.RelayFor(RelayPolicy{}); err != nil {
			t.Fatal(err)
		}
		r.stopUsing()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.a.UseRelay(ctx, r.b.key.PeerID(), second.key.PeerID()) }()
		defer func() { cancel(); <-done }()
		synctest.Wait()
		r.locator.put(r.alice.Agent(), Location{Node: r.a.key.PeerID(), Relays: []identity.PeerID{r.b.key.PeerID(), second.key.PeerID()}})
		ch, _ := r.pair(t)
		start := time.Now()
		r.b.stop()
		<-ch.Done()
		for {
			again, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x")
			if err == nil {
				if again.Info().Relay != second.key.PeerID() {
					t.Errorf("through %s", again.Info().Relay)
				}
				break
			}
			wait(100 * time.Millisecond)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// TestDirectUpgrade: once a direct path is there new channels use it, and the
// relayed one runs on.
func TestDirectUpgrade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		r.net.mu.Lock()
		r.net.cut = nil
		r.net.mu.Unlock()
		r.alice.Open(t.Context(), r.charlie.Agent(), "finds the way") // refused, but it is a path
		synctest.Wait()
		direct := mustOpen(t, r.charlie, r.alice, "x")
		if p := direct.Info().Path; p != network.PathDirect {
			t.Errorf("path %s", p)
		}
		send(t, ch, "still relayed")
		receive(t, far, "still relayed")
		if p := ch.Info().Path; p != network.PathRelay {
			t.Errorf("the old channel's path is %s", p)
		}
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "nobody", DirectOnly())
		wantErr(t, err, ErrNoSpace)
	})
}

// TestRelayRemembersRefusals: a pair that the target refused is answered by the
// relay for a minute.
func TestRelayRemembersRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		if err := far.CloseWithError(BadFrom, "not from you"); err != nil {
			t.Fatal(err)
		}
		<-ch.Done()
		_, err := r.charlie.Open(t.Context(), r.alice.Agent(), "x")
		wantErr(t, err, ErrNotAllowed)
		wait(61 * time.Second)
		mustOpen(t, r.charlie, r.alice, "x")
	})
}

// TestRelayLongRun: credit passes through a bridge for as long as it lasts.
func TestRelayLongRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		const total = 40 << 20 // more than the credit that may be outstanding, twice
		go func() {
			if _, err := ch.Write(make([]byte, total)); err != nil {
				t.Error(err)
			}
			ch.Close()
		}()
		if n, err := io.Copy(io.Discard, far); n != total || err != nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}
