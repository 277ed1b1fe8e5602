package discover

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

const pageAddr = "/ip4/127.0.0.1/tcp/4242"

// wantPlace checks that a page is found at its own address and by its node. A search
// that ran out of the time that a node has to answer is made again: the machine is busy.
func wantPlace(t testing.TB, asker *party, page identity.PeerID, node identity.PeerID) {
	t.Helper()
	ctx := deadline(t)
	began := time.Now()
	got, err := asker.find(ctx, page)
	for err != nil && time.Since(began) >= askTimeout && ctx.Err() == nil {
		began = time.Now()
		got, err = asker.find(ctx, page)
	}
	if err != nil {
		t.Fatalf("find: %v", err)
	}
	for _, want := range []string{pageAddr, "/p2p/" + node.String() + "/p2p-circuit"} {
		if !slices.Contains(got, want) {
			t.Errorf("found %v, want %s among it", got, want)
		}
	}
}

// Two nodes of one user meet by the registry, without multicast, and each finds
// the other's pages by asking.
func TestNodesOfOneUserMeet(t *testing.T) {
	dir := t.TempDir() + "/run"
	a := newParty(t, Config{RuntimeDir: dir})
	b := newParty(t, Config{RuntimeDir: dir})
	waitConnected(t, a, b)
	waitConnected(t, b, a)
	wantPlace(t, a, b.newPage(t, pageAddr), b.Local())
	wantPlace(t, b, a.newPage(t, pageAddr), a.Local())
}

