package parley

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/parley-p2p/parley/discover"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/peer"
)

// backend gives sessions their peers. A page's peer is a bare libp2p host, its
// conversations, and its part in the node's topics:
//
//	session ─ holder ─┬─ peer.Member ── peer.Peer ── host.Page
//	                  └─ topic.Page ─── the node's one router
//
// It ends with the last session that holds it.
type backend struct {
	node  *Node
	rooms *rendezvous

	stopping atomic.Bool // nothing more is taken on its way

	mu     sync.Mutex
	peers  map[identity.PeerID]*pagePeer
	ending map[identity.PeerID]chan struct{} // closed when the last peer of a key is gone
	own    map[*Peer]struct{}                // of this program
	closed bool
}

// pagePeer is one page's peer and how many sessions hold it.
type pagePeer struct {
	key    identity.Key
	spaces *pageSpaces
	after  <-chan struct{} // an older peer of this key that still ends; nil for none
	built  chan struct{}   // closed when page and talk, or err, are there

	// Static once built is closed.
	page   *host.Page
	talk   *peer.Peer
	ready  *discover.ReadyList // the peers it keeps connections to
	forget func()              // ends being found through this node
	refuse func()              // ends taking connections of channels for it
	err    error

	holders int // guarded by backend.mu
}

func newBackend(n *Node) *backend {
	return &backend{node: n, rooms: newRendezvous(n.meetInDHT), peers: make(map[identity.PeerID]*pagePeer), ending: make(map[identity.PeerID]chan struct{}),
		own: make(map[*Peer]struct{})}
}

// Join implements gateway.Backend.
func (b *backend) Join(ctx context.Context, req gateway.JoinRequest, page gateway.Page) (gateway.Peer, error) {
	pp, mine, err := b.take(req)
	if err != nil {
		return nil, err
	}
	if mine {
		pp.err = b.build(ctx, pp)
		close(pp.built)
	}
	select {
	case <-pp.built:
	case <-ctx.Done():
		b.release(pp)
		return nil, identity.Errorf(identity.CodeCancelled, "peer was not made: %w", ctx.Err())
	}
	if pp.err != nil {
		b.release(pp)
		return nil, pp.err
	}
	return newHolder(b, pp, page), nil
}

// take gives the living peer of a key, or a new one that the caller must build.
func (b *backend) take(req gateway.JoinRequest) (pp *pagePeer, mine bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, false, errStops
	}
	id := req.Key.PeerID()
	if id == b.node.host.Local() {
		return nil, false, identity.Errorf(identity.CodePeerInUse, "this is the node's own key")
	}
	if pp = b.peers[id]; pp == nil {
		pp = &pagePeer{key: req.Key, spaces: newPageSpaces(b.node, req.Key), after: b.ending[id], built: make(chan struct{}), holders: 1}
		b.peers[id] = pp
		return pp, true, nil
	}
	if !req.Share {
		return nil, false, identity.Errorf(identity.CodePeerInUse, "peer ID already in use (possible duplicate browser tab)")
	}
	pp.holders++
	return pp, false, nil
}

func (b *backend) build(ctx context.Context, pp *pagePeer) (err error) {
	if pp.after != nil {
		select {
		case <-pp.after:
		case <-ctx.Done():
			return identity.Errorf(identity.CodeCancelled, "peer was not made: %w", ctx.Err())
		}
	}
	if pp.page, err = b.node.host.Page(ctx, pp.key); err != nil {
		return err
	}
	if pp.talk, err = b.node.peers.Add(pp.page); err != nil {
		return errors.Join(err, pp.page.Close())
	}
	pp.ready = discover.NewReadyList(pp.page, nil)
	pp.forget = b.node.found.AddPage(pp.key, pp.page.Addrs)
	pp.refuse = b.node.channels.Accept(pp.page)
	return nil
}

// end closes what build made, from the page inward.
func (pp *pagePeer) end() {
	pp.forget()
	pp.refuse()
	pp.ready.Close()
	pp.talk.Close()
	_ = pp.page.Close() // what it reports is of sockets that are gone
}

// release gives up one hold; the last one ends the peer, and returns when
// nothing of it runs any more. A new peer of the same key can be asked for at
// once: it waits for the old one's end.
func (b *backend) release(pp *pagePeer) {
	id := pp.key.PeerID()
	b.mu.Lock()
	pp.holders--
	if pp.holders > 0 {
		b.mu.Unlock()
		return
	}
	gone := make(chan struct{})
	delete(b.peers, id)
	b.ending[id] = gone
	b.mu.Unlock()

	if <-pp.built; pp.err == nil {
		pp.end()
	}
	close(gone)
	b.mu.Lock()
	if b.ending[id] == gone {
		delete(b.ending, id)
	}
	b.mu.Unlock()
}

// get is the living peer with this id, or nil.
func (b *backend) get(id identity.PeerID) *pagePeer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[id]
}

// addresses are where a page of this node is reached, for what it tells of
// itself.
func (b *backend) addresses(id identity.PeerID) []string {
	pp := b.get(id)
	if pp == nil {
		return nil
	}
	select {
	case <-pp.built:
	default:
		return nil
	}
	if pp.err != nil {
		return nil
	}
	var out []string
	for _, a := range pp.page.Addrs() {
		out = append(out, a.String())
	}
	return out
}

// count is the number of living peers.
func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.peers)
}

// errStops is what a page gets that wants something of a node that stops.
var errStops = &identity.Error{Code: identity.CodeClosed, Text: "the node stops"}

// close refuses new peers from now on, and new messages of those there: what was
// accepted before has the time that is left for itself. They end with their
// sessions.
func (b *backend) close() {
	b.stopping.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// adopt makes the node's end close p too, and is false once the node stops.
func (b *backend) adopt(p *Peer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.own[p] = struct{}{}
	}
	return !b.closed
}

// disown forgets a peer that was closed.
func (b *backend) disown(p *Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.own, p)
}

// closeOwn closes the peers of this program. The backend is closed.
func (b *backend) closeOwn() {
	b.mu.Lock()
	own := slices.Collect(maps.Keys(b.own))
	b.mu.Unlock()
	for _, p := range own {
		_ = p.Close() // never fails
	}
}
