package host

import (
	"fmt"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A page's publication carries the page's id and signature through the nodes'
// routers, and a burst larger than the library's queues loses nothing.
func TestRouterCarriesPagesBurst(t *testing.T) {
	na, nb := newNode(t, loopback()), newNode(t, loopback())
	page := newKey(t)
	if err := na.Libp2p().Connect(deadline(t), peer.AddrInfo{ID: nb.Local(), Addrs: bareAddrs(nb.Addrs())}); err != nil {
		t.Fatal(err)
	}
	ta, err := na.PubSub().Join("room")
	if err != nil {
		t.Fatal(err)
	}
	tb, err := nb.PubSub().Join("room")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := tb.Subscribe(pubsub.WithBufferSize(4096))
	if err != nil {
		t.Fatal(err)
	}
	events, err := ta.EventHandler()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.NextPeerEvent(deadline(t)); err != nil {
		t.Fatal(err)
	}
	events.Cancel()
	const burst = 1000
	ctx := deadline(t)
	for i := range burst {
		err := ta.Publish(ctx, fmt.Appendf(nil, "%d", i), pubsub.WithSecretKeyAndPeerId(page.Libp2p(), page.PeerID()))
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	for len(seen) < burst {
		m, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d: %v; drops %v %v", len(seen), burst, err, na.PubSubDrops(), nb.PubSubDrops())
		}
		if m.GetFrom() != page.PeerID() {
			t.Fatalf("message from %s, want the page", m.GetFrom())
		}
		seen[string(m.Data)] = true
	}
	if d := na.PubSubDrops(); len(d) != 0 {
		t.Errorf("drops %v", d)
	}
	sub.Cancel()
}
