package parley

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// loopbackConfig is a node that keeps to itself: loopback, no discovery but the
// registry in a folder of the test's.
func loopbackConfig(t *testing.T) Config {
	cfg := DefaultConfig()
	cfg.Server.Port = 0
	cfg.Node.Data = t.TempDir()
	cfg.P2P.MDNS, cfg.P2P.DHT = false, false
	cfg.P2P.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	return cfg
}

// runNode runs a node for the length of a test.
func runNode(t *testing.T, cfg Config) *Node {
	t.Helper()
	ready := make(chan struct{})
	cfg.Ready = func(Started) { close(ready) }
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("node ended with %v", err)
		}
	})
	<-ready
	return n
}

func newPeer(t *testing.T, n *Node) *Peer {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Peer(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestPeersOfPrograms(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // where the two meet
	first, second := runNode(t, loopbackConfig(t)), runNode(t, loopbackConfig(t))
	for _, tt := range []struct {
		name string
		at   *Node
		path network.Path
	}{{"of one node", first, network.PathLocal}, {"of two nodes", second, network.PathDirect}} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			a, b := newPeer(t, first), newPeer(t, tt.at)
			talk(ctx, t, a, b)
			if got := a.Path(b.ID()).Path; got != tt.path {
				t.Errorf("path is %s, want %s", got, tt.path)
			}
			meetInTopic(ctx, t, a, b)
		})
	}
}

func talk(ctx context.Context, t *testing.T, a, b *Peer) {
	err := b.Handle("echo", func(_ context.Context, m Message) (*Content, error) {
		if string(m.Content.Data) == `"fail"` {
			return nil, identity.Errorf(identity.CodeForbidden, "not that")
		}
		return &m.Content, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Handle("echo", nil); identity.CodeOf(err) != identity.CodeAlreadyStarted {
		t.Errorf("second Handle: %v", err)
	}
	if level, err := a.Send(ctx, b.ID(), "echo", Text("one"), Handled); err != nil || level != Handled {
		t.Errorf("Send reached %v, %v", level, err)
	}
	if got, err := a.Request(ctx, b.ID(), "echo", Text("two")); err != nil || string(got.Data) != `"two"` {
		t.Errorf("Request: %s, %v", got.Data, err)
	}
	if _, err := a.Request(ctx, b.ID(), "echo", Text("fail")); identity.CodeOf(err) != identity.CodeForbidden || err.Error() != "not that" {
		t.Errorf("the handler's error arrived as %v", err)
	}
	if err := b.Unhandle("echo"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := a.Send(short, b.ID(), "echo", Text("late"), Handled); !errors.Is(err, context.Canceled) {
		t.Errorf("Send with an ended context: %v", err)
	}
}

func meetInTopic(ctx context.Context, t *testing.T, a, b *Peer) {
	s, err := b.Subscribe(ctx, "room", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Subscribe(ctx, "room", nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Publish(ctx, "room", Text("hello")); err != nil {
		t.Fatal(err)
	}
	var joined, got bool
	for !joined || !got {
		e, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("joined %v, got %v: %v", joined, got, err)
		}
		joined = joined || e.Publication == nil && e.Joined && e.Member.Peer == a.ID()
		got = got || e.Publication != nil && e.Publication.From == a.ID() && string(e.Publication.Content.Data) == `"hello"`
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Next(ctx); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("Next after Close: %v", err)
	}
}

func TestNodeClosesItsPeers(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	var p *Peer
	t.Run("node", func(t *testing.T) {
		p = newPeer(t, runNode(t, loopbackConfig(t)))
	})
	if _, err := p.Send(t.Context(), p.ID(), "x", Text("x"), Handled); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("Send after the node's end: %v", err)
	}
	if err := p.Handle("x", nil); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("Handle after the node's end: %v", err)
	}
}
