package parley

import (
	"context"
	"sync"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/peer"
	"github.com/parley-p2p/parley/topic"
)

// holder is one session's hold on a page's peer: its member in the
// conversations, its part in the topics. It implements gateway.Peer.
type holder struct {
	backend *backend
	pp      *pagePeer
	member  *peer.Member
	topics  *topic.Page
	unwatch func() // stops path news

	leave sync.Once

	mu    sync.Mutex
	rooms map[string]struct{} // topics it is in; nil once it has left
}

func newHolder(b *backend, pp *pagePeer, page gateway.Page) *holder {
	h := &holder{backend: b, pp: pp, rooms: make(map[string]struct{}),
		member: pp.talk.Join(page),
		topics: b.node.topics.Join(pp.key, page)}
	paths := pathWatch{node: b.node.host.Local(), page: pp.page, tell: page.PathChanged, last: make(map[identity.PeerID]network.Path)}
	h.unwatch = pp.page.Notify(paths.changed)
	return h
}

// Key implements gateway.Peer.
func (h *holder) Key() identity.Key { return h.pp.key }

// Start implements gateway.Peer.
func (h *holder) Start(p network.Protocol) error { return h.member.Start(p) }

// Stop implements gateway.Peer.
func (h *holder) Stop(p network.Protocol) error { return h.member.Stop(p) }

// Send implements gateway.Peer.
func (h *holder) Send(out network.Outgoing) (cancel func(), err error) {
	if h.backend.stopping.Load() {
		return nil, errStops
	}
	return h.member.Send(out)
}

// Subscribe implements gateway.Peer.
func (h *holder) Subscribe(ctx context.Context, topic string, state []byte) ([]network.Member, error) {
	members, err := h.topics.Subscribe(ctx, topic, state)
	if err == nil {
		h.attend(topic)
	}
	return members, err
}

// Unsubscribe implements gateway.Peer.
func (h *holder) Unsubscribe(topic string) error {
	h.mu.Lock()
	_, in := h.rooms[topic]
	delete(h.rooms, topic)
	h.mu.Unlock()
	if in {
		h.backend.rooms.exit(topic)
	}
	return h.topics.Unsubscribe(topic)
}

func (h *holder) attend(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, in := h.rooms[topic]; in || h.rooms == nil {
		return
	}
	h.rooms[topic] = struct{}{}
	h.backend.rooms.enter(topic)
}

// exitAll leaves every topic, for good.
func (h *holder) exitAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for topic := range h.rooms {
		h.backend.rooms.exit(topic)
	}
	h.rooms = nil
}

// Publish implements gateway.Peer.
func (h *holder) Publish(ctx context.Context, topic string, c network.Content) error {
	if h.backend.stopping.Load() {
		return errStops
	}
	return h.topics.Publish(ctx, topic, c)
}

// Members implements gateway.Peer.
func (h *holder) Members(topic string) []network.Member { return h.topics.Members(topic) }

// AddPeers implements gateway.Peer.
func (h *holder) AddPeers(ids []identity.PeerID, addresses []string) error {
	return h.pp.addPeers(ids, addresses)
}

// RemovePeers implements gateway.Peer.
func (h *holder) RemovePeers(ids []identity.PeerID) {
	for _, id := range ids {
		h.pp.ready.Remove(id)
	}
}

// Path implements gateway.Peer.
func (h *holder) Path(id identity.PeerID) gateway.PathInfo {
	if id == h.pp.key.PeerID() {
		return gateway.PathInfo{Peer: id, Path: network.PathSelf}
	}
	if h.backend.get(id) != nil {
		return gateway.PathInfo{Peer: id, Path: network.PathLocal}
	}
	return pathInfo(h.pp.page.Path(id))
}

// JoinSpace implements gateway.Peer.
func (h *holder) JoinSpace(ctx context.Context, name string) (gateway.Room, error) {
	return h.pp.spaces.join(ctx, name)
}

// Leave implements gateway.Peer.
func (h *holder) Leave() {
	h.leave.Do(func() {
		h.unwatch()
		h.exitAll()
		h.topics.Leave()
		h.member.Leave()
		h.backend.release(h.pp)
	})
}

// pathInfo says in the words of pages what the network layer knows.
func pathInfo(p host.PathInfo) gateway.PathInfo {
	out := gateway.PathInfo{Peer: p.Peer, Path: p.Path, Address: p.Address, RTT: p.RTT}
	for _, a := range p.Tried {
		out.Tried = append(out.Tried, gateway.PathAttempt{Path: a.Path, Error: a.Error})
	}
	return out
}

// pathWatch tells a page when a peer it is connected to is reached otherwise.
type pathWatch struct {
	node identity.PeerID // the page's own node: always there, never news
	page *host.Page
	tell func(gateway.PathInfo)

	last map[identity.PeerID]network.Path // owned by the notifying goroutine
}

// maxWatchedPaths bounds what a page's watch remembers; with more peers than
// that, some news is repeated.
const maxWatchedPaths = 4096

func (w *pathWatch) changed(id identity.PeerID) {
	if id == w.node {
		return
	}
	now := w.page.Path(id)
	before, known := w.last[id]
	if before == now.Path || !known && now.Path == network.PathNone {
		return
	}
	if now.Path == network.PathNone || len(w.last) >= maxWatchedPaths {
		delete(w.last, id)
	} else {
		w.last[id] = now.Path
	}
	w.tell(pathInfo(now))
}
