// Package gatewaytest has what tests of a gateway need: a Backend in memory, a
// server in one call, pages that speak v1 and v2 by hand, and the table of v1
// frames that every wiring has to pass (gateway.md §2).
package gatewaytest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Backend is a network of peers in memory. Messages of one conversation keep
// their order; a peer that isn't there, or hasn't started the protocol, is
// waited for until SendTimeout.
type Backend struct {
	SendTimeout time.Duration // 10 s when zero
	Outbox      int           // bytes a conversation; 16 MiB when zero
	Reserved    []network.Protocol
	OpenGate    chan struct{} // when not nil, opening a channel waits for it

	mu      sync.Mutex
	holds   map[identity.PeerID][]*Hold
	changed chan struct{} // closed and replaced when somebody joins, starts or leaves
	joins   int
	rooms   []*Room // what sessions hold
}

// NewBackend makes an empty network.
func NewBackend() *Backend {
	return &Backend{holds: make(map[identity.PeerID][]*Hold), changed: make(chan struct{})}
}

// Joins counts the successful calls of Join.
func (b *Backend) Joins() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.joins
}

// Peers counts the peers that live.
func (b *Backend) Peers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.holds)
}

// Join implements gateway.Backend.
func (b *Backend) Join(_ context.Context, req gateway.JoinRequest, page gateway.Page) (gateway.Peer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := req.Key.PeerID()
	if len(b.holds[id]) > 0 && !req.Share {
		return nil, &identity.Error{Code: identity.CodePeerInUse, Text: "in use"}
	}
	h := &Hold{b: b, key: req.Key, id: id, page: page,
		protocols: map[network.Protocol]bool{}, topics: map[string][]byte{}, lanes: map[lane][]*message{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	b.holds[id] = append(b.holds[id], h)
	b.joins++
	b.change()
	return h, nil
}

// change wakes those who wait for somebody. Called with mu.
func (b *Backend) change() {
	close(b.changed)
	b.changed = make(chan struct{})
}

type lane struct {
	to       identity.PeerID
	protocol network.Protocol
}

// Hold is one session's peer.
type Hold struct {
	b      *Backend
	key    identity.Key
	id     identity.PeerID
	page   gateway.Page
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	// guarded by the Backend's mu
	left      bool
	protocols map[network.Protocol]bool
	topics    map[string][]byte
	lanes     map[lane][]*message
	added     []identity.PeerID
}

// Key implements gateway.Peer.
func (h *Hold) Key() identity.Key { return h.key }

// Start implements gateway.Peer.
func (h *Hold) Start(p network.Protocol) error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if slices.Contains(h.b.Reserved, p) {
		return &identity.Error{Code: identity.CodeReserved, Text: "reserved"}
	}
	if h.protocols[p] {
		return &identity.Error{Code: identity.CodeAlreadyStarted, Text: "already"}
	}
	h.protocols[p] = true
	h.b.change()
	return nil
}

// Stop implements gateway.Peer.
func (h *Hold) Stop(p network.Protocol) error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if !h.protocols[p] {
		return &identity.Error{Code: identity.CodeNotStarted, Text: "not started"}
	}
	delete(h.protocols, p)
	return nil
}

// message is one on its way, and the Delivery of it.
type message struct {
	from identity.PeerID
	out  network.Outgoing

	mu      sync.Mutex
	settled bool
}

func (m *message) settle(o network.Outcome) {
	m.mu.Lock()
	done := m.settled
	m.settled = true
	m.mu.Unlock()
	if !done {
		m.out.Done(o)
	}
}

func (m *message) isSettled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settled
}

// The methods of network.Delivery.

func (m *message) From() identity.PeerID      { return m.from }
func (m *message) Protocol() network.Protocol { return m.out.Protocol }
func (m *message) Content() network.Content   { return m.out.Content }
func (m *message) WantsReply() bool           { return m.out.Reply }
func (m *message) Handled()                   { m.settle(network.Outcome{Level: network.Handled}) }
func (m *message) Reply(c network.Content) {
	m.settle(network.Outcome{Level: network.Handled, Reply: &c})
}
func (m *message) Refuse(err error) { m.settle(network.Outcome{Err: err}) }

// Send implements gateway.Peer.
func (h *Hold) Send(out network.Outgoing) (func(), error) {
	m := &message{from: h.id, out: out}
	key := lane{out.To, out.Protocol}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if h.left {
		return nil, errClosed
	}
	waiting, busy := h.lanes[key]
	if !out.Wait && size(waiting)+len(out.Content.Data) > orDefault(h.b.Outbox, 16<<20) {
		return nil, &identity.Error{Code: identity.CodeQueueFull, Text: "full", RetryAfter: time.Second}
	}
	h.lanes[key] = append(waiting, m)
	if !busy {
		h.work.Go(func() { h.deliver(key) })
	}
	return func() { m.settle(network.Outcome{Err: errCancelled}) }, nil
}

var (
	errClosed    = &identity.Error{Code: identity.CodeClosed, Text: "closed"}
	errCancelled = &identity.Error{Code: identity.CodeCancelled, Text: "cancelled"}
)

func size(waiting []*message) int {
	n := 0
	for _, m := range waiting {
		n += len(m.out.Content.Data)
	}
	return n
}

func orDefault(n, d int) int {
	if n == 0 {
		return d
	}
	return n
}

// deliver sends the messages of a conversation, one behind the other, until
// there are none.
func (h *Hold) deliver(key lane) {
	for {
		h.b.mu.Lock()
		waiting := h.lanes[key]
		if len(waiting) == 0 {
			delete(h.lanes, key)
			h.b.mu.Unlock()
			return
		}
		m := waiting[0]
		h.b.mu.Unlock()
		h.deliverOne(m)
		h.b.mu.Lock()
		h.lanes[key] = h.lanes[key][1:]
		h.b.mu.Unlock()
	}
}

