package parley

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/parley-p2p/parley/admin"
	"github.com/parley-p2p/parley/channel"
)

// This file says what an operator sees of channels (docs/spec/channels.md §17).

func (n *Node) channelLimits() []admin.Limit {
	var out []admin.Limit
	for _, l := range n.channels.Limits() {
		unit := admin.Count
		if slices.Contains([]string{"channel.credit", "channel.unread", "channel.record", "channel.ids", "relay.buffer"}, l.Name) {
			unit = admin.Bytes
		}
		out = append(out, admin.Limit{Name: l.Name, Unit: unit, Current: l.Current, Max: l.Max, Refused: uint64(l.Refused)})
	}
	return out
}

// addChannelMetrics registers what channels and their relay count. docs/limits.md
// lists the metrics.
func (n *Node) addChannelMetrics(a *admin.Admin) error {
	read := func(samples func(m channel.Metrics) []admin.Sample) func() []admin.Sample {
		return func() []admin.Sample { return samples(n.channels.Metrics()) }
	}
	one := func(v func(m channel.Metrics) float64) func() []admin.Sample {
		return read(func(m channel.Metrics) []admin.Sample { return []admin.Sample{{Value: v(m)}} })
	}
	what, kinds := []string{"what"}, []string{"kind", "direction"}
	return errors.Join(
		a.Gauges("parley_channels", "Channels of agents, what is there now.", what, read(func(m channel.Metrics) []admin.Sample {
			return amounts(map[string]int{"connections": m.Connections.Current, "members": m.Members.Current, "open": int(m.Channels),
				"unread_bytes": int(m.Unread), "relays_used": m.Relay.Using})
		})),
		a.Counters("parley_channels_opened_total", "Channels ever opened; one between two agents of this node counts twice.", nil,
			one(func(m channel.Metrics) float64 { return float64(m.Opened) })),
		a.Counters("parley_channel_bytes_total", "Bytes of contents.", kinds,
			read(traffic(func(t channel.Traffic) (in, out int64) { return t.BytesIn, t.BytesOut }))),
		a.Counters("parley_channel_contents_total", "Contents.", kinds,
			read(traffic(func(t channel.Traffic) (in, out int64) { return t.ContentsIn, t.ContentsOut }))),
		a.Counters("parley_channel_stalled_seconds_total", "How long senders waited for credit, all together.", nil,
			one(func(m channel.Metrics) float64 { return m.StallSecs })),
		a.Counters("parley_channel_errors_total", "Errors of channels: told by peers (in), and to them (out).", []string{"code", "direction"},
			read(func(m channel.Metrics) (out []admin.Sample) {
				for code, count := range m.ErrorsIn {
					out = append(out, admin.Sample{Labels: []string{code, "in"}, Value: float64(count)})
				}
				for code, count := range m.ErrorsOut {
					out = append(out, admin.Sample{Labels: []string{code, "out"}, Value: float64(count)})
				}
				return out
			})),
		a.Gauges("parley_relay", "What this node does as a relay of channels.", what, read(func(m channel.Metrics) []admin.Sample {
			return amounts(map[string]int{"contracts": m.Relay.Contracts.Current, "agents": m.Relay.Registered, "bridges": m.Relay.Bridges,
				"buffer_bytes": int(m.Relay.Buffer)})
		})),
		a.Counters("parley_relay_bytes_total", "Bytes that this node forwarded as a relay of channels.", nil,
			one(func(m channel.Metrics) float64 { return float64(m.Relay.Bytes) })),
		a.Counters("parley_relay_refused_total", "Contracts and bridges that were refused.", nil,
			one(func(m channel.Metrics) float64 { return float64(m.Relay.Refused) })),
	)
}

// amounts makes samples of what is there, by its name.
func amounts(of map[string]int) (out []admin.Sample) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, admin.Sample{Labels: []string{name}, Value: float64(of[name])})
	}
	return out
}

// traffic makes samples by kind and direction.
func traffic(of func(t channel.Traffic) (in, out int64)) func(m channel.Metrics) []admin.Sample {
	return func(m channel.Metrics) (samples []admin.Sample) {
		for _, k := range []struct {
			kind string
			t    channel.Traffic
		}{{"app", m.App}, {"system", m.System}} {
			in, out := of(k.t)
			samples = append(samples, admin.Sample{Labels: []string{k.kind, "in"}, Value: float64(in)},
				admin.Sample{Labels: []string{k.kind, "out"}, Value: float64(out)})
		}
		return samples
	}
}

func (n *Node) channelsPanel() admin.Panel {
	return admin.Panel{ID: "channels", Title: "Channels", Help: "Of agents in spaces, by the connection that carries them.", Show: func() admin.Section {
		m := n.channels.Metrics()
		s := admin.Section{Facts: []admin.Fact{
			{Name: "open", Value: m.Channels, Unit: admin.Count, Trend: true},
			{Name: "agents in spaces", Value: m.Members.Current, Unit: admin.Count},
			{Name: "bytes out", Value: m.App.BytesOut + m.System.BytesOut, Unit: admin.Traffic, Trend: true},
			{Name: "bytes in", Value: m.App.BytesIn + m.System.BytesIn, Unit: admin.Traffic, Trend: true},
			{Name: "unread", Value: m.Unread, Unit: admin.Bytes},
		}}
		if n.cfg.Relay.Profile != "off" {
			s.Facts = append(s.Facts,
				admin.Fact{Name: "relayed for", Value: m.Relay.Contracts.Current, Unit: admin.Count},
				admin.Fact{Name: "bridges", Value: m.Relay.Bridges, Unit: admin.Count},
				admin.Fact{Name: "bytes relayed", Value: m.Relay.Bytes, Unit: admin.Traffic, Trend: true})
		}
		s.Table = n.connectionTable()
		return s
	}}
}

// connectionTable shows the connections that carry channels, the busiest first.
func (n *Node) connectionTable() *admin.Table {
	all := n.channels.List(mostListed)
	slices.SortStableFunc(all, func(a, b channel.ConnectionInfo) int {
		return cmp.Or(cmp.Compare(b.Channels, a.Channels), cmp.Compare(a.Node, b.Node))
	})
	t := &admin.Table{Empty: "No other node is connected for channels.", Columns: []admin.Column{
		{Name: "node", Unit: admin.Name}, {Name: "path", Unit: admin.State}, {Name: "channels", Unit: admin.Count},
		{Name: "agents", Unit: admin.Count}, {Name: "round trip", Unit: admin.Seconds}, {Name: "relay", Unit: ""},
	}}
	for _, c := range all {
		var rtt any
		if c.RTT > 0 {
			rtt = c.RTT
		}
		relay := ""
		if c.Contract {
			relay = "relayed by this node"
		} else if slices.Contains(n.channels.Relays(), c.Node) {
			relay = "relays for this node"
		}
		t.Rows = append(t.Rows, []any{c.Node.String(), string(c.Path), c.Channels, c.Agents, rtt, relay})
	}
	return t
}
