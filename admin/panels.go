package admin

import (
	"cmp"
	"runtime"
	"slices"
	"time"
)

// Session is a page's session (gateway).
type Session struct {
	ID        string // a short name, never the token that resumes it
	Peer      string
	Version   string // "v1" or "v2"
	Origin    string
	Connected bool // false while a lost socket has its grace
	Since     time.Time
	Protocols int
	Topics    int
	Pending   int   // requests and sends without an answer
	Queued    int64 // bytes that wait for the page
}

// SessionsPanel shows the pages that are connected, those with most waiting
// first.
func SessionsPanel(list func() []Session) Panel {
	return Panel{ID: "sessions", Title: "Pages", Help: "Every page has a session; a lost socket is kept for the grace.", Show: func() Section {
		all := list()
		slices.SortStableFunc(all, func(a, b Session) int { return cmp.Compare(b.Queued, a.Queued) })
		t := &Table{Empty: "No page is connected.", Columns: []Column{
			{"page", Name},
			{"peer", Name},
			{"protocol", ""},
			{"origin", Name},
			{"socket", State},
			{"since", Time},
			{"started", Count},
			{"topics", Count},
			{"pending", Count},
			{"queued", Bytes},
		}}
		for _, s := range all {
			socket := "connected"
			if !s.Connected {
				socket = "away"
			}
			t.Rows = append(t.Rows, []any{s.ID, s.Peer, s.Version, s.Origin, socket, s.Since, s.Protocols, s.Topics, s.Pending, s.Queued})
		}
		return Section{Table: t}
	}}
}

// Peer is another peer that this node is, or wants to be, connected to.
type Peer struct {
	ID      string
	Path    string // as pages see it: direct, punch, relay, star, local, none
	Address string
	RTT     time.Duration // 0: not known
	Agent   string        // what it says it runs
	Streams int
	Error   string // why there is no path
}

