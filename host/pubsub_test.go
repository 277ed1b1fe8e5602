package host

import (
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A page can have a GossipSub of its own on its bare host (p2p.router = "page").
func TestPageWithOwnRouter(t *testing.T) {
	through := loopback()
	through.PageListen = []string{}
	for name, cfg := range map[string]Config{"direct": loopback(), "through the nodes": through} {
		t.Run(name, func(t *testing.T) {
			a, b := newPage(t, newNode(t, cfg)), newPage(t, newNode(t, cfg))
			join := func(p *Page) (*pubsub.Topic, *pubsub.Subscription) {
				ps, err := pubsub.NewGossipSub(t.Context(), p.Libp2p(), pubsub.WithFloodPublish(true))
				if err != nil {
					t.Fatal(err)
				}
				topic, err := ps.Join("room")
				if err != nil {
					t.Fatal(err)
				}
				sub, err := topic.Subscribe()
				if err != nil {
					t.Fatal(err)
				}
				return topic, sub
			}
			topic, _ := join(a)
			_, sub := join(b)
			events, err := topic.EventHandler()
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Libp2p().Connect(deadline(t), peer.AddrInfo{ID: b.Local(), Addrs: bareAddrs(b.Addrs())}); err != nil {
				t.Fatal(err)
			}
			if _, err := events.NextPeerEvent(deadline(t)); err != nil {
				t.Fatal(err)
			}
			// GossipSub drops what is published before it has a stream to the other,
			// so it is published until it arrives.
			ctx := deadline(t)
			got := make(chan *pubsub.Message, 1)
			go func() {
				m, _ := sub.Next(ctx)
				got <- m
			}()
			again := time.NewTicker(50 * time.Millisecond)
			defer again.Stop()
			for {
				if err := topic.Publish(ctx, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				select {
				case m := <-got:
					if m == nil || string(m.Data) != "hello" || m.GetFrom() != a.Local() {
						t.Errorf("got %v", m)
					}
					return
				case <-again.C:
				}
			}
		})
	}
}
