package discover

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t testing.TB) identity.Key {
	t.Helper()
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// party is a node with its discovery running.
type party struct {
	*testNode
	d *Discovery
}

// newParty starts a node on the own machine, and its discovery.
func newParty(t testing.TB, cfg Config) *party {
	t.Helper()
	p := idleParty(t, cfg)
	p.live(t)
	return p
}

// idleParty is a party whose discovery doesn't run yet.
func idleParty(t testing.TB, cfg Config) *party {
	t.Helper()
	n := newTestNode(t, newKey(t))
	d, err := New(n, cfg)
	if err != nil {
		t.Fatalf("make discovery: %v", err)
	}
	return &party{testNode: n, d: d}
}

// live runs the discovery, and returns when it answers.
func (p *party) live(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("discovery ended with %v", err)
		}
	})
	for late := deadline(t); !slices.Contains(p.h.Mux().Protocols(), protocol.ID(PagesProtocol)); {
		if !wait(late, time.Millisecond) {
			t.Fatal("it doesn't run")
		}
	}
}

// addrs are the node's addresses with its id.
func (p *party) addrs() []string {
	var out []string
	for _, a := range p.h.Addrs() {
		out = append(out, a.String()+"/p2p/"+p.Local().String())
	}
	return out
}

// newPage lets the node answer for a page that has one address.
func (p *party) newPage(t testing.TB, at string) identity.PeerID {
	t.Helper()
	key := newKey(t)
	t.Cleanup(p.d.AddPage(key, func() []ma.Multiaddr { return []ma.Multiaddr{addr(at)} }))
	return key.PeerID()
}

func (p *party) find(ctx context.Context, id identity.PeerID) ([]string, error) {
	var out []string
	err := p.d.Find(ctx, id, func(addrs []ma.Multiaddr) {
		for _, a := range addrs {
			out = append(out, a.String())
		}
	})
	return out, err
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// waitConnected waits until from is connected to all others and knows that they
// answer for pages.
func waitConnected(t testing.TB, from *party, others ...*party) {
	t.Helper()
	changed := make(chan struct{}, 1)
	stop := from.Notify(func(identity.PeerID) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	ctx := deadline(t)
	for {
		missing := 0
		for _, o := range others {
			if !from.Connected(o.Local()) || !from.d.answersPages(o.Local()) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("not connected to %d of %d", missing, len(others))
		}
	}
}

func addr(text string) ma.Multiaddr { return ma.StringCast(text) }
