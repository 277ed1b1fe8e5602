package host

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A timer of a closed WebRTC stream, which ends with its deadline.
		goleak.IgnoreAnyFunction("github.com/pion/sctp.(*Stream).SetReadDeadline.func1"))
}

// loopback is a node that only uses TCP on the own machine.
func loopback() Config {
	return Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoNAT: true}
}

func newKey(t testing.TB) identity.Key {
	t.Helper()
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newNode(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := New(newKey(t), cfg)
	if err != nil {
		t.Fatalf("make node: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close node: %v", err)
		}
	})
	return n
}

func newPage(t testing.TB, n *Node) *Page {
	t.Helper()
	p, err := n.Page(t.Context(), newKey(t))
	if err != nil {
		t.Fatalf("make page: %v", err)
	}
	return p
}

// bare strips /p2p/<id> from addresses.
func bareAddrs(addrs []ma.Multiaddr) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		rest, last := ma.SplitLast(a)
		if last.Protocol().Code == ma.P_P2P {
			a = rest
		}
		out = append(out, a)
	}
	return out
}

func tell(e *endpoint, id identity.PeerID, addrs []ma.Multiaddr) {
	e.AddAddrs(id, bareAddrs(addrs), peerstore.PermanentAddrTTL)
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

const echo network.Protocol = "/test/echo/1"

func echoHandler(_ context.Context, s network.Stream) {
	if _, err := io.Copy(s, s); err != nil {
		return
	}
	_ = s.Close()
}

// roundTrip sends text over a new stream and wants it back.
func roundTrip(t testing.TB, from network.Network, to identity.PeerID) network.Path {
	t.Helper()
	s, err := from.Open(deadline(t), to, echo)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatalf("write: %v", err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatalf("close write: %v", err)
	}
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "hello" {
		t.Fatalf("echo gave %q, %v", got, err)
	}
	if s.Remote() != to || s.Local() != from.Local() || s.Protocol() != echo {
		t.Errorf("stream says %s to %s over %s", s.Local(), s.Remote(), s.Protocol())
	}
	return s.Path()
}

func wantCode(t testing.TB, err error, code identity.Code) *identity.Error {
	t.Helper()
	var e *identity.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got error %v, want code %s", err, code)
	}
	return e
}

// evtAddrs tells that a host's addresses changed.
type evtAddrs = event.EvtLocalAddressesUpdated

// plainHost is a libp2p host that knows nothing of parley.
func plainHost(t testing.TB, opts ...libp2p.Option) libhost.Host {
	t.Helper()
	h, err := libp2p.New(append([]libp2p.Option{
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics(),
		libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(dialTimeout)), // as a busy machine needs
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	return h
}

// evtConnected tells that connections came or went.
type evtConnected = event.EvtPeerConnectednessChanged
