package channel

import (
	"sync/atomic"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/wire/mux"
)

// Metrics is a node's counters at one moment.
type Metrics struct {
	Connections Gauge // open
	Members     Gauge // agents times spaces
	Channels    int64 // open now; a channel between two agents of this node counts twice
	Opened      int64 // channels ever
	Unread      int64 // bytes received and not read by their agents

	App, System Traffic
	StallSecs   float64          // time senders waited for credit
	ErrorsIn    map[string]int64 // by code, that peers reported
	ErrorsOut   map[string]int64 // by code, reported to peers
	Refused     map[string]int64 // by limit
	Dropped     int64            // contents for channels that had ended

	Relay RelayMetrics
}

// Gauge is a value with a limit.
type Gauge struct {
	Current, Max int
	Refused      int64
}

// Traffic counts contents and their bytes.
type Traffic struct{ ContentsIn, ContentsOut, BytesIn, BytesOut int64 }

// RelayMetrics is what a node does as a relay.
type RelayMetrics struct {
	Contracts  Gauge
	Registered int // agents reached through this node
	Bridges    int
	Bytes      int64 // forwarded
	Buffer     int64 // what bridges may hold, bytes
	Refused    int64 // requests and bridges
	Using      int   // relays that lead to this node
}

// Metrics reads the counters.
func (n *Node) Metrics() Metrics {
	m := Metrics{
		Channels: n.metrics.Channels.Load(), Opened: n.metrics.Opened.Load(), Unread: n.metrics.Unread.Load(),
		App: n.traffic(conn.App), System: n.traffic(conn.System),
		StallSecs: float64(n.metrics.StallNanos.Load()) / 1e9, Dropped: n.metrics.Dropped.Load(),
		ErrorsIn: errorCounts(&n.metrics.ErrorsIn), ErrorsOut: errorCounts(&n.metrics.ErrorsOut),
		Refused: make(map[string]int64),
	}
	for _, r := range conn.Refusals() {
		m.Refused[r.String()] = n.metrics.Refused[r].Load()
	}
	if r := n.relaying(); r != nil {
		s := r.Stats()
		m.Relay = RelayMetrics{
			Contracts: Gauge{Current: s.Contracts, Max: s.MaxContracts}, Bridges: s.Bridges, Registered: s.Registered,
			Bytes: s.Bytes, Buffer: s.Buffer, Refused: s.Refused,
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.Refused["connections"], m.Refused["address"] = n.refused[0], n.refused[1]
	m.Connections = Gauge{Current: len(n.links), Max: n.limits.Connections, Refused: n.refused[0]}
	m.Members = Gauge{Current: n.members, Max: n.limits.Members, Refused: n.refused[2]}
	m.Relay.Using = len(n.relays)
	return m
}

func (n *Node) traffic(kind int) Traffic {
	return Traffic{
		ContentsIn: n.metrics.ContentsIn[kind].Load(), ContentsOut: n.metrics.ContentsOut[kind].Load(),
		BytesIn: n.metrics.BytesIn[kind].Load(), BytesOut: n.metrics.BytesOut[kind].Load(),
	}
}

func errorCounts(counts *[8]atomic.Int64) map[string]int64 {
	out := make(map[string]int64)
	for i := range counts {
		if v := counts[i].Load(); v > 0 {
			out[mux.Code(i).String()] = v
		}
	}
	return out
}
