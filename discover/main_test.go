package discover

import (
	"context"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
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
	*host.Node
	d *Discovery
}

// newParty starts a node on the own machine, and its discovery.
func newParty(t testing.TB, hc host.Config, dc Config) *party {
	t.Helper()
	if hc.Listen == nil {
		hc.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	hc.NoNAT = true
	n, err := host.New(newKey(t), hc)
	if err != nil {
		t.Fatalf("make node: %v", err)
	}
	d, err := New(n, dc)
	if err != nil {
		t.Fatalf("make discovery: %v", err)
	}
	n.SetFinder(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("discovery ended with %v", err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("close node: %v", err)
		}
	})
	return &party{Node: n, d: d}
}

// newPage makes a page and lets the node answer for it.
func (p *party) newPage(t testing.TB) *host.Page {
	t.Helper()
	key := newKey(t)
	page, err := p.Page(t.Context(), key)
	if err != nil {
		t.Fatalf("make page: %v", err)
	}
	t.Cleanup(p.d.AddPage(key, page.Addrs))
	return page
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// waitConnected waits until from is connected to all others.
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

const hello network.Protocol = "/test/hello/1"

func sayHello(_ context.Context, s network.Stream) {
	_, _ = s.Write([]byte("hello"))
	_ = s.Close()
}

// wantHello opens a stream to a page and reads its greeting.
func wantHello(t testing.TB, from network.Network, to identity.PeerID) network.Path {
	t.Helper()
	s, err := from.Open(deadline(t), to, hello)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer s.Close()
	buf := make([]byte, 5)
	if _, err := s.Read(buf); err != nil || string(buf) != "hello" {
		t.Fatalf("read %q, %v", buf, err)
	}
	return s.Path()
}

func addr(text string) ma.Multiaddr { return ma.StringCast(text) }
