package host

import (
	"io"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// blockDirect keeps a node from dialling a peer except through circuits.
type blockDirect struct{ id peer.ID }

var _ connmgr.ConnectionGater = blockDirect{}

func (b blockDirect) InterceptPeerDial(peer.ID) bool { return true }
func (b blockDirect) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return p != b.id || isCircuit(a)
}
func (b blockDirect) InterceptAccept(libnet.ConnMultiaddrs) bool { return true }
func (b blockDirect) InterceptSecured(libnet.Direction, peer.ID, libnet.ConnMultiaddrs) bool {
	return true
}
func (b blockDirect) InterceptUpgraded(libnet.Conn) (bool, control.DisconnectReason) { return true, 0 }

func addrTexts(addrs []ma.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// waitRelayed waits until a node announces an address through a relay.
func waitRelayed(t testing.TB, n *Node) {
	t.Helper()
	sub, err := n.host.EventBus().Subscribe(new(evtAddrs))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ctx := deadline(t)
	for {
		for _, a := range n.host.Addrs() {
			if isCircuit(a) {
				return
			}
		}
		select {
		case <-sub.Out():
		case <-ctx.Done():
			t.Fatalf("no address through a relay among %v", n.host.Addrs())
		}
	}
}

// Two nodes that can't dial each other meet through a third; their pages use
// that path, and are told.
func TestPagesThroughRelay(t *testing.T) {
	for _, profile := range []string{RelayOwn, RelayPublic} {
		t.Run(profile, func(t *testing.T) {
			rc := loopback()
			rc.RelayProfile = profile
			r := newNode(t, rc)
			bc := loopback()
			bc.PageListen, bc.Relays = []string{}, addrTexts(r.Addrs())
			b := newNode(t, bc)
			ac := loopback()
			ac.Gater = blockDirect{b.Local()}
			a := newNode(t, ac)
			waitRelayed(t, b)

			pa, pb := newPage(t, a), newPage(t, b)
			pb.Handle(echo, echoHandler)
			tell(pa.endpoint, pb.Local(), pb.Addrs())
			if got := roundTrip(t, pa, pb.Local()); got != network.PathRelay {
				t.Errorf("path %s, want relay", got)
			}
			info := a.Path(b.Local())
			if info.Path != network.PathRelay {
				t.Errorf("the nodes' path is %+v, want relay", info)
			}
			limited := false
			for _, c := range pa.swarm.ConnsToPeer(pb.Local()) {
				limited = limited || c.Stat().Limited
			}
			if want := profile == RelayPublic; limited != want {
				t.Errorf("limited %v, want %v", limited, want)
			}
		})
	}
}

// Only a node that was told to relays for others; each relays for its own pages.
func TestRelayIsOffUnlessWanted(t *testing.T) {
	friend, stranger := newNode(t, loopback()), newNode(t, loopback())
	tests := []struct {
		name    string
		profile string
		allow   []identity.PeerID
		who     *Node
		want    bool
	}{
		{"off", "", nil, friend, false},
		{"off by name", RelayOff, nil, friend, false},
		{"own", RelayOwn, nil, friend, true},
		{"public", RelayPublic, nil, friend, true},
		{"allowed", RelayOwn, []identity.PeerID{friend.Local()}, friend, true},
		{"not allowed", RelayOwn, []identity.PeerID{friend.Local()}, stranger, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := loopback()
			cfg.RelayProfile, cfg.RelayAllow = tt.profile, tt.allow
			r := newNode(t, cfg)
			info := peer.AddrInfo{ID: r.Local(), Addrs: bareAddrs(r.Addrs())}
			_, err := client.Reserve(deadline(t), tt.who.Libp2p(), info)
			if (err == nil) != tt.want {
				t.Errorf("reservation: %v, want one: %v", err, tt.want)
			}
			// Pages are reached either way, and strangers' circuits aren't.
			p := newPage(t, r)
			p.Handle(echo, echoHandler)
			via := r.Addrs()[0].Encapsulate(circuitAddr)
			from := newPage(t, tt.who)
			from.AddAddrs(p.Local(), []ma.Multiaddr{via}, 1<<40)
			if got := roundTrip(t, from, p.Local()); got != network.PathDirect {
				t.Errorf("path %s, want direct", got)
			}
			nobody := newKey(t).PeerID()
			from.AddAddrs(nobody, []ma.Multiaddr{via}, 1<<40)
			_, err = from.Open(deadline(t), nobody, echo)
			if e := wantCode(t, err, identity.CodeUnreachable); !strings.Contains(e.Text, "relay says NO_RESERVATION") {
				t.Errorf("text %q", e.Text)
			}
		})
	}
}