// What Describe says is in the registry while the node runs, and gone after.
func TestDescribe(t *testing.T) {
	reg := openRegistry(t)
	a := newParty(t, Config{RuntimeDir: reg.dir, Instance: Instance{Site: "chat"}})
	ctx, cancel := context.WithCancel(deadline(t))
	seen := make(chan Instance, 64)
	done := make(chan error, 1)
	go func() {
		done <- reg.Watch(ctx, func(all []Instance) {
			for _, i := range all {
				seen <- i
			}
		})
	}()
	a.d.Describe(func(i *Instance) { i.Port = 10000 })
	for said := false; !said; {
		select {
		case i := <-seen:
			said = i.Port == 10000 && i.Site == "chat" && i.Peer == a.Local() && len(i.Addrs) > 0
		case <-ctx.Done():
			t.Fatal("it never says so")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A page looked for before its node is there is found when the node comes, and
// the node is told.
func TestWantedPageIsFoundWhenItsNodeComes(t *testing.T) {
	dir := t.TempDir() + "/run"
	a := newParty(t, Config{RuntimeDir: dir})
	b := idleParty(t, Config{RuntimeDir: dir})
	page := b.newPage(t, pageAddr)
	if _, err := a.find(deadline(t), page); identity.CodeOf(err) != identity.CodeUnreachable {
		t.Fatalf("got %v, want unreachable", err)
	}
	told := make(chan struct{}, 1)
	defer a.Notify(func(id identity.PeerID) {
		if id == page {
			select {
			case told <- struct{}{}:
			default:
			}
		}
	})()
	b.live(t)
	select {
	case <-told:
	case <-deadline(t).Done():
		t.Fatal("nobody told of the page")
	}
	if addrs := a.h.Peerstore().Addrs(page); len(addrs) == 0 {
		t.Error("the page's addresses aren't known")
	}
}

// The finder says what it tried.
func TestFindNothing(t *testing.T) {
	a := newParty(t, Config{})
	b := newParty(t, Config{Connect: a.addrs()})
	waitConnected(t, b, a)
	got, err := b.find(deadline(t), newKey(t).PeerID())
	if err == nil || err.Error() != "no addresses found: asked 1 nodes" || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

// A page that moved to another node is found there, although the old place is
// remembered.
func TestPageMoves(t *testing.T) {
	hub := newParty(t, Config{})
	old, next := newParty(t, Config{Connect: hub.addrs()}), newParty(t, Config{Connect: hub.addrs()})
	waitConnected(t, hub, old, next)
	key := newKey(t)
	here := func() []ma.Multiaddr { return []ma.Multiaddr{addr(pageAddr)} }
	remove := old.d.AddPage(key, here)
	wantPlace(t, hub, key.PeerID(), old.Local())
	remove()
	defer next.d.AddPage(key, here)()
	wantPlace(t, hub, key.PeerID(), next.Local())
	if rec, ok := hub.d.pages.where(key.PeerID(), time.Now()); !ok || rec.node != next.Local() {
		t.Errorf("remembered node %s, want the new one", rec.node)
	}
}

// newHub is a node with a DHT that others begin with.
func newHub(t testing.TB) *party {
	t.Helper()
	hub := newParty(t, Config{DHT: true, DHTServer: true})
	for late := deadline(t); hub.d.DHT() == nil; {
		if !wait(late, time.Millisecond) {
			t.Fatal("it has no DHT")
		}
	}
	return hub
}

// dhtParties are nodes of which each knows only the first.
func dhtParties(t testing.TB, count int) []*party {
	t.Helper()
	first := newHub(t)
	out := []*party{first}
	for range count - 1 {
		out = append(out, newParty(t, Config{DHT: true, DHTServer: true, Bootstrap: first.addrs()}))
	}
	for _, p := range out {
		waitTable(t, p)
	}
	return out
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

// The DHT of five nodes finds a page by its node.
func TestDHTFindsPage(t *testing.T) {
	parties := dhtParties(t, 5)
	owner, asker := parties[3], parties[4]
	page := owner.newPage(t, pageAddr)
	if !owner.d.provideOnce(deadline(t), []cid.Cid{owner.d.pageKey(page)}) {
		t.Fatal("the DHT took no record")
	}
	// The asker isn't connected to the owner; only the DHT says who it is.
	if err := asker.h.Network().ClosePeer(owner.Local()); err != nil {
		t.Fatal(err)
	}
	wantPlace(t, asker, page, owner.Local())
}

// Row 37: nodes that lie about having a page don't hide the one that has it.
func TestAbuse37_FalseProvidersHideNobody(t *testing.T) {
	parties := dhtParties(t, 5)
	owner, asker := parties[0], parties[4]
	page := owner.newPage(t, pageAddr)
	for _, liar := range parties[1:4] {
		if !liar.d.provideOnce(deadline(t), []cid.Cid{owner.d.pageKey(page)}) {
			t.Fatal("the DHT took no record")
		}
	}
	if !owner.d.provideOnce(deadline(t), []cid.Cid{owner.d.pageKey(page)}) {
		t.Fatal("the DHT took no record")
	}
	wantPlace(t, asker, page, owner.Local())
}

// Nodes that share a topic and nothing else meet through the DHT.
func TestDHTTopicRendezvous(t *testing.T) {
	parties := dhtParties(t, 3)
	a, b := parties[1], parties[2]
	if !a.d.provideOnce(deadline(t), []cid.Cid{rawKey("room")}) {
		t.Fatal("the DHT took no record")
	}
	if err := b.h.Network().ClosePeer(a.Local()); err != nil {
		t.Fatal(err)
	}
	leave := b.d.Topic("room", func() bool { return !b.Connected(a.Local()) })
	defer leave()
	waitConnected(t, b, a)
}

// Nodes that enter a topic before their DHT knows anybody find each other as
// soon as it does, and not after the pauses of a search that found nobody.
func TestDHTTopicEnteredAtOnce(t *testing.T) {
	hub := newHub(t)
	a := newParty(t, Config{DHT: true, Bootstrap: hub.addrs()})
	b := newParty(t, Config{DHT: true, Bootstrap: hub.addrs()})
	lonely := func() bool { return !a.Connected(b.Local()) }
	for _, p := range []*party{a, b} {
		defer p.d.Topic("room", lonely)()
	}
	waitConnected(t, b, a)
}

// Namespaces keep pages of the same key apart.
func TestNamespace(t *testing.T) {
	page := newKey(t).PeerID()
	plain, one := idleParty(t, Config{}), idleParty(t, Config{Namespace: "one"})
	if plain.d.pageKey(page) == one.d.pageKey(page) {
		t.Error("two namespaces have one key")
	}
	if want := rawKey("/parley/page/" + page.String()); plain.d.pageKey(page) != want {
		t.Errorf("key %s, want %s", plain.d.pageKey(page), want)
	}
	if want := rawKey("one//parley/page/" + page.String()); one.d.pageKey(page) != want {
		t.Errorf("key %s, want %s", one.d.pageKey(page), want)
	}
}

// A search ends with its context, whatever a node that was asked does.
func TestFindEndsWithContext(t *testing.T) {
	a := newParty(t, Config{})
	silent := newTestNode(t, newKey(t))
	asked, release := make(chan struct{}), make(chan struct{})
	silent.Handle(PagesProtocol, func(context.Context, network.Stream) {
		close(asked)
		<-release
	})
	defer close(release)
	if err := a.h.Connect(deadline(t), peer.AddrInfo{ID: silent.Local(), Addrs: silent.h.Addrs()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	done := make(chan error, 1)
	go func() {
		_, err := a.find(ctx, newKey(t).PeerID())
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; err == nil {
		t.Error("found something")
	}
}
