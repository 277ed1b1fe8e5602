package discover

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
)

// TestAbuse36_FloodLeavesReadyPeers: strangers connect until a node has too many
// connections and trims them. Whom the node was told to keep a connection to stays,
// though they are more than what a trim leaves of others, and who of them is lost
// meanwhile is dialled again; taken off the list they are cut like everybody. It is
// the node's own host with its connection manager, and its discovery, with low
// marks.
func TestAbuse36_FloodLeavesReadyPeers(t *testing.T) {
	const low, friends, strangers = 2, 6, 16
	// Above all that come at once: the node trims when the test says so. In libp2p a
	// trim of its own at the same moment counts what is being closed once more.
	const high = low + friends + 2*strangers
	node, err := host.New(newKey(t), host.Config{
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, PageListen: []string{}, NoNAT: true,
		Conns: host.Conns{Low: low, High: high, Grace: time.Nanosecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	var ready []identity.PeerID
	var cfg Config
	hosts := make(map[identity.PeerID]*testNode)
	for range friends {
		h := newTestNode(t, newKey(t))
		ready, hosts[h.Local()] = append(ready, h.Local()), h
		for _, a := range h.h.Addrs() {
			cfg.Connect = append(cfg.Connect, a.String()+"/p2p/"+h.Local().String())
		}
	}
	d, err := New(node, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() { stop(); <-ended }()

	changed := make(chan struct{}, 1)
	defer node.Notify(func(identity.PeerID) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	var came atomic.Int64
	node.Libp2p().Network().Notify(&libnet.NotifyBundle{ConnectedF: func(_ libnet.Network, c libnet.Conn) {
		if _, friend := hosts[c.RemotePeer()]; !friend {
			came.Add(1)
		}
	}})
	conns := func() int { return len(node.Libp2p().Network().Conns()) }
	until := func(what string, ok func() bool) {
		t.Helper()
		late := deadline(t)
		for !ok() {
			select {
			case <-changed:
			case <-late.Done():
				t.Fatalf("waited in vain: %s; %d connections", what, conns())
			}
		}
	}
	allReady := func() bool {
		return !slices.ContainsFunc(ready, func(id identity.PeerID) bool { return !node.Connected(id) })
	}
	flood := func() {
		for range strangers {
			h := newTestNode(t, newKey(t))
			if err := h.h.Connect(deadline(t), peer.AddrInfo{ID: node.Local(), Addrs: node.Libp2p().Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
	}

	until("the ready peers", allReady)
	for round := range int64(3) {
		flood()
		until("the flood", func() bool { return came.Load() >= (round+1)*strangers })
		node.Libp2p().ConnManager().TrimOpenConns(t.Context())
		until("the trim", func() bool { return conns() == friends+low })
		if !allReady() {
			t.Fatal("a ready peer was cut off")
		}
	}
	flood()
	lost := hosts[ready[0]]
	for _, c := range lost.h.Network().ConnsToPeer(node.Local()) {
		_ = c.Close()
	}
	until("who was lost is back", func() bool {
		return lost.h.Network().Connectedness(node.Local()) == libnet.Connected && allReady()
	})
	for _, id := range ready {
		d.ready.Remove(id)
	}
	node.Libp2p().ConnManager().TrimOpenConns(t.Context())
	until("the trim of all", func() bool { return conns() == low })
}