// PeersPanel shows who is reached, and how.
func PeersPanel(list func() []Peer) Panel {
	return Panel{ID: "peers", Title: "Peers", Help: "How each peer is reached: direct, punch (direct after hole punching), relay, star.", Show: func() Section {
		all := list()
		slices.SortStableFunc(all, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
		t := &Table{Empty: "No other peer is connected.", Columns: []Column{
			{"peer", Name},
			{"path", State},
			{"round trip", Seconds},
			{"address", Name},
			{"agent", ""},
			{"streams", Count},
			{"why not", ""},
		}}
		for _, p := range all {
			var rtt any
			if p.RTT > 0 {
				rtt = p.RTT
			}
			t.Rows = append(t.Rows, []any{p.ID, p.Path, rtt, p.Address, p.Agent, p.Streams, p.Error})
		}
		return Section{Table: t}
	}}
}

// Topic is a topic that pages of this node are in.
type Topic struct {
	Name   string
	Local  int // peers of this node in it
	Nodes  int // other nodes in it
	Coming int // other nodes in it that publications can't reach yet
}

// TopicsPanel shows the topics.
func TopicsPanel(list func() []Topic) Panel {
	return Panel{ID: "topics", Title: "Topics", Help: "Who is in them: pages of this node, and other nodes.", Show: func() Section {
		all := list()
		slices.SortStableFunc(all, func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
		t := &Table{Empty: "No page is in a topic.", Columns: []Column{
			{"topic", ""}, {"pages here", Count}, {"other nodes", Count}, {"not reached yet", Count},
		}}
		for _, x := range all {
			t.Rows = append(t.Rows, []any{x.Name, x.Local, x.Nodes, x.Coming})
		}
		return Section{Table: t}
	}}
}

// Conversation is the outbox of one page for one (peer, protocol).
type Conversation struct {
	From     string
	To       string
	Protocol string
	Path     string
	Queued   int64 // unsettled bytes
	Waiting  int   // messages not yet on the way
	OnTheWay int   // messages on the way and not settled
	Error    string
}

// ConversationsPanel shows who talks to whom, those with most waiting first.
func ConversationsPanel(list func() []Conversation) Panel {
	return Panel{ID: "conversations", Title: "Conversations", Help: "One for each (peer, protocol) that a page sends to.", Show: func() Section {
		all := list()
		slices.SortStableFunc(all, func(a, b Conversation) int { return cmp.Compare(b.Queued, a.Queued) })
		t := &Table{Empty: "No page is sending.", Columns: []Column{
			{"from", Name}, {"to", Name}, {"protocol", Name}, {"path", State}, {"unsettled", Bytes}, {"waiting", Count},
			{"on the way", Count}, {"why not", ""},
		}}
		for _, c := range all {
			t.Rows = append(t.Rows, []any{c.From, c.To, c.Protocol, c.Path, c.Queued, c.Waiting, c.OnTheWay, c.Error})
		}
		return Section{Table: t}
	}}
}

// Limit is a limit of docs/limits.md as it stands now.
type Limit struct {
	Name    string  // its key in the configuration: "limits.outbox"
	Unit    Unit    // Count or Bytes
	Current float64 // the highest use of it now; NaN where only refusals are known
	Max     float64
	Refused uint64 // how often it said no
}

// LimitsPanel shows how close the limits are, the closest first.
func LimitsPanel(list func() []Limit) Panel {
	return Panel{ID: "limits", Title: "Limits", Help: "What is used of each limit, and how often it said no.", Show: func() Section {
		all := list()
		use := func(l Limit) float64 { return l.Current / l.Max }
		slices.SortStableFunc(all, func(a, b Limit) int {
			return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(use(b), use(a)))
		})
		t := &Table{Columns: []Column{{"limit", Name}, {"used", Share}, {"now", ""}, {"most", ""}, {"refused", Total}}}
		for _, l := range all {
			t.Rows = append(t.Rows, []any{l.Name, use(l), amount(l.Current, l.Unit), amount(l.Max, l.Unit), l.Refused})
		}
		return Section{Table: t}
	}}
}

// Drop counts what was lost on purpose, by reason.
type Drop struct {
	What   string // "publication", "frame", "stream" …
	Reason string // "page too slow", "signature" …
	Count  uint64
}

// DropsPanel shows what was lost, and why.
func DropsPanel(list func() []Drop) Panel {
	return Panel{ID: "drops", Title: "Drops", Help: "Nothing is lost without being counted here.", Show: func() Section {
		t := &Table{Empty: "Nothing was dropped.", Columns: []Column{{"what", ""}, {"why", ""}, {"count", Total}}}
		for _, d := range list() {
			if d.Count > 0 {
				t.Rows = append(t.Rows, []any{d.What, d.Reason, d.Count})
			}
		}
		return Section{Table: t}
	}}
}

// AddressesPanel shows where the node can be reached, with facts about that.
func AddressesPanel(http, p2p func() []string, facts func() []Fact) Panel {
	return Panel{ID: "addresses", Title: "Addresses", Help: "What the node really listens on and announces.", Show: func() Section {
		t := &Table{Columns: []Column{{"for", ""}, {"address", Whole}}}
		for _, x := range http() {
			t.Rows = append(t.Rows, []any{"pages", x})
		}
		for _, x := range p2p() {
			t.Rows = append(t.Rows, []any{"peers", x})
		}
		return Section{Facts: facts(), Table: t}
	}}
}

// processPanel shows the process itself.
func (a *Admin) processPanel() Panel {
	return Panel{ID: "process", Title: "Node", Show: func() Section {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return Section{Facts: []Fact{
			{Name: "up for", Value: time.Since(a.started), Unit: Seconds},
			{Name: "memory", Value: m.Sys - m.HeapReleased, Unit: Bytes, Trend: true},
			{Name: "goroutines", Value: runtime.NumGoroutine(), Unit: Count, Trend: true},
		}}
	}}
}

// Star is a star server that this node is reached through, or reaches others by.
type Star struct {
	Address  string
	State    string // connecting, joining, joined, refused, waiting
	Since    time.Time
	RTT      time.Duration // 0: not known
	Members  int           // others that were seen there
	Streams  int           // connections over it
	In, Out  int64         // their bytes
	OnDemand bool          // joined for dials alone
	Error    string        // why it isn't joined
}

// StarsPanel shows how each star is doing.
func StarsPanel(list func() []Star) Panel {
	return Panel{ID: "stars", Title: "Stars", Help: "Servers that nodes meet on where nothing else works. They see who talks to whom, not what.", Show: func() Section {
		t := &Table{Empty: "No star is in use.", Columns: []Column{
			{"star", Name}, {"state", State}, {"since", Time}, {"for", ""}, {"round trip", Seconds}, {"seen there", Count},
			{"connections", Count}, {"in", Traffic}, {"out", Traffic}, {"why not", ""},
		}}
		for _, s := range list() {
			purpose := "all"
			if s.OnDemand {
				purpose = "dials"
			}
			var rtt any
			if s.RTT > 0 {
				rtt = s.RTT
			}
			t.Rows = append(t.Rows, []any{s.Address, s.State, s.Since, purpose, rtt, s.Members, s.Streams, s.In, s.Out, s.Error})
		}
		return Section{Table: t}
	}}
}
