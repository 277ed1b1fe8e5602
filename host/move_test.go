package host

import (
	"slices"
	"sync/atomic"
	"testing"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/network"
)

// gate is blockDirect until it is opened.
type gate struct {
	blockDirect
	open *atomic.Bool
}

func (g gate) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return g.open.Load() || g.blockDirect.InterceptAddrDial(p, a)
}

// behindRelay makes a relay, and a node that has a place there.
func behindRelay(t *testing.T) *Node {
	t.Helper()
	cfg := loopback()
	cfg.PageListen, cfg.Relays = []string{}, addrTexts(newRelay(t).Addrs())
	n := newNode(t, cfg)
	waitRelayed(t, n)
	return n
}

// TestDirectAddressBeforeRelay: a page is told a way through a relay and a direct
// one, and the node takes the direct one, whichever is dialled first.
func TestDirectAddressBeforeRelay(t *testing.T) {
	b := behindRelay(t)
	cfg := loopback()
	cfg.PageListen = []string{}
	a := newNode(t, cfg)
	pa, pb := newPage(t, a), newPage(t, b)
	pb.Handle(echo, echoHandler)
	tell(pa.endpoint, pb.Local(), pb.Addrs())

	var through ma.Multiaddr // a relay to the node, and so to its page
	for _, addr := range bareAddrs(pb.Addrs()) {
		if home, err := relayOf(addr); err == nil && slices.ContainsFunc(home.Addrs, isCircuit) {
			through = addr
		}
	}
	if through == nil {
		t.Fatalf("no address through the relay among %v", pb.Addrs())
	}
	c, err := pa.circuits.Dial(deadline(t), through, pb.Local())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := a.Path(b.Local()).Path; got != network.PathDirect {
		t.Errorf("path %s, want direct", got)
	}
}

// TestPagesMoveToTheDirectPath: pages that began to talk through a relay change
// over when their nodes have found a direct path, and both are told.
func TestPagesMoveToTheDirectPath(t *testing.T) {
	b := behindRelay(t)
	cfg := loopback()
	g := gate{blockDirect{b.Local()}, new(atomic.Bool)}
	cfg.PageListen, cfg.Gater = []string{}, g
	a := newNode(t, cfg)
	pa, pb := newPage(t, a), newPage(t, b)
	for _, p := range []*Page{pa, pb} {
		p.Handle(echo, echoHandler)
	}
	tell(pa.endpoint, pb.Local(), pb.Addrs())
	if got := roundTrip(t, pa, pb.Local()); got != network.PathRelay {
		t.Fatalf("path %s, want relay", got)
	}
	changed := make(chan struct{}, 1)
	for _, p := range []*Page{pa, pb} {
		defer p.Notify(func(peer.ID) {
			select {
			case changed <- struct{}{}:
			default:
			}
		})()
	}
	ctx := deadline(t)
	leaves := func(p, from *Page) { // the other side hears of the end later
		t.Helper()
		relayed := func(c libnet.Conn) bool { return p.node.pathOf(c) == network.PathRelay }
		for slices.ContainsFunc(p.swarm.ConnsToPeer(from.Local()), relayed) {
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatal("the page's connection stays on the relay")
			}
		}
	}
	g.open.Store(true)
	tell(a.net, b.Local(), b.Addrs())
	a.Improve(b.Local())
	leaves(pa, pb)
	if got := roundTrip(t, pa, pb.Local()); got != network.PathDirect {
		t.Errorf("path %s, want direct", got)
	}
	leaves(pb, pa)
	if got := roundTrip(t, pb, pa.Local()); got != network.PathDirect {
		t.Errorf("path back %s, want direct", got)
	}
}

// TestBestAddressesOfARelay: of what a relay says of itself, the node announces
// what others can use, and not that of the relay's own machine.
func TestBestAddressesOfARelay(t *testing.T) {
	n := newNode(t, loopback())
	relay := newKey(t).PeerID()
	var told []ma.Multiaddr
	for _, text := range []string{
		"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/2/ws", "/ip6/::1/tcp/1", "/ip6/::1/udp/1/quic-v1",
		"/ip4/192.168.1.2/tcp/1", "/ip4/203.0.114.7/tcp/2/ws", "/ip4/203.0.114.7/udp/1/quic-v1", "/ip4/203.0.114.7/tcp/1",
	} {
		told = append(told, ma.StringCast(text))
	}
	var got []string
	for _, a := range n.relays.Load().through(relay, told) {
		got = append(got, a.String())
	}
	end := "/p2p/" + relay.String() + "/p2p-circuit"
	want := []string{"/ip4/203.0.114.7/tcp/1" + end, "/ip4/203.0.114.7/udp/1/quic-v1" + end, "/ip4/203.0.114.7/tcp/2/ws" + end, "/ip4/192.168.1.2/tcp/1" + end}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
