package topic

import (
	"strings"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// presence is what this node tells others of its pages, and what they tell. It
// is guarded by Node.mu; its methods are Node's. Two nodes that see each other
// in a topic each open one stream to the other and tell on it who of their pages
// is in the topics that both are in. A stream carries the state, not its
// history: what changed is looked up when it is written, so what waits is
// bounded by what there is.
type presence struct {
	links map[identity.PeerID]*link
	mine  map[string]map[identity.PeerID]*announcement // by topic on the wire
	seq   uint64
}

// announcement is a page of this node in a topic.
type announcement struct {
	agent  identity.Agent
	page   identity.PeerID // the agent's other name
	state  []byte
	record []byte
	signed time.Time
}

// link is another node that shares, or shared, a topic with this one.
type link struct {
	node identity.PeerID

	topics  map[string]struct{} // the topics that it is in as well, by the router
	changed map[change]struct{} // what is to be told
	wake    chan struct{}       // capacity 1: changed or topics did
	telling bool                // tell runs
	plain   bool                // it doesn't speak presence

	stream network.Stream // what it tells comes by this one; nil for none
	claims int
	theirs map[string]map[identity.PeerID]*claim // what it told, by topic
	rate   *flow.Bucket
}

// change names an announcement that is to be told anew; without a page it is
// the topic, which is to be forgotten.
type change struct {
	topic string
	page  identity.PeerID
}

// Bounds of what one node may tell.
const (
	maxClaims        = 20_000 // pages in topics
	maxUnknownClaims = 256    // of them in topics that nobody here is in
	claimRate        = 1000   // frames a second; more are read later
	claimBurst       = 4000
)

func newPresence() presence {
	return presence{links: make(map[identity.PeerID]*link), mine: make(map[string]map[identity.PeerID]*announcement)}
}

// link gives the link to a node. The caller holds mu.
func (n *Node) link(node identity.PeerID) *link {
	l, ok := n.told.links[node]
	if !ok {
		l = &link{node: node, topics: make(map[string]struct{}), changed: make(map[change]struct{}),
			wake: make(chan struct{}, 1), theirs: make(map[string]map[identity.PeerID]*claim),
			rate: flow.NewBucket(claimRate, claimBurst)}
		n.told.links[node] = l
	}
	return l
}

// prune forgets a link that nothing is known of. The caller holds mu.
func (n *Node) prune(l *link) {
	if len(l.topics) == 0 && !l.telling && l.stream == nil && n.told.links[l.node] == l {
		delete(n.told.links, l.node)
	}
}

// announce tells every node in the topic that a page of this one is in it.
func (n *Node) announce(topic string, page *Page, state []byte) {
	if n.network == nil {
		return
	}
	a := &announcement{agent: page.agent, page: page.id, state: state}
	n.sign(topic, a, time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	pages, ok := n.told.mine[topic]
	if !ok {
		pages = make(map[identity.PeerID]*announcement)
		n.told.mine[topic] = pages
	}
	pages[page.id] = a
	n.changed(topic, page.id)
}

// withdraw tells that it no longer is.
func (n *Node) withdraw(topic string, page identity.PeerID) {
	if n.network == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.told.mine[topic], page)
	if len(n.told.mine[topic]) == 0 {
		delete(n.told.mine, topic)
	}
	n.changed(topic, page)
}

// sign makes a's record, with where the page is reached now.
func (n *Node) sign(topic string, a *announcement, now time.Time) {
	n.mu.Lock()
	n.told.seq = max(n.told.seq+1, uint64(now.UnixMicro())) // grows over restarts too
	seq := n.told.seq
	n.mu.Unlock()
	var addresses []string
	if n.config.Addresses != nil {
		addresses = n.config.Addresses(a.page)
	}
	record, err := signClaim(a.agent, claim{topic: topic, node: n.router.ID(), addresses: addresses,
		state: a.state, seq: seq, expires: now.Add(recordLife)})
	if err != nil { // an agent that refuses to sign; the rest was checked before
		n.log.Warn("presence record not signed", "topic", topic, "err", err)
	}
	a.record, a.signed = record, now
}

// changed has every link in the topic tell page's announcement. The caller
// holds mu.
func (n *Node) changed(topic string, page identity.PeerID) {
	for _, l := range n.told.links {
		if _, shared := l.topics[topic]; shared {
			l.changed[change{topic, page}] = struct{}{}
			n.poke(l)
		}
	}
}

// poke has l's teller look, and starts it where there is something to tell. The
// caller holds mu.
func (n *Node) poke(l *link) {
	if !l.telling && !l.plain && n.worthTelling(l) {
		l.telling = n.spawn(func() { n.tell(l) })
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// worthTelling reports whether a page of this node is in a topic that l's node
// is in as well: only then is anything its business. The caller holds mu.
func (n *Node) worthTelling(l *link) bool {
	for topic := range l.topics {
		if len(n.told.mine[topic]) > 0 {
			return true
		}
	}
	return false
}

// meetNode says that a node was seen in a topic; plain is true where it is known
// to speak no presence.
func (n *Node) meetNode(node identity.PeerID, topic string) (plain bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(node)
	l.topics[topic] = struct{}{}
	for page := range n.told.mine[topic] {
		l.changed[change{topic, page}] = struct{}{}
	}
	n.poke(l)
	return l.plain
}

// partNode says that it no longer is. What it told stays until it takes it back,
// or its stream ends: the router's news and the stream's are not in step.
func (n *Node) partNode(node identity.PeerID, topic string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.told.links[node]
	if !ok {
		return
	}
	delete(l.topics, topic)
	l.changed[change{topic: topic}] = struct{}{}
	if len(l.topics) == 0 {
		l.plain = false // it may come back as something else
	}
	n.poke(l)
	n.prune(l)
}

// renewRecords signs anew what is half through its life, and drops what others
// told and didn't renew.
func (n *Node) renewRecords(now time.Time) {
	type due struct {
		topic string
		a     *announcement
	}
	var sign []due
	var expired []*claim
	n.mu.Lock()
	for topic, pages := range n.told.mine {
		for _, a := range pages {
			if now.Sub(a.signed) >= recordLife/2 {
				sign = append(sign, due{topic, a})
			}
		}
	}
	for _, l := range n.told.links {
		for _, claims := range l.theirs {
			for _, c := range claims {
				if !now.Before(c.expires) {
					l.drop(c)
					expired = append(expired, c)
				}
			}
		}
	}
	n.mu.Unlock()
	for _, d := range sign {
		fresh := &announcement{agent: d.a.agent, page: d.a.page, state: d.a.state}
		n.sign(d.topic, fresh, now)
		n.mu.Lock()
		if n.told.mine[d.topic][fresh.page] == d.a { // not replaced meanwhile
			n.told.mine[d.topic][fresh.page] = fresh
			n.changed(d.topic, fresh.page)
		}
		n.mu.Unlock()
	}
	for _, c := range expired {
		n.toRoom(c, false)
	}
}

// Refresh announces a page of this node anew in all its topics, for when its
// addresses changed.
func (n *Node) Refresh(page identity.PeerID) {
	n.mu.Lock()
	found := make(map[string]*announcement)
	for topic, pages := range n.told.mine {
		if a, ok := pages[page]; ok {
			found[topic] = a
		}
	}
	n.mu.Unlock()
	for topic, a := range found {
		fresh := &announcement{agent: a.agent, page: page, state: a.state}
		n.sign(topic, fresh, time.Now())
		n.mu.Lock()
		if n.told.mine[topic][page] == a {
			n.told.mine[topic][page] = fresh
			n.changed(topic, page)
		}
		n.mu.Unlock()
	}
}

// drop removes a claim from what l's node told. The caller holds mu.
func (l *link) drop(c *claim) {
	if l.theirs[c.topic][c.page] != c {
		return
	}
	delete(l.theirs[c.topic], c.page)
	if len(l.theirs[c.topic]) == 0 {
		delete(l.theirs, c.topic)
	}
	l.claims--
}

// roomOf gives the room of a topic on the wire, nil where nobody here is in it.
// The caller holds mu.
func (n *Node) roomOf(topic string) *room {
	if n.config.Namespace != "" {
		name, ok := strings.CutPrefix(topic, n.config.Namespace+"/")
		if !ok {
			return nil
		}
		topic = name
	}
	return n.rooms[topic]
}

// toRoom tells a room of a claim, and waits while the room has much to do.
func (n *Node) toRoom(c *claim, joined bool) {
	n.mu.Lock()
	r := n.roomOf(c.topic)
	n.mu.Unlock()
	if r != nil {
		_ = r.queue.Push(n.ctx, flow.Bulk, event{do: func() {
			r.remoteMember(c.page, c.node, c.state, joined)
		}}, leastWeigh)
	}
}

// seed brings what other nodes told of the topic before the room was made.
func (r *room) seed() {
	n := r.node
	var known []*claim
	n.mu.Lock()
	for _, l := range n.told.links {
		for _, c := range l.theirs[r.wire] {
			known = append(known, c)
		}
	}
	n.mu.Unlock()
	for _, c := range known {
		r.remoteMember(c.page, c.node, c.state, true)
	}
}
