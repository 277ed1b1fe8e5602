package host

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// twoConns connects a plain host to n twice, and gives both connections at n. The
// node itself doesn't compare them: what it finds depends on how busy the machine is.
func twoConns(t *testing.T, n *Node) (older, newer libnet.Conn) {
	t.Helper()
	for range maxProbes {
		n.roam.probes <- struct{}{}
	}
	came := make(chan libnet.Conn, 2)
	n.host.Network().Notify(&libnet.NotifyBundle{ConnectedF: func(_ libnet.Network, c libnet.Conn) { came <- c }})
	key := newKey(t).Libp2p()
	for range 2 {
		h := plainHost(t, libp2p.Identity(key))
		if err := h.Connect(deadline(t), peer.AddrInfo{ID: n.Local(), Addrs: n.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	return <-came, <-came
}

// silentConn is a connection over which nothing comes back.
type silentConn struct{ libnet.Conn }

func (silentConn) NewStream(ctx context.Context) (libnet.Stream, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// addressedConn has addresses, and nothing else.
type addressedConn struct {
	libnet.Conn
	local, remote ma.Multiaddr
}

func (c addressedConn) LocalMultiaddr() ma.Multiaddr  { return c.local }
func (c addressedConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// TestDeadConnectionIsNoticed: a peer that is here again over another connection
// loses the older one if that is dead, and keeps it if it lives.
func TestDeadConnectionIsNoticed(t *testing.T) {
	n := newNode(t, loopback())
	older, newer := twoConns(t, n)
	n.roam.probe(older, newer, time.Minute)
	if older.IsClosed() || newer.IsClosed() {
		t.Fatal("a living connection was closed")
	}
	for ctx := deadline(t); !older.IsClosed() && ctx.Err() == nil; { // a busy machine may be slow to answer
		n.roam.probe(silentConn{older}, newer, probeLimit)
	}
	if !older.IsClosed() || newer.IsClosed() {
		t.Error("the dead connection is open, or the living one is closed")
	}
}

// TestSlownessIsNoDeath: where the newer connection doesn't answer either, none is
// closed.
func TestSlownessIsNoDeath(t *testing.T) {
	n := newNode(t, loopback())
	older, newer := twoConns(t, n)
	n.roam.probe(silentConn{older}, silentConn{newer}, time.Second)
	if older.IsClosed() || newer.IsClosed() {
		t.Error("closed")
	}
}

// refusingConn is a connection over which no stream is opened.
type refusingConn struct {
	libnet.Conn
	err error
}

func (c refusingConn) NewStream(context.Context) (libnet.Stream, error) { return nil, c.err }

// TestRefusalIsNoDeath: a ping that the peer refuses has been answered, and one that
// this node's own limits don't let through asks nothing.
func TestRefusalIsNoDeath(t *testing.T) {
	n := newNode(t, loopback())
	older, newer := twoConns(t, n)
	for name, err := range map[string]error{
		"too many there": &libnet.StreamError{Remote: true, ErrorCode: libnet.StreamResourceLimitExceeded},
		"too many here":  fmt.Errorf("open stream: %w", libnet.ErrResourceLimitExceeded),
	} {
		n.roam.probe(refusingConn{older, err}, newer, time.Minute)
		if older.IsClosed() {
			t.Fatalf("%s: closed", name)
		}
	}
	n.roam.probe(refusingConn{older, &libnet.StreamError{}}, newer, time.Minute)
	if !older.IsClosed() {
		t.Error("open, although it ended itself")
	}
}

// TestLostAddress: connections that come from an address that the machine has no
// more are closed, others stay.
func TestLostAddress(t *testing.T) {
	n, other := newNode(t, loopback()), newNode(t, loopback())
	n.AddAddrs(other.Local(), other.host.Addrs(), peerstore.PermanentAddrTTL)
	if err := n.Connect(t.Context(), other.Local()); err != nil {
		t.Fatal(err)
	}
	c := n.host.Network().ConnsToPeer(other.Local())[0]
	here, gone := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	n.roam.mu.Lock()
	n.roam.from[c] = here
	n.roam.mu.Unlock()
	n.roam.moved(map[netip.Addr]bool{here: true})
	if c.IsClosed() {
		t.Fatal("closed, although its address is there")
	}
	n.roam.moved(map[netip.Addr]bool{gone: true})
	if !c.IsClosed() {
		t.Error("open, although its address is gone")
	}
}

// TestSourceOfAConnection: also of one whose socket is bound to no address.
func TestSourceOfAConnection(t *testing.T) {
	for _, tt := range []struct{ local, remote, want string }{
		{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/2", "192.0.2.1"},
		{"/ip6/2001:db8::1/udp/1/quic-v1", "/ip6/2001:db8::2/udp/2/quic-v1", "2001:db8::1"},
		{"/ip4/0.0.0.0/udp/1/quic-v1", "/ip4/127.0.0.1/udp/2/quic-v1", "127.0.0.1"},
	} {
		c := addressedConn{local: ma.StringCast(tt.local), remote: ma.StringCast(tt.remote)}
		if got := sourceOf(c); got.String() != tt.want {
			t.Errorf("%s to %s comes from %s, want %s", tt.local, tt.remote, got, tt.want)
		}
	}
}

// TestPatienceWithRelays: a connection with somebody between, beside which a better
// one has come, has longer to answer: what runs on it may fill a slow line.
func TestPatienceWithRelays(t *testing.T) {
	for addr, want := range map[string]time.Duration{
		"/ip4/192.0.2.1/tcp/4001":             probeLimit,
		"/ip4/192.0.2.1/udp/4001/quic-v1":     probeLimit,
		"/ip4/192.0.2.1/tcp/4001/p2p-circuit": slowProbe,
	} {
		if got := patience(addressedConn{remote: ma.StringCast(addr)}); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}