func (h *Hold) deliverOne(m *message) {
	timeout := h.b.SendTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	deadline := time.Now().Add(timeout)
	for !m.isSettled() {
		targets, there, changed := h.b.find(m.out.To, m.out.Protocol)
		for _, t := range targets {
			if t.page.Receive(h.ctx, m) != nil {
				continue
			}
			if m.out.Level <= network.Delivered || !t.page.SettlesDeliveries() {
				m.settle(network.Outcome{Level: network.Delivered})
			}
			return
		}
		if h.ctx.Err() != nil {
			m.Refuse(errClosed)
			return
		}
		late := time.NewTimer(time.Until(deadline))
		select {
		case <-changed:
		case <-h.ctx.Done():
		case <-late.C:
			if there {
				m.Refuse(&identity.Error{Code: identity.CodeNotStarted, Text: "not started there"})
			} else {
				m.Refuse(&identity.Error{Code: identity.CodeUnreachable,
					Text: "peer unreachable: " + m.out.To.String() + ": no address found"})
			}
		}
		late.Stop()
	}
}

// find gives the sessions of a peer that listen to a protocol.
func (b *Backend) find(id identity.PeerID, p network.Protocol) (targets []*Hold, there bool, changed chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.holds[id] {
		if h.protocols[p] {
			targets = append(targets, h)
		}
	}
	return targets, len(b.holds[id]) > 0, b.changed
}

// members gives the holds in a topic. Called with mu.
func (b *Backend) members(topic string) (holds []*Hold) {
	for _, of := range b.holds {
		for _, h := range of {
			if _, in := h.topics[topic]; in {
				holds = append(holds, h)
			}
		}
	}
	slices.SortFunc(holds, func(a, b *Hold) int { return compare(a.id, b.id) })
	return holds
}

func compare(a, b identity.PeerID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// others are the members besides the own peer, each once.
func (h *Hold) others(holds []*Hold, topic string) []network.Member {
	var members []network.Member
	for i, o := range holds {
		if o.id != h.id && (i == 0 || holds[i-1].id != o.id) {
			members = append(members, network.Member{Peer: o.id, State: o.topics[topic]})
		}
	}
	return members
}

// Subscribe implements gateway.Peer.
func (h *Hold) Subscribe(_ context.Context, topic string, state []byte) ([]network.Member, error) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.topics[topic] = state
	all := h.b.members(topic)
	h.tell(all, topic, true)
	return h.others(all, topic), nil
}

// tell tells the others of the own presence. Called with mu, so that what
// members hear is in order.
func (h *Hold) tell(holds []*Hold, topic string, joined bool) {
	for _, o := range holds {
		if o.id != h.id {
			o.page.Presence(topic, network.Member{Peer: h.id, State: h.topics[topic]}, joined)
		}
	}
}

// Unsubscribe implements gateway.Peer.
func (h *Hold) Unsubscribe(topic string) error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.leaveTopic(topic)
	return nil
}

func (h *Hold) leaveTopic(topic string) {
	delete(h.topics, topic)
	rest := h.b.members(topic)
	if !slices.ContainsFunc(rest, func(o *Hold) bool { return o.id == h.id }) {
		h.tell(rest, topic, false)
	}
}

// Publish implements gateway.Peer.
func (h *Hold) Publish(_ context.Context, topic string, c network.Content) error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	for _, o := range h.b.members(topic) {
		o.page.Publish(network.Publication{Topic: topic, From: h.id, Content: c})
	}
	return nil
}

// Members implements gateway.Peer.
func (h *Hold) Members(topic string) []network.Member {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if topic != "" {
		return h.others(h.b.members(topic), topic)
	}
	var all []network.Member
	for id := range h.b.holds {
		if id != h.id {
			all = append(all, network.Member{Peer: id})
		}
	}
	slices.SortFunc(all, func(a, b network.Member) int { return compare(a.Peer, b.Peer) })
	return all
}

// AddPeers implements gateway.Peer.
func (h *Hold) AddPeers(ids []identity.PeerID, _ []string) error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.added = append(h.added, ids...)
	return nil
}

// RemovePeers implements gateway.Peer.
func (h *Hold) RemovePeers(ids []identity.PeerID) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.added = slices.DeleteFunc(h.added, func(id identity.PeerID) bool { return slices.Contains(ids, id) })
}

// Path implements gateway.Peer.
func (h *Hold) Path(id identity.PeerID) gateway.PathInfo {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	switch {
	case id == h.id:
		return gateway.PathInfo{Peer: id, Path: network.PathSelf}
	case len(h.b.holds[id]) > 0:
		return gateway.PathInfo{Peer: id, Path: network.PathLocal, RTT: 0.5}
	}
	return gateway.PathInfo{Peer: id, Path: network.PathNone,
		Tried: []gateway.PathAttempt{{Path: network.PathDirect, Error: "no address found"}}}
}

// Leave implements gateway.Peer. It waits until nothing of the session is on its
// way any more.
func (h *Hold) Leave() {
	h.b.mu.Lock()
	h.left = true
	for topic := range h.topics {
		h.leaveTopic(topic)
	}
	h.protocols = nil
	h.b.holds[h.id] = slices.DeleteFunc(h.b.holds[h.id], func(o *Hold) bool { return o == h })
	if len(h.b.holds[h.id]) == 0 {
		delete(h.b.holds, h.id)
	}
	h.b.change()
	h.b.mu.Unlock()
	h.cancel()
	h.work.Wait()
}
