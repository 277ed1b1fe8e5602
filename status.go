package parley

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	libnet "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/admin"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/topic"
)

// This file says what an operator sees of each part: panels and metrics.

// mostListed bounds what is collected for one look: a little more than is shown.
const mostListed = 2 * admin.MaxRows

func (n *Node) makeAdmin() error {
	a := admin.New(admin.Config{
		Version: n.cfg.version(), Site: n.siteName(), Peer: n.ID().String(), Ready: n.serving.Load, Log: n.log,
	})
	a.Add(n.trafficPanel())
	a.Add(admin.SessionsPanel(n.sessionRows))
	a.Add(n.sitesPanel())
	a.Add(admin.PeersPanel(n.peerRows))
	a.Add(admin.ConversationsPanel(n.conversationRows))
	a.Add(admin.TopicsPanel(n.topicRows))
	a.Add(admin.LimitsPanel(n.limits))
	a.Add(admin.DropsPanel(n.drops))
	a.Add(n.channelsPanel())
	a.Add(n.networkPanel())
	a.Add(admin.StarsPanel(n.starRows))
	a.Add(admin.AddressesPanel(n.httpAddresses, n.p2pAddresses, n.outsideFacts))
	n.admin = a
	return errors.Join(a.Limits(n.limits), a.Drops(n.drops), n.addMetrics(a), n.addChannelMetrics(a))
}

// addMetrics registers what each part counts, and what the hosts use.
// docs/limits.md lists the metrics.
func (n *Node) addMetrics(a *admin.Admin) error {
	one := func(v func(libnet.ScopeStat) int) func() []admin.Sample {
		return func() []admin.Sample { return []admin.Sample{{Value: float64(v(n.netStat()))}} }
	}
	errs := []error{
		a.Gauges("parley_connections", "libp2p connections, those of pages included.", nil, one(func(s libnet.ScopeStat) int { return s.NumConnsInbound + s.NumConnsOutbound })),
		a.Gauges("parley_streams", "libp2p streams, those of pages included.", nil, one(func(s libnet.ScopeStat) int { return s.NumStreamsInbound + s.NumStreamsOutbound })),
	}
	for _, p := range []struct {
		name  string
		stats func() any
	}{
		{"pages", func() any { return n.gateway.Stats() }},
		{"messages", func() any { return n.peers.Stats() }},
		{"topics", func() any { return n.topics.Stats() }},
		{"stars", func() any { return n.starStats() }},
	} {
		errs = append(errs,
			a.Counters("parley_"+p.name+"_total", "What was counted since the start.", []string{"what"},
				func() []admin.Sample { return samples(p.stats(), true) }),
			a.Gauges("parley_"+p.name, "What is there now.", []string{"what"},
				func() []admin.Sample { return samples(p.stats(), false) }))
	}
	return errors.Join(errs...)
}

// samples makes a metric of a part's snapshot: a struct of numbers, whose ints
// are as of now and whose uint64s only grow.
func samples(stats any, grows bool) (out []admin.Sample) {
	v := reflect.ValueOf(stats)
	for i := range v.NumField() {
		name := words(v.Type().Field(i).Name)
		switch f := v.Field(i); {
		case f.Kind() == reflect.Uint64 && grows:
			out = append(out, admin.Sample{Labels: []string{name}, Value: float64(f.Uint())})
		case f.Kind() == reflect.Int && !grows:
			out = append(out, admin.Sample{Labels: []string{name}, Value: float64(f.Int())})
		}
	}
	return out
}