// Any libp2p program can dial a page through its node.
func TestPlainLibp2pDialsPage(t *testing.T) {
	n := newNode(t, Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, PageListen: []string{}, NoNAT: true})
	p := newPage(t, n)
	p.Handle(echo, echoHandler)
	h := plainHost(t)
	if err := h.Connect(deadline(t), peer.AddrInfo{ID: p.Local(), Addrs: bareAddrs(p.Addrs())}); err != nil {
		t.Fatal(err)
	}
	conn := h.Network().ConnsToPeer(p.Local())[0]
	if conn.Stat().Limited {
		t.Error("the connection is limited")
	}
	s, err := h.NewStream(deadline(t), p.Local(), "/test/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	if _, err := s.Read(buf); err != nil || buf[0] != 'x' {
		t.Errorf("read %q, %v", buf, err)
	}
}

// The connection that carries circuits is worth keeping, as long as it does.
func TestCarryingConnectionIsValued(t *testing.T) {
	cfg := loopback()
	cfg.PageListen = []string{}
	na, nb := newNode(t, cfg), newNode(t, cfg)
	a, b := newPage(t, na), newPage(t, nb)
	b.Handle(echo, echoHandler)
	tell(a.endpoint, b.Local(), b.Addrs())
	roundTrip(t, a, b.Local())
	value := func() int {
		if tag := na.host.ConnManager().GetTagInfo(nb.Local()); tag != nil {
			return tag.Tags["parley-circuits"]
		}
		return 0
	}
	if value() != carryValue {
		t.Errorf("value %d, want %d", value(), carryValue)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if value() != 0 {
		t.Errorf("value %d after the page closed, want 0", value())
	}
}

// Row 38, for the node's own circuits: what isn't a request ends the stream, and
// a backlog of circuits that never shake hands is bounded and harms nobody.
func TestAbuse38_BadHopStreams(t *testing.T) {
	cfg := loopback()
	cfg.PageListen = []string{}
	n := newNode(t, cfg)
	n.maxShaking = 16 // each ends after 15 s by itself: a busy machine must come to the end before
	p := newPage(t, n)
	p.Handle(echo, echoHandler)
	h := plainHost(t, libp2p.ResourceManager(&libnet.NullResourceManager{}))
	if err := connectTo(t, h, n.Local(), n.Addrs()); err != nil {
		t.Fatal(err)
	}
	open := func() libnet.Stream {
		t.Helper()
		s, err := h.NewStream(deadline(t), n.Local(), proto.ProtoIDv2Hop)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Reset() })
		return s
	}
	for name, bad := range map[string][]byte{
		"no message":    {3, 0xff, 0xff, 0xff},
		"too long":      {0xff, 0xff, 0x7f},
		"endless":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"empty message": {0},
	} {
		s := open()
		if _, err := s.Write(bad); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = s.CloseWrite()
		if _, err := io.Copy(io.Discard, s); err == nil && name != "empty message" {
			t.Errorf("%s: the stream ended in order", name)
		}
	}
	// The page has no sockets, so all others come the same way.
	held := 0
	var refused error
	for ctx := deadline(t); refused == nil; held++ {
		if ctx.Err() != nil {
			t.Fatalf("%d circuits without a handshake, none refused", held)
		}
		_, refused = askRelay(open(), p.Local())
	}
	if !strings.Contains(refused.Error(), "RESOURCE_LIMIT_EXCEEDED") || held <= n.maxShaking {
		t.Errorf("after %d circuits without a handshake %q, want a limit after %d", held, refused, n.maxShaking)
	}
	friend := newPage(t, newNode(t, loopback()))
	tell(friend.endpoint, p.Local(), p.Addrs())
	roundTrip(t, friend, p.Local())
}
