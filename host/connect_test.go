package host

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// TestSilentAddressesAreNamed: when the caller's time is over, the error and the
// path say which addresses were dialled and gave no answer, each once.
func TestSilentAddressesAreNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	n, ghost := newNode(t, loopback()), newKey(t).PeerID()
	n.AddAddrs(ghost, []ma.Multiaddr{at}, peerstore.PermanentAddrTTL)
	want := "dial " + at.String() + ": no answer in time"
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := n.Open(ctx, ghost, echo)
		cancel()
		if e := wantCode(t, err, identity.CodeUnreachable); e.Text != want {
			t.Errorf("%q, want %q", e.Text, want)
		}
	}
	tried := 0
	for _, a := range n.Path(ghost).Tried {
		if strings.Contains(a.Error, "no answer in time") {
			tried++
			if a != (PathAttempt{network.PathDirect, want}) {
				t.Errorf("tried %+v", a)
			}
		}
	}
	if tried != 1 {
		t.Errorf("tried %+v", n.Path(ghost).Tried)
	}
}

// TestWhoIsNowhere: the path of a peer without an address says so.
func TestWhoIsNowhere(t *testing.T) {
	n, ghost := newNode(t, loopback()), newKey(t).PeerID()
	_, err := n.Open(t.Context(), ghost, echo)
	wantCode(t, err, identity.CodeUnreachable)
	if got := n.Path(ghost); got.Path != network.PathNone || len(got.Tried) != 1 || got.Tried[0] != (PathAttempt{network.PathNone, "no addresses found"}) {
		t.Errorf("path %+v", got)
	}
}