// words makes "queued_bytes" of QueuedBytes.
func words(field string) string {
	var b strings.Builder
	for i, r := range field {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func (n *Node) trafficPanel() admin.Panel {
	return admin.Panel{ID: "traffic", Title: "Messages", Help: "Of all pages of this node.", Show: func() admin.Section {
		m, p := n.peers.Stats(), n.topics.Stats()
		return admin.Section{Facts: []admin.Fact{
			{Name: "messages out", Value: m.Sent, Unit: admin.Total, Trend: true},
			{Name: "messages in", Value: m.Received, Unit: admin.Total, Trend: true},
			{Name: "publications in", Value: p.Delivered, Unit: admin.Total, Trend: true},
			{Name: "unsettled", Value: m.QueuedBytes, Unit: admin.Bytes},
			{Name: "given up", Value: m.Timeouts, Unit: admin.Count},
		}}
	}}
}

// sitesPanel lists the other sites that may use the node, and those that tried.
func (n *Node) sitesPanel() admin.Panel {
	return admin.Panel{ID: "sites", Title: "Other sites", Help: "Pages of other sites need the person's permission; it is given and taken back at /_parley/consent.", Show: func() admin.Section {
		t := &admin.Table{Empty: "No other site asked.", Columns: []admin.Column{
			{Name: "site", Unit: admin.Whole}, {Name: "permission", Unit: admin.State}, {Name: "protocols"}, {Name: "topics"},
			{Name: "storage", Unit: admin.Bytes}, {Name: "since", Unit: admin.Time}, {Name: "tries in vain", Unit: admin.Count},
		}}
		for _, a := range n.consent.Answers() {
			said := "refused"
			if a.Allowed {
				said = "allowed"
			}
			t.Rows = append(t.Rows, []any{a.Origin, said, strings.Join(a.Scope.Protocols, ", "), strings.Join(a.Scope.Topics, ", "), a.Scope.Storage, a.Since, nil})
		}
		for _, r := range n.consent.Refusals() {
			t.Rows = append(t.Rows, []any{r.Origin, "none", "", "", nil, r.Last, r.Tries})
		}
		return admin.Section{Table: t}
	}}
}

func (n *Node) networkPanel() admin.Panel {
	return admin.Panel{ID: "network", Title: "Network", Help: "What the libp2p hosts of the node and its pages use together.", Show: func() admin.Section {
		s := n.netStat()
		return admin.Section{Facts: []admin.Fact{
			{Name: "connections", Value: s.NumConnsInbound + s.NumConnsOutbound, Unit: admin.Count, Trend: true},
			{Name: "streams", Value: s.NumStreamsInbound + s.NumStreamsOutbound, Unit: admin.Count, Trend: true},
			{Name: "buffers", Value: s.Memory, Unit: admin.Bytes},
			{Name: "descriptors", Value: s.NumFD, Unit: admin.Count},
		}}
	}}
}

// netStat asks the resource manager that the node shares with its pages.
func (n *Node) netStat() (stat libnet.ScopeStat) {
	// The error is a manager that limits nothing, and so counts nothing.
	_ = n.host.Libp2p().Network().ResourceManager().ViewSystem(func(s libnet.ResourceScope) error {
		stat = s.Stat()
		return nil
	})
	return stat
}

func (n *Node) sessionRows() []admin.Session {
	var rows []admin.Session
	for _, s := range n.gateway.List(mostListed) {
		row := admin.Session{
			ID: strconv.FormatUint(s.Number, 10), Version: "v" + strconv.Itoa(s.Version), Origin: s.Origin, Connected: s.Connected,
			Since: s.Since, Protocols: s.Protocols, Topics: s.Topics, Pending: s.Pending, Queued: int64(s.Queued),
		}
		if s.Peer != "" {
			row.Peer = s.Peer.String()
		}
		rows = append(rows, row)
	}
	return rows
}

func (n *Node) conversationRows() []admin.Conversation {
	var rows []admin.Conversation
	for _, c := range n.peers.List(mostListed) {
		rows = append(rows, admin.Conversation{
			From: c.From.String(), To: c.To.String(), Protocol: string(c.Protocol), Path: string(c.Path),
			Queued: int64(c.Queued), Waiting: c.Waiting, OnTheWay: c.OnTheWay, Error: c.Failed,
		})
	}
	return rows
}

func (n *Node) topicRows() []admin.Topic {
	var rows []admin.Topic
	for _, r := range n.topics.List(mostListed) {
		rows = append(rows, admin.Topic{Name: r.Name, Local: r.Locals, Nodes: r.Nodes, Coming: r.Coming})
	}
	return rows
}

// peerRows are the peers that the node itself is connected to, and those that
// its pages talk to.
func (n *Node) peerRows() []admin.Peer {
	rows := map[identity.PeerID]admin.Peer{}
	h := n.host.Libp2p()
	for _, id := range h.Network().Peers() {
		if len(rows) == mostListed {
			break
		}
		info := n.host.Path(id)
		if info.Path == network.PathLocal { // a page of this node: it is among the pages
			continue
		}
		row := admin.Peer{
			ID: id.String(), Path: string(info.Path), Address: info.Address,
			RTT: time.Duration(info.RTT * float64(time.Millisecond)),
		}
		if agent, err := h.Peerstore().Get(id, "AgentVersion"); err == nil {
			row.Agent, _ = agent.(string)
		}
		for _, c := range h.Network().ConnsToPeer(id) {
			row.Streams += c.Stat().NumStreams
		}
		rows[id] = row
	}
	for _, c := range n.peers.List(mostListed) {
		if _, there := rows[c.To]; there || c.Path == network.PathLocal || len(rows) == mostListed {
			continue
		}
		rows[c.To] = admin.Peer{ID: c.To.String(), Path: string(c.Path), Error: c.Failed}
	}
	return slices.Collect(maps.Values(rows))
}

// limits are those of docs/limits.md that have a use worth watching.
func (n *Node) limits() []admin.Limit {
	g, m, t := n.gateway.Stats(), n.peers.Stats(), n.topics.Stats()
	var queued, outbox int
	for _, s := range n.gateway.List(mostListed) {
		queued = max(queued, s.Queued)
	}
	for _, c := range n.peers.List(mostListed) {
		outbox = max(outbox, c.Queued)
	}
	return append(n.channelLimits(), []admin.Limit{
		{Name: "limits.sessions", Unit: admin.Count, Current: float64(g.Sessions), Max: float64(n.cfg.Limits.Sessions), Refused: g.Refused},
		{Name: "limits.outbox", Unit: admin.Bytes, Current: float64(outbox), Max: float64(n.cfg.Limits.Outbox), Refused: m.QueueFull},
		{Name: "gateway.sessionBuffer", Unit: admin.Bytes, Current: float64(queued), Max: float64(n.cfg.Gateway.SessionBuffer), Refused: g.Flooded},
		{Name: "topics", Unit: admin.Count, Current: float64(t.Topics), Max: maxTopics},
		{Name: "pageKeys", Unit: admin.Count, Current: float64(n.data.PageKeys()), Max: maxPageKeys},
	}...)
}

// maxTopics is topic.Config's default, which the root doesn't change.
const maxTopics = 10_000

// drops are what was lost on purpose, or not taken.
func (n *Node) drops() []admin.Drop {
	g, m := n.gateway.Stats(), n.peers.Stats()
	list := []admin.Drop{
		{What: "publication", Reason: "page too slow", Count: g.PublicationsLost},
		{What: "publication", Reason: "no frame can hold it", Count: g.BadContent},
		{What: "frame of a page", Reason: "can't be read", Count: g.Malformed},
		{What: "frame of a page", Reason: "unknown kind", Count: g.UnknownFrames},
		{What: "message", Reason: "protocol stopped", Count: g.Unwanted},
		{What: "message", Reason: "failed, and nobody asked", Count: g.SendsFailed},
		{What: "stream", Reason: "can't be read", Count: m.BadFrames},
		{What: "stream", Reason: "too many, or too fast", Count: m.RefusedStreams},
		{What: "peer", Reason: "refused for a while", Count: m.RefusedRemotes},
	}
	d := n.found.Stats()
	list = append(list, admin.Drop{What: "question or answer about pages", Reason: "can't be read, or false", Count: d.BadPages},
		admin.Drop{What: "question or answer about pages", Reason: "peer refused for a while", Count: d.Unheard})
	c := n.channels.Metrics()
	list = append(list, admin.Drop{What: "content of a channel", Reason: "the channel had ended", Count: uint64(c.Dropped)},
		admin.Drop{What: "connection of channels", Reason: "can't be read", Count: uint64(c.Refused["record"])})
	var more []admin.Drop
	for reason, count := range n.topics.Stats().Dropped {
		what := "publication"
		if topic.OfPresence(reason) {
			what = "presence"
		}
		more = append(more, admin.Drop{What: what, Reason: reason, Count: count})
	}
	slices.SortFunc(more, func(a, b admin.Drop) int { return cmp.Compare(a.Reason, b.Reason) })
	return append(list, more...)
}

func (n *Node) httpAddresses() []string {
	var list []string
	for _, l := range n.sockets {
		list = append(list, l.Addr().String())
	}
	return list
}

// outsideFacts say whether others find a way in, and what the router does for it.
func (n *Node) outsideFacts() []admin.Fact {
	reached := map[libnet.Reachability]string{libnet.ReachabilityPublic: "yes", libnet.ReachabilityPrivate: "no"}
	router, ports := n.host.Router()
	if router != "" {
		router += ": " + strings.Join(ports, ", ")
	}
	return []admin.Fact{
		{Name: "reached from outside", Value: cmp.Or(reached[n.host.Reachable()], "not known yet")},
		{Name: "ports by the router", Value: cmp.Or(router, "none")},
	}
}

func (n *Node) p2pAddresses() []string {
	var list []string
	for _, a := range n.host.Addrs() {
		list = append(list, a.String())
	}
	return list
}
