package host

import (
	"sync/atomic"
	"testing"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"

	"github.com/parley-p2p/parley/network"
)

// TestPuncherWaitsForItsService: as long as the node knows no address at which a hole
// could be punched, a peer that called through a relay is not looked at again and
// again; nor is the service asked before it can answer.
func TestPuncherWaitsForItsService(t *testing.T) {
	b := behindRelay(t)
	cfg := loopback()
	cfg.PageListen, cfg.Gater = []string{}, gate{blockDirect{b.Local()}, new(atomic.Bool)}
	a := newNode(t, cfg)
	pa, pb := newPage(t, a), newPage(t, b)
	pb.Handle(echo, echoHandler)
	tell(pa.endpoint, pb.Local(), pb.Addrs())
	if got := roundTrip(t, pa, pb.Local()); got != network.PathRelay {
		t.Fatalf("path %s, want relay", got)
	}
	p := puncher{node: b, peers: make(map[peer.ID]*retry), slots: make(chan struct{})}
	now := time.Now()
	for _, later := range []time.Duration{0, punchFirst, time.Minute} {
		if wait := p.look(now.Add(later)); wait != punchLast {
			t.Errorf("after %v it looks again in %v", later, wait)
		}
	}
	b.host.SetStreamHandler(holepunch.Protocol, func(s libnet.Stream) { _ = s.Reset() })
	if wait := p.look(now.Add(time.Minute)); wait != punchFirst {
		t.Errorf("as soon as the service speaks it is asked in %v", wait)
	}
	if wait := p.look(now.Add(time.Minute + punchFirst)); wait != punchFirst/4 { // it would have been, had there been a slot
		t.Errorf("it is not asked then, but in %v", wait)
	}
}
