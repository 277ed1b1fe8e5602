package parley

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/discover"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	"github.com/parley-p2p/parley/host"
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
	cfg.Peer.SendTimeout = Duration(time.Minute) // two nodes of a busy machine may take their time to meet
	return cfg
}

// runNode runs a node for the length of a test.
func runNode(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, _ := startNode(t, cfg)
	return n
}

// startNode is runNode for a test that stops the node: stop waits until it has
// ended.
func startNode(t *testing.T, cfg Config) (n *Node, stop func()) {
	t.Helper()
	return startPatient(t, cfg, patience{drainTime, closeTime})
}

// startPatient is startNode with other bounds for the node's end.
func startPatient(t *testing.T, cfg Config, p patience) (n *Node, stop func()) {
	t.Helper()
	ready := make(chan struct{})
	cfg.Ready = func(Started) { close(ready) }
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.patience = p
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node ended with %v", err)
		}
	})
	t.Cleanup(stop)
	<-ready
	return n, stop
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

// A node that stops takes nothing more, and delivers what it took before.
func TestNothingIsTakenWhileTheNodeStops(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	n := runNode(t, loopbackConfig(t))
	a, b := newPeer(t, n), newPeer(t, n)
	open := make(chan struct{})
	var got []string
	if err := b.Handle("in", func(_ context.Context, m Message) (*Content, error) {
		<-open
		got = append(got, string(m.Content.Data))
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	before := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := a.Send(t.Context(), b.ID(), "in", Text("before"), Handled)
			before <- err
		}()
	}
	gatewaytest.WaitFor(t, "both to be accepted", func() bool { return n.peers.Stats().Sent >= 2 })
	n.backend.close()
	if _, err := a.Send(t.Context(), b.ID(), "in", Text("late"), Queued); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("Send: %v", err)
	}
	if err := a.Publish(t.Context(), "room", Text("late")); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("Publish: %v", err)
	}
	close(open)
	if err := n.peers.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-before; err != nil {
			t.Errorf("what was accepted: %v", err)
		}
	}
	if len(got) != 2 || got[0] != `"before"` {
		t.Errorf("handled: %v", got)
	}
}

// Two nodes that know nothing of each other, and share a topic alone, meet by a
// local DHT whose servers are in no topic.
func TestTopicMeetsInTheDHT(t *testing.T) {
	servers := dhtServers(t, 3)
	node := func() *Node {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // each its own: they don't meet on the machine
		cfg := loopbackConfig(t)
		cfg.P2P.DHT, cfg.P2P.Bootstrap = true, servers
		return runNode(t, cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	meetInTopic(ctx, t, newPeer(t, node()), newPeer(t, node()))
}

// dhtServers run the DHT and nothing else; each knows the first.
func dhtServers(t *testing.T, n int) (addrs []string) {
	for range n {
		key, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		h, err := host.New(key, host.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoNAT: true})
		if err != nil {
			t.Fatal(err)
		}
		d, err := discover.New(h, discover.Config{DHT: true, DHTServer: true, Bootstrap: addrs[:min(1, len(addrs))]})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := errors.Join(<-ended, h.Close()); err != nil {
				t.Error(err)
			}
		})
		addrs = append(addrs, h.Addrs()[0].String())
	}
	return addrs
}

// TestG_D9_SendWaitsForTheOutbox: a program's Send waits while the outbox is full,
// at level queued too, until there is room or it gives up.
func TestG_D9_SendWaitsForTheOutbox(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	cfg := loopbackConfig(t)
	cfg.Limits.Outbox, cfg.Limits.MaxMessage = 64*KiB, 16*KiB
	n := runNode(t, cfg)
	p, late := newPeer(t, n), newPeer(t, n)
	large := Text(strings.Repeat("x", 16<<10-2))
	for i := range 4 {
		if level, err := p.Send(t.Context(), late.ID(), "late", large, Queued); err != nil || level != Queued {
			t.Fatalf("message %d reached %v, %v", i, level, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Send(ctx, late.ID(), "late", Text("gives up"), Queued); identity.CodeOf(err) != identity.CodeCancelled {
		t.Fatalf("with a full outbox: %v", err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := p.Send(t.Context(), late.ID(), "late", large, Queued)
		waits <- err
	}()
	got := make(chan int, 10)
	err := late.Handle("late", func(_ context.Context, m Message) (*Content, error) {
		got <- len(m.Content.Data)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
	for range 5 {
		if size := <-got; size != 16<<10 {
			t.Errorf("%d bytes came: who gave up was sent all the same", size)
		}
	}
}
