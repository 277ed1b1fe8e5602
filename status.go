package parley

import (
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/parley-p2p/parley/admin"
)

// makeAdmin fills the dashboard, status.json and the metrics with what the
// parts of the node tell of themselves.
func (n *Node) makeAdmin() error {
	n.admin = admin.New(admin.Config{
		Version: n.cfg.version(), Site: n.siteName(), Peer: n.ID().String(),
		Ready: n.serving.Load, Log: n.cfg.Log,
	})
	n.admin.Add(admin.AddressesPanel(n.httpAddresses, n.p2pAddresses))
	n.admin.Add(admin.PeersPanel(n.peersNow))
	n.admin.Add(admin.DropsPanel(n.drops))
	parts := []struct {
		id, title string
		stats     func() any
	}{
		{"pages", "Pages", func() any { return n.gateway.Stats() }},
		{"messages", "Messages", func() any { return n.peers.Stats() }},
		{"topics", "Topics", func() any { return n.topics.Stats() }},
	}
	errs := []error{n.admin.Drops(n.drops)}
	for _, p := range parts {
		n.admin.Add(admin.Panel{ID: p.id, Title: p.title, Show: func() admin.Section { return admin.Section{Facts: facts(p.stats())} }})
		errs = append(errs,
			n.admin.Counters("parley_"+p.id+"_total", p.title+": what was counted since the start.", []string{"what"},
				func() []admin.Sample { return samples(p.stats(), true) }),
			n.admin.Gauges("parley_"+p.id, p.title+": what is there now.", []string{"what"},
				func() []admin.Sample { return samples(p.stats(), false) }))
	}
	return errors.Join(errs...)
}

func (n *Node) httpAddresses() (out []string) {
	for _, l := range n.sockets {
		out = append(out, l.Addr().String())
	}
	return out
}

func (n *Node) p2pAddresses() (out []string) {
	for _, a := range n.host.Addrs() {
		out = append(out, a.String())
	}
	return out
}

// peersNow are the peers that the node itself is connected to, its own pages
// left out.
func (n *Node) peersNow() (out []admin.Peer) {
	h := n.host.Libp2p()
	for _, id := range h.Network().Peers() {
		if n.backend.get(id) != nil {
			continue
		}
		path := n.host.Path(id)
		p := admin.Peer{ID: id.String(), Path: string(path.Path), Address: path.Address,
			RTT: time.Duration(path.RTT * float64(time.Millisecond))}
		if agent, err := h.Peerstore().Get(id, "AgentVersion"); err == nil {
			p.Agent, _ = agent.(string)
		}
		for _, c := range h.Network().ConnsToPeer(id) {
			p.Streams += len(c.GetStreams())
		}
		out = append(out, p)
	}
	return out
}

// drops are what was lost on purpose, over all parts.
func (n *Node) drops() (out []admin.Drop) {
	for reason, count := range n.topics.Stats().Dropped {
		out = append(out, admin.Drop{What: "publication", Reason: reason, Count: count})
	}
	g, m := n.gateway.Stats(), n.peers.Stats()
	return append(out,
		admin.Drop{What: "publication", Reason: "page too slow", Count: g.PublicationsLost},
		admin.Drop{What: "frame", Reason: "malformed", Count: g.Malformed},
		admin.Drop{What: "stream", Reason: "bad frame", Count: m.BadFrames},
		admin.Drop{What: "stream", Reason: "refused", Count: m.RefusedStreams},
	)
}

// A snapshot of a part is a struct of numbers, whose ints are as of now and
// whose uint64s only grow; maps of uint64 are counts by reason.

func facts(stats any) (out []admin.Fact) {
	v := reflect.ValueOf(stats)
	for i := range v.NumField() {
		f := admin.Fact{Name: words(v.Type().Field(i).Name), Value: v.Field(i).Interface(), Unit: admin.Count}
		switch v.Field(i).Kind() {
		case reflect.Uint64:
			f.Unit, f.Trend = admin.Total, true
		case reflect.Map:
			continue // the panel of what was dropped has them
		}
		if strings.HasSuffix(f.Name, "bytes") {
			f.Unit = admin.Bytes
		}
		out = append(out, f)
	}
	return out
}

func samples(stats any, grows bool) (out []admin.Sample) {
	v := reflect.ValueOf(stats)
	for i := range v.NumField() {
		name := strings.ReplaceAll(words(v.Type().Field(i).Name), " ", "_")
		switch f := v.Field(i); {
		case f.Kind() == reflect.Uint64 && grows:
			out = append(out, admin.Sample{Labels: []string{name}, Value: float64(f.Uint())})
		case f.Kind() == reflect.Int && !grows:
			out = append(out, admin.Sample{Labels: []string{name}, Value: float64(f.Int())})
		}
	}
	return out
}

// words makes "queued bytes" of QueuedBytes.
func words(field string) string {
	var b strings.Builder
	for i, r := range field {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}
