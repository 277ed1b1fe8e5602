package channel

import (
	"context"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire"
)

// leadsHere reports whether a peer id is this node's, or a page's of it.
func (n *Node) leadsHere(id identity.PeerID) bool {
	return id == n.cfg.Network.Local() || n.cfg.Own != nil && n.cfg.Own(id)
}

// dial is a connection that is being made; several callers may wait for it.
type dial struct {
	done chan struct{}
	link *link
	err  error
}

// connected gives the oldest live connection to a node that no better path has
// outrun; nil where there is none. It is called with the lock held.
func (n *Node) connected(node identity.PeerID) *link {
	var newest *link
	live := 0
	for _, l := range n.byPeer[node] {
		if l.conn.Err() != nil {
			continue
		}
		if !n.outrun(l) {
			return l
		}
		newest = l
		live++
	}
	if live > 1 { // the newest was made for its better path, and has none
		return newest
	}
	return nil
}

// outrun reports whether a connection runs over others although its node is
// reached directly by now: it goes on as it is, and new channels take another.
func (n *Node) outrun(l *link) bool {
	if n.cfg.Path == nil || l.remote == "" || l.path != network.PathRelay && l.path != network.PathStar {
		return false
	}
	now := n.cfg.Path(l.remote)
	return now == network.PathDirect || now == network.PathPunch
}

// connect gives a live connection to a node, or makes one.
func (n *Node) connect(ctx context.Context, node identity.PeerID) (*link, error) {
	n.mu.Lock()
	if l := n.connected(node); l != nil {
		n.mu.Unlock()
		return l, nil
	}
	d := n.dialing[node]
	if d == nil {
		d = &dial{done: make(chan struct{})}
		n.dialing[node] = d
		n.mu.Unlock()
		// The dial belongs to the node: who asked first may give up, others wait on.
		if !n.start(func(run context.Context) { n.dial(run, node, d) }) {
			n.mu.Lock()
			delete(n.dialing, node)
			n.mu.Unlock()
			d.err = ErrClosed
			close(d.done)
		}
	} else {
		n.mu.Unlock()
	}
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial makes a connection and then serves it.
func (n *Node) dial(ctx context.Context, node identity.PeerID, d *dial) {
	c, err := n.reach(ctx, node)
	var l *link
	if err == nil {
		if l, err = n.newLink(c); err != nil {
			_ = c.Stream.Close() // it is refused anyway
		}
	}
	n.mu.Lock()
	delete(n.dialing, node)
	if delete(n.failed, node); err != nil {
		n.noteFailed(node)
	}
	n.mu.Unlock()
	d.link, d.err = l, err
	close(d.done)
	if err == nil {
		err = n.serve(ctx, l)
		n.log.Debug("connection ended", "peer", node, "reason", err)
	}
}

// reach opens a stream to a node, or else asks Config.Dial.
func (n *Node) reach(ctx context.Context, node identity.PeerID) (Carrier, error) {
	opening, cancel := context.WithTimeout(ctx, conn.OpenTimeout)
	s, err := n.cfg.Network.Open(opening, node, Protocol, ProtocolPacked)
	cancel()
	if err == nil {
		return streamCarrier(s, encodingOf(s.Protocol()), true), nil
	}
	if n.cfg.Dial != nil {
		opening, cancel := context.WithTimeout(ctx, conn.OpenTimeout)
		defer cancel()
		c, other := n.cfg.Dial(opening, node)
		if other == nil {
			return c, nil
		}
		n.log.Debug("no other way to a node", "peer", node, "reason", other)
	}
	return Carrier{}, err
}

// failedFor is how long a node that could not be reached is left out where a
// relay leads to the agent.
const failedFor = 30 * time.Second

// noteFailed is called with the lock held.
func (n *Node) noteFailed(node identity.PeerID) {
	now := time.Now()
	for id, since := range n.failed {
		if now.Sub(since) >= failedFor {
			delete(n.failed, id)
		}
	}
	if len(n.failed) < n.limits.Connections {
		n.failed[node] = now
	}
}

func (n *Node) failedLately(node identity.PeerID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	since, ok := n.failed[node]
	return ok && time.Since(since) < failedFor
}

// briefLook is how long an agent is looked for to which only a relay of this
// node's led within failedFor. What is known of it by then counts, and upgrade
// looks for a direct path behind its back.
const briefLook = 100 * time.Millisecond

// noteDistant notes that nobody knew where an agent is and a relay led to it, or
// that this is no longer so.
func (n *Node) noteDistant(agent identity.AgentID, distant bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for a, since := range n.distant {
		if now.Sub(since) >= failedFor {
			delete(n.distant, a)
		}
	}
	if delete(n.distant, agent); distant && len(n.distant) < n.limits.Connections {
		n.distant[agent] = now
	}
}

func (n *Node) distantLately(agent identity.AgentID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	since, ok := n.distant[agent]
	return ok && time.Since(since) < failedFor
}

func encodingOf(p network.Protocol) wire.Encoding {
	if p == ProtocolPacked {
		return wire.Packed
	}
	return wire.Unpacked
}
