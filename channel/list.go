package channel

import (
	"math"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire"
)

// ConnectionInfo is a connection to another node, for people to look at.
type ConnectionInfo struct {
	Node     identity.PeerID // empty where the carrier does not tell
	Path     network.Path
	Dialer   bool          // this node opened it
	Channels int           // open on it
	Agents   int           // that proved themselves on it
	RTT      time.Duration // 0 when not known
	Document bool          // the other end knows none of parley's additions
	Contract bool          // this node relays for the other
}

// List gives up to most connections to other nodes, in no order.
func (n *Node) List(most int) []ConnectionInfo {
	n.mu.Lock()
	r := n.relay
	links := make([]*link, 0, min(len(n.links), most))
	out := make([]ConnectionInfo, 0, cap(links))
	for l := range n.links {
		if len(out) == most {
			break
		}
		links = append(links, l)
		out = append(out, ConnectionInfo{
			Node: l.leads, Path: l.path, Dialer: l.conn.Config().Dialer, Channels: l.conn.Streams(), Agents: len(l.proven),
			RTT: l.conn.RTT(), Document: l.conn.DocumentOnly(),
		})
	}
	n.mu.Unlock()
	for i, l := range links {
		out[i].Contract = r != nil && r.Holds(l)
	}
	return out
}

// LimitUse is a limit as it stands: the highest use of it now, the limit itself, and
// how often it said no. Current is NaN where only refusals are known.
type LimitUse struct {
	Name         string
	Current, Max float64
	Refused      int64
}

// Limits lists the limits of docs/spec/channels.md §9, and others that have a use
// worth watching (docs/limits.md). Sizes are in bytes, times in seconds.
func (n *Node) Limits() []LimitUse {
	refused := func(r conn.Refusal) int64 { return n.metrics.Refused[r].Load() }
	unknown := math.NaN()
	var relayed []LimitUse
	if r := n.relaying(); r != nil {
		s := r.Stats()
		relayed = []LimitUse{
			{"relay.contracts", float64(s.Contracts), float64(s.MaxContracts), s.Refused},
			{"relay.buffer", float64(s.Buffer), float64(s.MaxBuffer), s.Full},
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	address, channels := 0, 0
	for _, count := range n.addresses {
		address = max(address, count)
	}
	for l := range n.links {
		channels = max(channels, l.conn.Streams())
	}
	out := []LimitUse{
		{"channel.connections", float64(len(n.links)), float64(n.limits.Connections), n.refused[0]},
		{"channel.perAddress", float64(address), float64(n.limits.PerAddress), n.refused[1]},
		{"channel.members", float64(n.members), float64(n.limits.Members), n.refused[2]},
		{"channel.channels", float64(channels), float64(n.conns.Channels), refused(conn.RefusedChannels)},
		{"channel.createRate", unknown, n.conns.CreateRate, refused(conn.RefusedCreates)},
		{"channel.credit", unknown, conn.MaxCredit, refused(conn.RefusedCredit)},
		{"channel.unread", unknown, float64(n.conns.Unread), refused(conn.RefusedUnread)},
		{"channel.errorRate", unknown, n.conns.ErrorRate, refused(conn.RefusedErrors)},
		{"channel.record", unknown, wire.MaxRecord, refused(conn.RefusedRecord)},
		{"channel.ids", unknown, conn.MaxIDSize, refused(conn.RefusedIDs)},
		{"channel.onlyHello", unknown, n.conns.OnlyHello.Seconds(), refused(conn.RefusedHello)},
		{"channel.noChannels", unknown, n.conns.NoChannels.Seconds(), refused(conn.RefusedUnused)},
	}
	return append(out, relayed...)
}
