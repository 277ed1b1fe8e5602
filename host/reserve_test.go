package host

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func newRelay(t testing.TB, allow ...identity.PeerID) *Node {
	t.Helper()
	cfg := loopback()
	cfg.RelayProfile, cfg.RelayAllow = RelayOwn, allow
	return newNode(t, cfg)
}

// relaysOf are the relays that a node's addresses name.
func relaysOf(n *Node) map[peer.ID]bool {
	out := make(map[peer.ID]bool)
	for _, a := range n.host.Addrs() {
		if isCircuit(a) {
			if info, err := relayOf(a); err == nil {
				out[info.ID] = true
			}
		}
	}
	return out
}

// waitRelays waits until a node is reached through exactly these relays.
func waitRelays(t testing.TB, n *Node, want ...*Node) {
	t.Helper()
	sub, err := n.host.EventBus().Subscribe(new(evtAddrs))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ctx := deadline(t)
	for {
		got := relaysOf(n)
		match := len(got) == len(want)
		for _, r := range want {
			match = match && got[r.Local()]
		}
		if match {
			return
		}
		select {
		case <-sub.Out():
		case <-ctx.Done():
			t.Fatalf("reached through %v, want %d others", got, len(want))
		}
	}
}

// Reservations are held at two relays; a refusing one is passed over, and one
// that goes away is replaced.
func TestReservations(t *testing.T) {
	refusing := newRelay(t, newKey(t).PeerID())
	first, second, third := newRelay(t), newRelay(t), newRelay(t)
	cfg := loopback()
	for _, r := range []*Node{refusing, first, second, third} {
		cfg.Relays = append(cfg.Relays, addrTexts(r.Addrs())...)
	}
	n := newNode(t, cfg)
	waitRelays(t, n, first, second)
	if !n.host.ConnManager().IsProtected(first.Local(), relayTag) {
		t.Error("the connection to the relay isn't protected")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	waitRelays(t, n, second, third)
	if n.host.ConnManager().IsProtected(first.Local(), relayTag) {
		t.Error("the lost relay is still protected")
	}
}

// Without configured relays, connected peers that offer relaying are asked, but
// only by a node that knows that it can't be reached; a reachable one gives all
// relays up.
func TestRelaysAmongConnectedPeers(t *testing.T) {
	offering, silent := newRelay(t), newNode(t, loopback())
	n := newNode(t, loopback())
	reach, err := n.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer reach.Close()
	for _, r := range []*Node{offering, silent} {
		if err := connectTo(t, n.host, r.Local(), r.Addrs()); err != nil {
			t.Fatal(err)
		}
	}
	if got := relaysOf(n); len(got) != 0 {
		t.Errorf("relays %v before it knew that it can't be reached", got)
	}
	if err := reach.Emit(event.EvtLocalReachabilityChanged{Reachability: libnet.ReachabilityPrivate}); err != nil {
		t.Fatal(err)
	}
	waitRelays(t, n, offering)
}

func TestRefusalsBackOff(t *testing.T) {
	c := &relayClient{refused: make(map[peer.ID]*refusal), held: make(map[peer.ID]*heldRelay)}
	id := peer.ID("relay")
	now := time.Unix(0, 0)
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		c.refuse(id, now)
		if got := c.refused[id].until.Sub(now); got != want*time.Second {
			t.Errorf("waits %s, want %s", got, want*time.Second)
		}
	}
	for i := range 3 * maxRefusals {
		c.refuse(peer.ID(rune(i)), now)
	}
	if len(c.refused) > maxRefusals {
		t.Errorf("%d refusals are remembered, limit %d", len(c.refused), maxRefusals)
	}
}

// punchedConn is a connection as far as its path is concerned.
type punchedConn struct {
	libnet.Conn
	local, remote peer.ID
	addr          ma.Multiaddr
}

func (c punchedConn) LocalPeer() peer.ID            { return c.local }
func (c punchedConn) RemotePeer() peer.ID           { return c.remote }
func (c punchedConn) RemoteMultiaddr() ma.Multiaddr { return c.addr }
func (c punchedConn) Stat() libnet.ConnStats        { return libnet.ConnStats{} }

// A direct connection after hole punching is named so; addresses name the rest.
func TestPathNames(t *testing.T) {
	n := newNode(t, loopback())
	bob, carol := newKey(t).PeerID(), newKey(t).PeerID()
	(*punchTracer)(n).Trace(&holepunch.Event{Remote: bob, Evt: &holepunch.EndHolePunchEvt{Success: true}})
	(*punchTracer)(n).Trace(&holepunch.Event{Remote: carol, Evt: &holepunch.EndHolePunchEvt{}})
	tests := []struct {
		name   string
		remote peer.ID
		addr   string
		want   network.Path
	}{
		{"punched", bob, "/ip4/1.2.3.4/udp/1/quic-v1", network.PathPunch},
		{"in the LAN no hole was needed", bob, "/ip4/192.168.1.2/udp/1/quic-v1", network.PathDirect},
		{"relayed before", bob, "/ip4/1.2.3.4/tcp/1/p2p/" + carol.String() + "/p2p-circuit", network.PathRelay},
		{"failed punch", carol, "/ip4/1.2.3.4/udp/1/quic-v1", network.PathDirect},
	}
	for _, tt := range tests {
		c := punchedConn{local: n.Local(), remote: tt.remote, addr: ma.StringCast(tt.addr)}
		if got := n.pathOf(c); got != tt.want {
			t.Errorf("%s: path %s, want %s", tt.name, got, tt.want)
		}
	}
	n.forgetPunch(n.host.Network(), punchedConn{remote: bob})
	if n.pathOf(punchedConn{local: n.Local(), remote: bob, addr: ma.StringCast("/ip4/1.2.3.4/udp/1/quic-v1")}) != network.PathDirect {
		t.Error("the punch is remembered after the connection is gone")
	}
	if pathRank(network.PathDirect) >= pathRank(network.PathRelay) || pathRank(network.PathRelay) >= pathRank(network.PathStar) {
		t.Error("paths aren't ranked best first")
	}
}

// What Config.Announce gives is announced when Readdress says so, not at libp2p's own
// time: ten changes would take that three quarters of a minute.
func TestReaddress(t *testing.T) {
	var port atomic.Int64
	cfg := loopback()
	cfg.Announce = func() []ma.Multiaddr {
		return []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/dns4/star.example/tcp/%d/wss", 1+port.Load()))}
	}
	n := newNode(t, cfg)
	sub, err := n.host.EventBus().Subscribe(new(evtAddrs))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for i := range 10 {
		port.Add(1)
		want := cfg.Announce()[0]
		n.Readdress()
		for !says(ctx, t, sub, want) {
			if ctx.Err() != nil {
				t.Fatalf("change %d was not announced: %v", i, n.host.Addrs())
			}
		}
	}
}

// says waits for one announcement of addresses, and looks for one of them.
func says(ctx context.Context, t *testing.T, sub event.Subscription, want ma.Multiaddr) bool {
	t.Helper()
	select {
	case e := <-sub.Out():
		return slices.ContainsFunc(e.(evtAddrs).Current, func(u event.UpdatedAddress) bool { return u.Address.Equal(want) })
	case <-ctx.Done():
		return false
	}
}
