package discover

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Two nodes of one user meet by the registry, without multicast, and their
// pages find each other by asking.
func TestNodesOfOneUserMeet(t *testing.T) {
	tests := []struct {
		name string
		hc   host.Config
	}{
		{"pages with sockets", host.Config{}},
		{"pages that only their node reaches", host.Config{PageListen: []string{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir() + "/run"
			a := newParty(t, tt.hc, Config{RuntimeDir: dir})
			b := newParty(t, tt.hc, Config{RuntimeDir: dir})
			waitConnected(t, a, b)
			waitConnected(t, b, a)
			pa, pb := a.newPage(t), b.newPage(t)
			pb.Handle(hello, sayHello)
			if got := wantHello(t, pa, pb.Local()); got != network.PathDirect {
				t.Errorf("path %s, want direct", got)
			}
		})
	}
}

// A page looked for before its node is there is found when the node comes, and
// whoever waits is told.
func TestWantedPageIsFoundWhenItsNodeComes(t *testing.T) {
	dir := t.TempDir() + "/run"
	a := newParty(t, host.Config{}, Config{RuntimeDir: dir})
	pa := a.newPage(t)
	key := newKey(t)
	_, err := pa.Open(deadline(t), key.PeerID(), hello)
	if identity.CodeOf(err) != identity.CodeUnreachable {
		t.Fatalf("got %v, want unreachable", err)
	}
	told := make(chan struct{}, 1)
	stop := pa.Notify(func(id identity.PeerID) {
		if id == key.PeerID() {
			select {
			case told <- struct{}{}:
			default:
			}
		}
	})
	defer stop()

	// The other node has the page before it meets the first one.
	n, err := host.New(newKey(t), host.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoNAT: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	d, err := New(n, Config{RuntimeDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	page, err := n.Page(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	page.Handle(hello, sayHello)
	defer d.AddPage(key, page.Addrs)()
	ctx, cancel := context.WithCancel(deadline(t))
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { cancel(); <-done }()

	select {
	case <-told:
	case <-ctx.Done():
		t.Fatal("nobody told of the page")
	}
	wantHello(t, pa, key.PeerID())
}

// The finder says what it tried.
func TestFindNothing(t *testing.T) {
	a := newParty(t, host.Config{}, Config{})
	b := newParty(t, host.Config{}, Config{Connect: addrTexts(a.Addrs())})
	waitConnected(t, b, a)
	err := b.d.Find(deadline(t), newKey(t).PeerID(), func(addrs []ma.Multiaddr) { t.Errorf("found %v", addrs) })
	if err == nil || err.Error() != "no addresses found: asked 1 nodes" {
		t.Errorf("got %v", err)
	}
}

func addrTexts(addrs []ma.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// A page that moved to another node is found again, although the old place is
// remembered.
func TestPageMoves(t *testing.T) {
	hub := newParty(t, host.Config{}, Config{})
	connect := Config{Connect: addrTexts(hub.Addrs())}
	old := newParty(t, host.Config{}, connect)
	waitConnected(t, old, hub)
	waitConnected(t, hub, old)
	key := newKey(t)
	first, err := old.Page(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	first.Handle(hello, sayHello)
	remove := old.d.AddPage(key, first.Addrs)
	asker := hub.newPage(t)
	wantHello(t, asker, key.PeerID())
	remove()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	next := newParty(t, host.Config{}, connect)
	second, err := next.Page(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	second.Handle(hello, sayHello)
	defer next.d.AddPage(key, second.Addrs)()
	waitConnected(t, next, hub)
	waitConnected(t, hub, next)
	wantHello(t, asker, key.PeerID())
}

// The DHT of five nodes, each knowing only the first, finds a page by its node.
func TestDHTFindsPage(t *testing.T) {
	first := newParty(t, host.Config{}, Config{DHT: true, DHTServer: true})
	parties := []*party{first}
	for range 4 {
		p := newParty(t, host.Config{}, Config{DHT: true, DHTServer: true, Bootstrap: addrTexts(first.Addrs())})
		parties = append(parties, p)
	}
	for _, p := range parties {
		waitTable(t, p)
	}
	owner, asker := parties[3], parties[4]
	page := owner.newPage(t)
	page.Handle(hello, sayHello)
	if !owner.d.provideOnce(deadline(t), []cid.Cid{owner.d.pageKey(page.Local())}) {
		t.Fatal("the DHT took no record")
	}
	// The asker doesn't know the owner; only the DHT says who it is.
	if err := asker.Libp2p().Network().ClosePeer(owner.Local()); err != nil {
		t.Fatal(err)
	}
	var got []ma.Multiaddr
	err := asker.d.Find(deadline(t), page.Local(), func(addrs []ma.Multiaddr) { got = append(got, addrs...) })
	if err != nil || len(got) == 0 {
		t.Fatalf("found %v, %v", got, err)
	}
	wantHello(t, asker.newPage(t), page.Local())
}

// waitTable waits until a node has others in its DHT.
func waitTable(t testing.TB, p *party) {
	t.Helper()
	ctx := deadline(t)
	for {
		if table := p.d.DHT(); table != nil && table.RoutingTable().Size() > 0 {
			return
		}
		if !wait(ctx, 5*time.Millisecond) {
			t.Fatal("the DHT stays empty")
		}
	}
}

// Nodes that share a topic and nothing else meet through the DHT.
func TestDHTTopicRendezvous(t *testing.T) {
	first := newParty(t, host.Config{}, Config{DHT: true, DHTServer: true})
	boot := Config{DHT: true, DHTServer: true, Bootstrap: addrTexts(first.Addrs())}
	a, b := newParty(t, host.Config{}, boot), newParty(t, host.Config{}, boot)
	for _, p := range []*party{first, a, b} {
		waitTable(t, p)
	}
	if err := a.Libp2p().Network().ClosePeer(b.Local()); err != nil {
		t.Fatal(err)
	}
	if !a.d.provideOnce(deadline(t), []cid.Cid{rawKey("room")}) {
		t.Fatal("the DHT took no record")
	}
	leave := b.d.Topic("room", func() bool { return !b.Connected(a.Local()) })
	defer leave()
	waitConnected(t, b, a)
}

// A search ends with its context, whatever a node that was asked does.
func TestFindEndsWithContext(t *testing.T) {
	a := newParty(t, host.Config{}, Config{})
	silent, err := host.New(newKey(t), host.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoNAT: true})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	asked := make(chan struct{})
	silent.Handle(PagesProtocol, func(ctx context.Context, _ network.Stream) {
		close(asked)
		<-ctx.Done()
	})
	if err := a.Libp2p().Connect(deadline(t), peer.AddrInfo{ID: silent.Local(), Addrs: silent.Libp2p().Addrs()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	done := make(chan error, 1)
	go func() { done <- a.d.Find(ctx, newKey(t).PeerID(), func([]ma.Multiaddr) {}) }()
	<-asked
	cancel()
	if err := <-done; err == nil {
		t.Error("found something")
	}
}
