package peer

import (
	"context"
	"sync"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Node has the peers of one node: they find each other here, and what a remote
// does wrong to one of them counts for all. It is safe for use by any number of
// goroutines. Its peers own all goroutines; Close waits for them.
type Node struct {
	// Static after construction.
	cfg   Config
	count counters
	guard *guard

	// Guarded by mu, which is never held while a Peer's is taken.
	mu      sync.Mutex
	peers   map[identity.PeerID]*Peer
	waiting map[identity.PeerID]map[*conversation]struct{} // by whom they want to reach
	closed  bool
}

// New makes a node without peers. It starts nothing.
func New(cfg Config) *Node {
	cfg = cfg.withDefaults()
	return &Node{cfg: cfg, guard: newGuard(cfg),
		peers:   make(map[identity.PeerID]*Peer),
		waiting: make(map[identity.PeerID]map[*conversation]struct{}),
	}
}

// Run waits until ctx ends and then closes the node.
func (n *Node) Run(ctx context.Context) error {
	<-ctx.Done()
	n.Close()
	return nil
}

// Close closes every peer and waits for all that they started. It is idempotent.
func (n *Node) Close() {
	n.mu.Lock()
	n.closed = true
	peers := make([]*Peer, 0, len(n.peers))
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	n.mu.Unlock()
	for _, p := range peers {
		p.Close()
	}
}

// Add makes the peer of net's key. Errors: CodePeerInUse while a peer of the key
// lives (of two at the same moment exactly one gets it), CodeClosed.
func (n *Node) Add(net network.Network) (*Peer, error) {
	id := net.Local()
	p := newPeer(n, net)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil, errPeerClosed
	}
	if _, taken := n.peers[id]; taken {
		n.mu.Unlock()
		return nil, identity.Errorf(identity.CodePeerInUse, "peer ID already in use (possible duplicate browser tab)")
	}
	n.peers[id] = p
	n.mu.Unlock()
	p.announce()
	n.reached(id)
	return p, nil
}

// Lookup gives the living peer of a key, nil where there is none.
func (n *Node) Lookup(id identity.PeerID) *Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers[id]
}

// Changed tells that something about a remote peer has changed: an address, a
// connection, its list of protocols. What waits for it tries again at once. It
// never blocks.
func (n *Node) Changed(id identity.PeerID) { n.poke(id, false) }

// reached tells that id is here, or has just reached us: an attempt to reach it
// that is still running is begun anew.
func (n *Node) reached(id identity.PeerID) { n.poke(id, true) }

func (n *Node) poke(id identity.PeerID, anew bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.waiting[id] {
		c.poke(anew)
	}
}

// watch lets c be poked; unwatch ends it.
func (n *Node) watch(c *conversation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	set := n.waiting[c.to]
	if set == nil {
		set = make(map[*conversation]struct{})
		n.waiting[c.to] = set
	}
	set[c] = struct{}{}
}

func (n *Node) unwatch(c *conversation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	set := n.waiting[c.to]
	delete(set, c)
	if len(set) == 0 {
		delete(n.waiting, c.to)
	}
}

// remove takes a closed peer out, if it is still the one of its key.
func (n *Node) remove(p *Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.peers[p.id] == p {
		delete(n.peers, p.id)
	}
}

func (n *Node) list() []*Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	peers := make([]*Peer, 0, len(n.peers))
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	return peers
}
