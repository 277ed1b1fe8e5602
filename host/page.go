package host

import (
	"context"
	"slices"

	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/identity"
)

// Page is the network of one page: a libp2p peer with the page's own key. It is
// a network.Network; Close ends it.
type Page struct {
	*endpoint
	bare     *bareHost
	circuits *circuits
}

// maxVia bounds the addresses through the node that a page announces; identify
// carries about 4 KiB.
const (
	maxVia      = 8
	maxViaStars = 2 // of them on stars
)

// Page makes the bare host of a page with the given key; it takes some
// milliseconds and no round trip. Errors: CodePeerInUse while a page of that
// key lives here, CodeLimit over MaxPages, CodeClosed.
func (n *Node) Page(ctx context.Context, key identity.Key) (*Page, error) {
	if err := ctx.Err(); err != nil {
		return nil, identity.Errorf(identity.CodeCancelled, "make page: %w", err)
	}
	id := key.PeerID()
	if err := n.reserve(id); err != nil {
		return nil, err
	}
	defer n.making.Done()
	p, err := n.newPage(key)
	if err != nil {
		n.forget(id)
		return nil, identity.Errorf(identity.CodeInternal, "make page: %w", err)
	}
	n.mu.Lock()
	closed := n.closed
	if !closed {
		n.pages[id] = p
	}
	n.mu.Unlock()
	if closed {
		_ = p.Close()
		return nil, errClosed
	}
	n.changed(id)
	return p, nil
}

// reserve takes the id's place, so that of two calls with one key exactly one
// succeeds.
func (n *Node) reserve(id peer.ID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch _, taken := n.pages[id]; {
	case n.closed:
		return errClosed
	case taken || id == n.host.ID():
		return &identity.Error{Code: identity.CodePeerInUse, Text: "peer ID already in use"}
	case len(n.pages) >= n.cfg.MaxPages:
		return identity.Errorf(identity.CodeLimit, "the node has %d pages, limit %d", len(n.pages), n.cfg.MaxPages)
	}
	n.pages[id] = nil
	n.making.Add(1)
	return nil
}

func (n *Node) forget(id peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pages, id)
}

// changed tells everybody on the node that something about id changed.
func (n *Node) changed(id peer.ID) {
	n.net.watch.changed(id)
	for _, p := range n.livePages() {
		p.watch.changed(id)
	}
}

func (n *Node) newPage(key identity.Key) (*Page, error) {
	p := &Page{circuits: newCircuits(n, key.PeerID())}
	bare, err := newBareHost(key, bareParts{
		limits: n.limits, gater: n.gater, userAgent: n.cfg.UserAgent,
		listen: n.pageListen, circuits: p.circuits, announce: n.announce, names: n.names,
	})
	if err != nil {
		return nil, err
	}
	p.bare = bare
	if p.endpoint, err = newEndpoint(n, bare); err != nil {
		_ = bare.Close()
		return nil, err
	}
	n.roam.watch(bare.swarm)
	bare.swarm.Notify(&libnet.NotifyBundle{ConnectedF: func(_ libnet.Network, c libnet.Conn) { n.moveCircuit(c) }})
	return p, nil
}

// announce gives the addresses of a page: its own, and through the node.
func (n *Node) announce(own []ma.Multiaddr) []ma.Multiaddr {
	return append(slices.Clip(own), n.via()...)
}

// via are the node's best addresses, continued to its pages. Those through a
// foreign relay come late: only parley can dial a circuit within a circuit. Two on
// stars have a place in any case: where they are needed, nothing else helps.
func (n *Node) via() []ma.Multiaddr {
	var addrs, stars []ma.Multiaddr
	for _, a := range n.host.Addrs() {
		if isStar(a) {
			stars = append(stars, a)
		} else {
			addrs = append(addrs, a)
		}
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return viaRank(a) - viaRank(b) })
	stars = stars[:min(len(stars), maxViaStars)]
	addrs = append(addrs[:min(len(addrs), maxVia-len(stars))], stars...)
	for i, a := range addrs {
		addrs[i] = a.Encapsulate(n.base)
	}
	return addrs
}

// viaRank puts public addresses first, then those of the LAN, then loopback;
// TCP and QUIC before the rest.
func viaRank(a ma.Multiaddr) int {
	rank := localRank(a)
	switch {
	case isCircuit(a):
		rank += 30
	case manet.IsPublicAddr(a):
	case manet.IsIPLoopback(a):
		rank += 20
	default:
		rank += 10
	}
	return rank
}

// Addrs are the page's addresses, each ending in /p2p/<id>: its own sockets and
// through its node.
func (p *Page) Addrs() []ma.Multiaddr {
	own := ma.StringCast("/p2p/" + p.host.ID().String())
	var out []ma.Multiaddr
	for _, a := range p.bare.Addrs() {
		out = append(out, a.Encapsulate(own))
	}
	return out
}

// Libp2p is the page's bare host, for what needs one: a GossipSub of its own
// (p2p.router = "page").
func (p *Page) Libp2p() libhost.Host { return p.bare }

// Conns is the number of open connections.
func (p *Page) Conns() int { return len(p.swarm.Conns()) }

// Close ends the page: its streams are reset, its handlers' contexts end, and
// when it returns nothing of it is left. The id is free at once.
func (p *Page) Close() error {
	p.node.mu.Lock()
	if p.node.pages[p.Local()] == p {
		delete(p.node.pages, p.Local())
	}
	p.node.mu.Unlock()
	p.stop()
	err := p.bare.Close()
	p.wait()
	p.node.changed(p.Local())
	return err
}
