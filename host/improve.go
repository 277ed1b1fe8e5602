package host

import (
	"context"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/identity"
)

// improveTimeout bounds one search for a better path.
const improveTimeout = 30 * time.Second

// Improve looks for a path to a peer without anybody between, beside the one there
// is; new streams use it then. It never blocks and tells nobody how it ended: the
// old path still works. Nothing happens while a search for the peer is under way.
func (n *Node) Improve(id identity.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.improving[id] {
		return
	}
	if n.improving == nil {
		n.improving = make(map[identity.PeerID]bool)
	}
	n.improving[id] = true
	n.background.Go(func() {
		n.improve(id)
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.improving, id)
	})
}

func (n *Node) improve(id identity.PeerID) {
	ctx, cancel := context.WithTimeout(n.net.ctx, improveTimeout)
	defer cancel()
	_, err := n.net.swarm.DialPeer(libnet.WithForceDirectDial(ctx, "a better path"), id)
	n.log.Debug("looked for a better path", "peer", id, "err", err)
}
