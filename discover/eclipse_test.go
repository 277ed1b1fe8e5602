package discover

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"

	"github.com/parley-p2p/parley/identity"
)

// TestAbuse36_FloodLeavesReadyPeers: strangers connect until the node has too
// many connections and trims them. Who is on the ready list stays, though the
// list is longer than what a trim leaves of others; taken off it they are cut
// like everybody.
func TestAbuse36_FloodLeavesReadyPeers(t *testing.T) {
	const low, high, friends, strangers = 2, 4, 6, 16
	conns, err := connmgr.NewConnManager(low, high, connmgr.WithGracePeriod(0))
	if err != nil {
		t.Fatal(err)
	}
	n := newTestNode(t, newKey(t), libp2p.ConnectionManager(conns))
	l := NewReadyList(n, n.h.ConnManager())
	defer l.Close()
	until := func(what string, ok func() bool) {
		t.Helper()
		ctx, tick := deadline(t), time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for !ok() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("waited in vain: %s; %d connections", what, conns.GetInfo().ConnCount)
			}
		}
	}

	var ready []identity.PeerID
	for range friends {
		h := newTestNode(t, newKey(t))
		ready = append(ready, h.Local())
		if err := l.Add(h.Local(), h.h.Addrs()); err != nil {
			t.Fatal(err)
		}
	}
	until("the ready peers", func() bool { return conns.GetInfo().ConnCount == friends })
	for range strangers {
		h := newTestNode(t, newKey(t))
		if err := h.h.Connect(deadline(t), peer.AddrInfo{ID: n.Local(), Addrs: n.h.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	until("the flood", func() bool { return conns.GetInfo().ConnCount == friends+strangers })

	conns.TrimOpenConns(t.Context())
	until("the trim", func() bool { return conns.GetInfo().ConnCount == friends+low })
	if i := slices.IndexFunc(ready, func(id identity.PeerID) bool { return !n.Connected(id) }); i >= 0 {
		t.Errorf("ready peer %d was cut off", i)
	}
	for _, id := range ready {
		l.Remove(id)
	}
	conns.TrimOpenConns(t.Context())
	until("the trim of all", func() bool { return conns.GetInfo().ConnCount == low })
}
