package host

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/network"
)

// Numbers of the roamer.
const (
	roamEvery  = time.Second     // between looks at the machine's addresses; one costs some 50 µs
	probeLimit = 4 * time.Second // for the answer
	maxProbes  = 16              // at once

	// slowProbe is probeLimit for a connection with somebody between. A newer one is
	// then most often just a better path, and what runs on the older one, as a channel
	// that stays there, may fill a slow line for longer than a few seconds.
	slowProbe = 30 * time.Second
)

// roamer ends connections that a change of network has killed, on either side of
// them, so that what waits on them goes on over others. By themselves TCP and QUIC
// notice after half a minute.
//
//	this machine lost the address that a connection comes from ── it is closed
//	a peer is here again, over another connection ── the older one is asked whether it lives
//	this machine's addresses changed at all ── who waits for a peer tries again
type roamer struct {
	node   *Node
	probes chan struct{} // capacity maxProbes

	mu   sync.Mutex
	from map[libnet.Conn]netip.Addr // direct connections, by the address of this machine
}

func newRoamer(n *Node) *roamer {
	return &roamer{node: n, probes: make(chan struct{}, maxProbes), from: make(map[libnet.Conn]netip.Addr)}
}

// watch makes the roamer see the connections of the node or of a page.
func (r *roamer) watch(on libnet.Network) {
	on.Notify(&libnet.NotifyBundle{ConnectedF: r.connected, DisconnectedF: func(_ libnet.Network, c libnet.Conn) {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.from, c)
	}})
}

// connected is called with each new connection. It doesn't block.
func (r *roamer) connected(on libnet.Network, c libnet.Conn) {
	if pathOfAddr(c.RemoteMultiaddr()) == network.PathDirect {
		if from := sourceOf(c); from.IsValid() && !from.IsLoopback() {
			r.mu.Lock()
			r.from[c] = from
			r.mu.Unlock()
		}
	}
	for _, old := range on.ConnsToPeer(c.RemotePeer()) {
		if old == c {
			continue
		}
		select {
		case r.probes <- struct{}{}:
			r.node.spawn(func() { r.probe(old, c, patience(old)); <-r.probes })
		default:
		}
	}
}

// sourceOf gives the address of this machine that a connection comes from. QUIC
// doesn't say, where its socket is bound to none: then the one that packets to the
// peer have.
func sourceOf(c libnet.Conn) netip.Addr {
	ip, err := manet.ToIP(c.LocalMultiaddr())
	if err == nil && ip.IsUnspecified() {
		var remote net.IP
		if remote, err = manet.ToIP(c.RemoteMultiaddr()); err != nil {
			return netip.Addr{}
		}
		var s *net.UDPConn
		if s, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: remote, Port: 9}); err != nil { // sends nothing
			return netip.Addr{}
		}
		ip = s.LocalAddr().(*net.UDPAddr).IP
		_ = s.Close()
	}
	addr, ok := netip.AddrFromSlice(ip)
	if err != nil || !ok {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// run looks at the machine's addresses until ctx ends.
func (r *roamer) run(ctx context.Context) {
	look := time.NewTicker(roamEvery)
	defer look.Stop()
	have := addressesHere()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		now := addressesHere()
		if maps.Equal(now, have) {
			continue
		}
		have = now
		r.moved(now)
	}
}

// addressesHere are the addresses of this machine's interfaces.
func addressesHere() map[netip.Addr]bool {
	out := make(map[netip.Addr]bool)
	all, _ := net.InterfaceAddrs() // none in doubt: then nothing is closed below
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return out
}

// moved closes what has lost its address, and has everybody try again who waits
// for a peer.
func (r *roamer) moved(now map[netip.Addr]bool) {
	if len(now) == 0 {
		return
	}
	var dead []libnet.Conn
	r.mu.Lock()
	for c, from := range r.from {
		if !now[from] {
			dead = append(dead, c)
		}
	}
	r.mu.Unlock()
	r.node.log.Info("the network has changed", "addresses", len(now), "connections lost", len(dead))
	for _, c := range dead {
		_ = c.Close()
	}
	if relays := r.node.relays.Load(); relays != nil {
		relays.retry()
	}
	if p := r.node.ports.Load(); p != nil {
		p.keeper.Look()
	}
	r.node.Readdress()
	for _, p := range r.node.livePages() {
		for _, id := range p.host.Peerstore().Peers() {
			p.watch.changed(id)
		}
	}
}

// probe closes the older of two connections if it gives no answer within limit while
// the newer one does: where neither answers, the peer or this machine is just slow.
func (r *roamer) probe(older, newer libnet.Conn, limit time.Duration) {
	ctx, cancel := context.WithTimeout(r.node.net.ctx, limit)
	defer cancel()
	alive := make(chan error, 1)
	go func() { alive <- pingOver(ctx, newer) }()
	err := pingOver(ctx, older)
	if errors.Is(err, libnet.ErrResourceLimitExceeded) { // it was not even asked
		err = nil
	}
	if <-alive == nil && err != nil && !older.IsClosed() {
		r.node.log.Debug("an older connection is dead", "peer", older.RemotePeer(), "address", older.RemoteMultiaddr(), "err", err)
		_ = older.Close()
	}
}

// patience is how long a connection may take to answer a probe.
func patience(c libnet.Conn) time.Duration {
	if pathOfAddr(c.RemoteMultiaddr()) == network.PathDirect {
		return probeLimit
	}
	return slowProbe
}

// pingOver sends a ping over this very connection. A peer that refuses it has
// answered too: it doesn't know the protocol, or has too many pings at the moment, as
// when several connections come at once and each is compared with the others.
func pingOver(ctx context.Context, c libnet.Conn) error {
	err := askOver(ctx, c)
	var refused *libnet.StreamError
	if isNotSupported(err) || errors.As(err, &refused) && refused.Remote {
		return nil
	}
	return err
}

func askOver(ctx context.Context, c libnet.Conn) error {
	raw, err := c.NewStream(libnet.WithAllowLimitedConn(ctx, "ping"))
	if err != nil {
		return err
	}
	defer func() { _ = raw.Reset() }()
	defer context.AfterFunc(ctx, func() { _ = raw.Reset() })()
	s, err := negotiate(ctx, raw, []protocol.ID{ping.ID})
	if err != nil {
		return err
	}
	var sent [ping.PingSize]byte
	_, _ = rand.Read(sent[:]) // never fails
	if _, err := s.Write(sent[:]); err != nil {
		return err
	}
	_, err = io.ReadFull(s, sent[:])
	return err
}

// spawn runs f in a goroutine that Close waits for, unless it has begun. f must end
// with the node's connections.
func (n *Node) spawn(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.background.Go(f)
	}
}
