package parley

import (
	"context"
	"encoding/json"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// JSON encodes a value as a Content; pages get it as a value. Error:
// CodeMalformed.
func JSON(v any) (Content, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return Content{}, identity.Errorf(identity.CodeMalformed, "encode content: %w", err)
	}
	return Content{Type: network.JSON, Data: data}, nil
}

// Subscription is a Peer's part in a topic. One goroutine may call Next.
type Subscription struct {
	peer  *Peer
	topic string
	queue *flow.Queue[Event]
}

// Event is what happened in a topic: a publication, or a member that came,
// changed its state (Joined again) or left.
type Event struct {
	Publication *network.Publication // nil where a member is meant
	Member      Member
	Joined      bool
}

const (
	subscriptionBuffer = 4 << 20 // bytes of publications that wait for Next (gateway.md §6.2)
	eventCost          = 128     // what an event weighs besides its content
)

// Subscribe joins a topic. The members known now come first, as events. state is
// what others see of this member, one CBOR item up to 1 KiB; nil for none.
// Errors: CodeAlreadyStarted, CodeReserved, CodeMalformed, CodeLimit, CodeClosed.
func (p *Peer) Subscribe(ctx context.Context, topic string, state []byte) (*Subscription, error) {
	s := &Subscription{peer: p, topic: topic, queue: flow.NewQueue[Event](subscriptionBuffer)}
	p.mu.Lock()
	if p.closed || p.topics[topic] != nil {
		defer p.mu.Unlock()
		if p.closed {
			return nil, errPeerClosed
		}
		return nil, identity.Errorf(identity.CodeAlreadyStarted, "already subscribed: %s", topic)
	}
	p.topics[topic] = s
	p.mu.Unlock()
	members, err := p.hold.Subscribe(ctx, topic, state)
	if err != nil {
		s.forget()
		return nil, err
	}
	for _, m := range members {
		s.push(Event{Member: m, Joined: true}, len(m.State))
	}
	return s, nil
}

// Publish publishes to a topic, subscribed or not. It returns when the
// publication is on its way, or kept until somebody joins; it waits when the
// node can carry no more. Errors: CodeTooLarge, CodeReserved, CodeCancelled,
// CodeClosed.
func (p *Peer) Publish(ctx context.Context, topic string, c Content) error {
	return p.hold.Publish(ctx, topic, c)
}

// Members lists who is in a topic, without the own peer.
func (p *Peer) Members(topic string) []Member { return p.hold.Members(topic) }

// Next waits for the next event. When Next is called too rarely the oldest
// publications are lost. Errors: CodeClosed, the context's.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	batch, err := s.queue.Pop(ctx, 1, nil)
	if len(batch) > 0 {
		return batch[0], nil
	}
	return Event{}, err
}

// Close leaves the topic.
func (s *Subscription) Close() error {
	s.forget()
	return s.peer.hold.Unsubscribe(s.topic)
}

func (s *Subscription) forget() {
	s.peer.mu.Lock()
	if s.peer.topics[s.topic] == s {
		delete(s.peer.topics, s.topic)
	}
	s.peer.mu.Unlock()
	s.queue.Close(errPeerClosed)
}

func (s *Subscription) push(e Event, size int) {
	_, _ = s.queue.PushDroppable(e, size+eventCost) // closed: nobody asks any more
}

// embedded is a Peer as its backend sees it: a page that is this program.
type embedded Peer

// SettlesDeliveries implements network.Receiver.
func (e *embedded) SettlesDeliveries() bool { return true }

// Receive implements network.Receiver.
func (e *embedded) Receive(ctx context.Context, d network.Delivery) error {
	e.mu.Lock()
	l := e.handlers[d.Protocol()]
	e.mu.Unlock()
	if l == nil {
		return identity.Errorf(identity.CodeNotStarted, "protocol not started by peer: %s", d.Protocol())
	}
	return l.queue.Push(ctx, flow.Bulk, d, len(d.Content().Data)+eventCost)
}

// Publish implements gateway.Page.
func (e *embedded) Publish(p network.Publication) {
	if s := e.subscription(p.Topic); s != nil {
		s.push(Event{Publication: &p}, len(p.Content.Data))
	}
}

// Presence implements gateway.Page.
func (e *embedded) Presence(topic string, m network.Member, joined bool) {
	if s := e.subscription(topic); s != nil {
		s.push(Event{Member: m, Joined: joined}, len(m.State))
	}
}

// PathChanged implements gateway.Page. Programs ask by Path.
func (e *embedded) PathChanged(gateway.PathInfo) {}

func (e *embedded) subscription(topic string) *Subscription {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.topics[topic]
}
