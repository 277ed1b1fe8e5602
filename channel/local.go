package channel

import (
	"context"
	"net"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire/mux"
)

// loop is the connection of a node with itself: channels between its own agents
// take the same path as all others, through memory (docs/spec/channels.md §5).
type loop struct{ near, far *link }

// loopback gives the near end of the node's loop and makes it at first use. It
// is called with the lock held.
func (n *Node) loopback() (*link, error) {
	if n.loop != nil && n.loop.near.conn.Err() == nil {
		return n.loop.near, nil
	}
	a, b := net.Pipe()
	n.loop = &loop{near: n.loopEnd(a, true), far: n.loopEnd(b, false)}
	return n.loop.near, nil
}

func (n *Node) loopEnd(c net.Conn, dialer bool) *link {
	l := &link{node: n, remote: n.cfg.Network.Local(), path: network.PathLocal}
	cfg := conn.Config{
		Dialer: dialer, Loopback: true, Features: mux.FeatureFlow | mux.FeatureProofs,
		Limits: n.conns, Metrics: &n.metrics, Buffers: &n.buffers,
	}
	if dialer {
		cfg.Nonce[0] = 1 // nothing binds to it; it only has to differ
	}
	l.conn = conn.New(c, cfg, l)
	ctx := n.ctx
	n.wg.Add(1)
	go func(ctx context.Context) {
		defer n.wg.Done()
		n.log.Debug("loopback ended", "reason", l.conn.Run(ctx))
	}(ctx)
	return l
}
