package parley

import "sync"

// rendezvous makes a topic findable in the DHT while any page of this node is
// in it (gateway.md §6.3).
type rendezvous struct {
	meet func(topic string) (leave func()) // doesn't wait

	mu     sync.Mutex
	topics map[string]*attended
}

// attended is a topic that pages are in.
type attended struct {
	pages int
	leave func()
}

func newRendezvous(meet func(topic string) (leave func())) *rendezvous {
	return &rendezvous{meet: meet, topics: make(map[string]*attended)}
}

// enter counts a page in.
func (r *rendezvous) enter(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.topics[topic]
	if a == nil {
		a = &attended{leave: r.meet(topic)}
		r.topics[topic] = a
	}
	a.pages++
}

// exit counts a page out that was counted in.
func (r *rendezvous) exit(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.topics[topic]
	if a.pages--; a.pages == 0 {
		a.leave()
		delete(r.topics, topic)
	}
}

// meetInDHT looks for other nodes of a topic as long as GossipSub has no peer
// in it.
func (n *Node) meetInDHT(topic string) (leave func()) {
	if ns := n.cfg.P2P.Namespace; ns != "" {
		topic = ns + "/" + topic
	}
	return n.found.Topic(topic, func() bool { return len(n.router.PubSub().ListPeers(topic)) == 0 })
}
