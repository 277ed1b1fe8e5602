package gateway

import (
	"slices"

	"github.com/parley-p2p/parley/flow"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// This file is the session as its peer sees it, a Page, but for messages.

// topicGate is a subscription; it keeps what comes until its subscribe is
// answered.
type topicGate struct {
	open    bool
	held    []item
	members map[identity.PeerID]bool // told as present, v1
}

// Publish takes a publication of a subscribed topic.
func (s *session) Publish(p network.Publication) {
	it := item{kind: itemPublication, ref: &p}
	var err error
	if s.version == 1 {
		it.data, err = p.Content.JSON()
	} else {
		err = v2.CheckContent(p.Content)
	}
	if err != nil {
		s.g.stats.BadContent.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.gate = s.topics[p.Topic]; it.gate == nil {
		return
	}
	if !it.gate.open {
		s.hold(it.gate, it)
		return
	}
	s.offer(it)
}

// offer queues a publication and drops the oldest where there is no room. Called
// with mu.
func (s *session) offer(it item) {
	p := it.ref.(*network.Publication)
	dropped, _ := s.queue.PushDroppable(it, max(len(it.data), len(p.Content.Data))+itemOverhead)
	for _, old := range dropped {
		s.lose(old)
	}
}

// lose counts a publication that the page will not get, and notes it so that the
// page is told. Called with mu.
func (s *session) lose(it item) {
	if it.kind != itemPublication {
		return
	}
	topic := it.ref.(*network.Publication).Topic
	s.g.stats.PublicationsLost.Add(1)
	if s.lost == nil {
		s.lost = make(map[string]uint64)
	}
	if !s.warned {
		s.warned = true
		s.log.Warn("page reads too slowly, publications are dropped", "topic", topic)
	}
	if _, known := s.lost[topic]; known || len(s.lost) < s.g.cfg.Topics {
		s.lost[topic]++
	}
}

// hold keeps an item until the subscription is answered. Where that takes too
// long the oldest publication goes; changes of membership don't. Called with mu.
func (s *session) hold(g *topicGate, it item) {
	if len(g.held) >= maxHeld {
		oldest := slices.IndexFunc(g.held, func(it item) bool { return it.kind == itemPublication })
		if oldest < 0 {
			s.overflow()
			return
		}
		s.lose(g.held[oldest])
		g.held = slices.Delete(g.held, oldest, oldest+1)
	}
	g.held = append(g.held, it)
}

// Presence tells that a member came, changed its state, or went.
func (s *session) Presence(topic string, m network.Member, joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.topics[topic]
	if g == nil {
		return
	}
	if len(m.State) > 0 && v2.CheckData(m.State) != nil {
		m.State = nil
	}
	it := item{kind: itemPresence, gate: g, text: topic, flag: joined, ref: m}
	if !g.open {
		s.hold(g, it)
		return
	}
	s.tell(it)
}

// tell queues a presence. A v1 page hears of coming and going only, each once.
// Called with mu.
func (s *session) tell(it item) {
	m := it.ref.(network.Member)
	if s.version == 1 {
		if it.gate.members[m.Peer] == it.flag || !s.remember(it.gate, m.Peer, it.flag) {
			return
		}
	}
	if err := s.queue.PushAlways(flow.Bulk, it, len(it.text)+len(m.State)+itemOverhead); err == nil && s.queue.Bytes() > s.g.hardLimit() {
		s.overflow()
	}
}

// remember notes who has been told as present. It is false where there are too
// many: then neither coming nor going is told. Called with mu.
func (s *session) remember(g *topicGate, id identity.PeerID, joined bool) bool {
	switch {
	case !joined:
		delete(g.members, id)
		s.members--
	case s.members >= maxMembers:
		return false
	default:
		if g.members == nil {
			g.members = make(map[identity.PeerID]bool)
		}
		g.members[id] = true
		s.members++
	}
	return true
}

// PathChanged tells that a peer is reached otherwise; v1 pages don't hear of it.
// Events that don't fit are dropped: path asks again.
func (s *session) PathChanged(p PathInfo) {
	if s.version == 1 {
		return
	}
	data := encodePath(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped, _ := s.queue.PushDroppable(item{kind: itemEvent, text: "path", data: data}, len(data)+itemOverhead)
	for _, old := range dropped {
		s.lose(old)
	}
}

// start listens to a protocol. The messages come once opened is called, after
// the answer.
func (s *session) start(name string) (opened func(), err error) {
	if err := checkProtocol(name); err != nil {
		return nil, err
	}
	p := network.Protocol(name)
	g := &gate{opened: make(chan struct{})}
	s.mu.Lock()
	switch {
	case s.protocols[p] != nil:
		err = identity.Errorf(identity.CodeAlreadyStarted, "already started protocol: %s", p)
	case len(s.protocols) >= s.g.cfg.Protocols:
		err = limitError("too many protocols, limit " + itoa(s.g.cfg.Protocols) + " a page")
	default:
		if s.protocols == nil {
			s.protocols = make(map[network.Protocol]*gate)
		}
		s.protocols[p] = g
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := s.peer.Start(p); err != nil {
		s.mu.Lock()
		delete(s.protocols, p)
		s.mu.Unlock()
		close(g.opened)
		return nil, err
	}
	return func() { close(g.opened) }, nil
}

// stopProtocol ends listening: what still waits for the page is not written any more.
func (s *session) stopProtocol(name string) error {
	p := network.Protocol(name)
	s.mu.Lock()
	_, ok := s.protocols[p]
	delete(s.protocols, p)
	s.mu.Unlock()
	if !ok {
		return identity.Errorf(identity.CodeNotStarted, "protocol not started: %s", p)
	}
	return s.peer.Stop(p)
}

// subscribe enters a topic. What happens there comes once opened is called, after
// the answer, with the members first where the page is told of each (v1).
func (s *session) subscribe(topic string, state []byte) (members []network.Member, opened func(), err error) {
	if err := checkTopic(topic); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	g := s.topics[topic]
	again := g != nil
	if !again {
		if len(s.topics) >= s.g.cfg.Topics {
			s.mu.Unlock()
			return nil, nil, limitError("too many topics, limit " + itoa(s.g.cfg.Topics) + " a page")
		}
		if s.topics == nil {
			s.topics = make(map[string]*topicGate)
		}
		g = &topicGate{}
		s.topics[topic] = g
	}
	g.open = false
	s.mu.Unlock()

	members, err = s.peer.Subscribe(s.ctx, topic, state)
	if err != nil && !again {
		s.forget(topic)
		return nil, nil, err
	}
	opened = func() { s.openTopic(g, topic, members) }
	if err != nil {
		opened()
	}
	return members, opened, err
}

func (s *session) openTopic(g *topicGate, topic string, members []network.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == 1 {
		for _, m := range members {
			s.tell(item{kind: itemPresence, gate: g, text: topic, flag: true, ref: m})
		}
	}
	held := g.held
	g.held, g.open = nil, true
	for _, it := range held {
		if it.kind == itemPublication {
			s.offer(it)
		} else {
			s.tell(it)
		}
	}
}

func (s *session) forget(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.topics[topic]
	if ok {
		s.members -= len(g.members)
		delete(s.topics, topic)
		delete(s.lost, topic)
	}
	return ok
}

// unsubscribe leaves a topic; it is idempotent.
func (s *session) unsubscribe(topic string) error {
	if !s.forget(topic) {
		return nil
	}
	return s.peer.Unsubscribe(topic)
}

func limitError(text string) *identity.Error {
	return &identity.Error{Code: identity.CodeLimit, Text: text}
}
