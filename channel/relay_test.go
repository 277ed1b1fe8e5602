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
