package parley_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/discover"
	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// meeting is a node and its discovery, put together as the root does.
type meeting struct {
	*host.Node
	d *discover.Discovery
}

func meet(t *testing.T, hc host.Config, dc discover.Config) *meeting {
	t.Helper()
	hc.Listen, hc.NoNAT = []string{"/ip4/127.0.0.1/tcp/0"}, true
	n, err := host.New(meetKey(t), hc)
	if err != nil {
		t.Fatal(err)
	}
	d, err := discover.New(n, dc)
	if err != nil {
		t.Fatal(err)
	}
	n.SetFinder(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("discovery: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("node: %v", err)
		}
	})
	return &meeting{Node: n, d: d}
}

func meetKey(t *testing.T) identity.Key {
	t.Helper()
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (m *meeting) page(t *testing.T, key identity.Key) *host.Page {
	t.Helper()
	p, err := m.Page(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	p.Handle("/hello", func(_ context.Context, s network.Stream) {
		_, _ = io.WriteString(s, "hello from "+string(s.Path()))
		_ = s.Close()
	})
	t.Cleanup(m.d.AddPage(key, p.Addrs))
	return p
}

// greet opens a stream as soon as the other page is found, as package peer
// does: again whenever something about it changed.
func greet(t *testing.T, from *host.Page, to identity.PeerID) network.Path {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	changed := make(chan struct{}, 1)
	defer from.Notify(func(id identity.PeerID) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	for {
		s, err := from.Open(ctx, to, "/hello")
		if err == nil {
			defer s.Close()
			if text, err := io.ReadAll(s); err != nil || len(text) == 0 {
				t.Fatalf("read %q, %v", text, err)
			}
			return s.Path()
		}
		again := time.NewTimer(250 * time.Millisecond)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("never reached: %v", err)
		}
		again.Stop()
	}
}

// Pages of two nodes of one user reach each other although neither was told
// anything about the other; also when only their nodes can be dialled.
func TestPagesOfTwoNodesMeet(t *testing.T) {
	for name, hc := range map[string]host.Config{
		"pages with sockets":                 {},
		"pages that only their node reaches": {PageListen: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			dc := discover.Config{RuntimeDir: t.TempDir() + "/run"}
			a, b := meet(t, hc, dc), meet(t, hc, dc)
			pa, pb := a.page(t, meetKey(t)), b.page(t, meetKey(t))
			if got := greet(t, pa, pb.Local()); got != network.PathDirect {
				t.Errorf("path %s, want direct", got)
			}
			greet(t, pb, pa.Local())
		})
	}
}

// A page that moves to another node is found there.
func TestPageThatMovesIsFound(t *testing.T) {
	dc := discover.Config{RuntimeDir: t.TempDir() + "/run"}
	a, b, c := meet(t, host.Config{}, dc), meet(t, host.Config{}, dc), meet(t, host.Config{}, dc)
	asker, key := a.page(t, meetKey(t)), meetKey(t)
	first := b.page(t, key)
	greet(t, asker, key.PeerID())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	c.page(t, key)
	greet(t, asker, key.PeerID())
}

// A node that dials a page of another node itself, through that node, tells the
// path as it is: no relay of others is in between.
func TestPathToAPageOfAnotherNode(t *testing.T) {
	dc := discover.Config{RuntimeDir: t.TempDir() + "/run"}
	hc := host.Config{PageListen: []string{}}
	a, b := meet(t, hc, dc), meet(t, hc, dc)
	pb := b.page(t, meetKey(t))
	greet(t, a.page(t, meetKey(t)), pb.Local()) // by then its node is known
	if err := a.Connect(t.Context(), pb.Local()); err != nil {
		t.Fatal(err)
	}
	if got := a.Path(pb.Local()); got.Path != network.PathDirect || !strings.Contains(got.Address, "p2p-circuit") {
		t.Errorf("%+v, want direct through the page's node", got)
	}
}
