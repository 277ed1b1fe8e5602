package topic

import (
	"strings"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// Attend makes a hold on topics under SpacePrefix, for presence alone: the agent
// is a member of what it subscribes to, and its publications are not. Only its
// signatures are needed, as its presence is made, renewed, and changed.
func (n *Node) Attend(agent identity.Agent, sink Sink) (*Page, error) {
	id, err := agent.Agent().PeerID()
	if err != nil {
		return nil, err
	}
	return &Page{node: n, agent: agent, id: id, own: true, sink: sink,
		turn: flow.NewWindow(1), rooms: make(map[string]*room)}, nil
}

// check refuses names that are not p's to use.
func (p *Page) check(topic string) error {
	switch {
	case !p.own:
		return checkName(topic)
	case !strings.HasPrefix(topic, SpacePrefix) || len(topic) > MaxName:
		return identity.Errorf(identity.CodeMalformed, "topic is not of parley itself: %q", topic)
	}
	return nil
}

// Place is a node that tells of a peer in a topic.
type Place struct {
	Node  identity.PeerID
	State []byte // what the peer says of itself there; nil for nothing
}

// Where lists the other nodes that tell of a peer in a topic, as far as presence
// has come in. A Sink of the topic hears when that changes. It does not wait.
func (n *Node) Where(topic string, peer identity.PeerID) []Place {
	topic = wireName(n.config.Namespace, topic)
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Place
	for node, l := range n.told.links {
		if c, ok := l.theirs[topic][peer]; ok {
			out = append(out, Place{Node: node, State: c.state})
		}
	}
	return out
}
