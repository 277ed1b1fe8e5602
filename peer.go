package parley

import (
	"context"
	"errors"
	"sync"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Peer is a peer of a program that embeds a node: what a page has over
// WebSocket, as Go calls. It is on the network under its own key, like a page.
//
//	p, err := node.Peer(ctx, key)
//	err = p.Handle("chat", func(ctx context.Context, m parley.Message) (*parley.Content, error) { … })
//	level, err := p.Send(ctx, bob, "chat", parley.Text("hello"), parley.Handled)
//
// It is safe for several goroutines. Close it; the node's end closes it too.
type Peer struct {
	// Static after construction.
	hold   gateway.Peer
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	forget func() // the node's
	work   sync.WaitGroup

	mu       sync.Mutex
	handlers map[network.Protocol]*handling
	topics   map[string]*Subscription
	closed   bool
}

// Content is what a message carries; see Text and JSON.
type Content = network.Content

// Level says how far a message has come.
type Level = network.Level

// Protocol names what a message is about, for example "chat".
type Protocol = network.Protocol

// Member is a peer that is in a topic.
type Member = network.Member

// The levels that Send can wait for.
const (
	Queued    = network.Queued
	Delivered = network.Delivered
	Handled   = network.Handled
)

// Message is one that came in.
type Message struct {
	From     identity.PeerID
	Protocol Protocol
	Content  Content
	Request  bool // the sender waits for the handler's answer
}

// Handler handles one message; for a request it gives the answer. An error
// reaches the sender with its code, or CodeRefused. Messages of one protocol are
// handled one after another; ctx ends when the peer stops listening.
type Handler func(ctx context.Context, m Message) (*Content, error)

// handling is a protocol that is listened to: deliveries wait in a queue for
// its one goroutine.
type handling struct {
	queue  *flow.Queue[network.Delivery]
	cancel context.CancelFunc
	done   chan struct{}
}

const handlingBuffer = 1 << 20 // bytes of deliveries that wait for a handler

// Peer makes a peer with its own key, or shares the living one of that key with
// a page or another Peer. It needs a node that runs. Errors: CodeLimit,
// CodeClosed.
func (n *Node) Peer(ctx context.Context, key identity.Key) (*Peer, error) {
	own, cancel := context.WithCancel(context.Background())
	p := &Peer{ctx: own, cancel: cancel,
		handlers: make(map[Protocol]*handling), topics: make(map[string]*Subscription)}
	hold, err := n.backend.Join(ctx, gateway.JoinRequest{Key: key, Share: true}, (*embedded)(p))
	if err != nil {
		cancel()
		return nil, err
	}
	p.hold, p.forget = hold, func() { n.backend.disown(p) }
	if !n.backend.adopt(p) {
		return nil, errors.Join(identity.Errorf(identity.CodeClosed, "the node stops"), p.Close())
	}
	return p, nil
}

// ID is the peer's name on the network.
func (p *Peer) ID() identity.PeerID { return p.hold.Key().PeerID() }

// Handle listens to a protocol. Errors: CodeAlreadyStarted, CodeReserved,
// CodeClosed.
func (p *Peer) Handle(protocol Protocol, h Handler) error {
	ctx, cancel := context.WithCancel(p.ctx)
	l := &handling{queue: flow.NewQueue[network.Delivery](handlingBuffer), cancel: cancel, done: make(chan struct{})}
	p.mu.Lock()
	if p.closed || p.handlers[protocol] != nil {
		closed := p.closed
		p.mu.Unlock()
		cancel()
		if closed {
			return errPeerClosed
		}
		return identity.Errorf(identity.CodeAlreadyStarted, "already started protocol: %s", protocol)
	}
	p.handlers[protocol] = l
	p.work.Go(func() { l.run(ctx, h) })
	p.mu.Unlock()
	if err := p.hold.Start(protocol); err != nil {
		p.unhandle(protocol)
		return err
	}
	return nil
}

// Unhandle stops listening and returns when the handler no longer runs; it must
// not be called from it. Error: CodeNotStarted.
func (p *Peer) Unhandle(protocol Protocol) error {
	err := p.hold.Stop(protocol)
	p.unhandle(protocol)
	return err
}

func (p *Peer) unhandle(protocol Protocol) {
	p.mu.Lock()
	l := p.handlers[protocol]
	delete(p.handlers, protocol)
	p.mu.Unlock()
	if l != nil {
		l.cancel()
		<-l.done
	}
}

func (l *handling) run(ctx context.Context, h Handler) {
	defer close(l.done)
	var batch []network.Delivery
	for {
		var err error
		batch, err = l.queue.Pop(ctx, 1, batch[:0])
		for _, d := range batch {
			serve(ctx, h, d)
		}
		if err != nil {
			l.queue.Close(errPeerClosed)
			l.refuseRest()
			return
		}
	}
}

// refuseRest tells the senders of what nobody will handle any more.
func (l *handling) refuseRest() {
	rest, _ := l.queue.TryPop(2*handlingBuffer, nil)
	for _, d := range rest {
		d.Refuse(errPeerClosed)
	}
}

func serve(ctx context.Context, h Handler, d network.Delivery) {
	answer, err := h(ctx, Message{From: d.From(), Protocol: d.Protocol(), Content: d.Content(), Request: d.WantsReply()})
	switch {
	case err != nil:
		var known *identity.Error
		if !errors.As(err, &known) {
			err = &identity.Error{Code: identity.CodeRefused, Text: err.Error(), Err: err}
		}
		d.Refuse(err)
	case answer != nil && d.WantsReply():
		d.Reply(*answer)
	default:
		d.Handled()
	}
}

// Send sends a message and waits for the level; the level that was reached may
// be lower where the other side knows no more (a page of v1). It waits while the
// outbox is full. When ctx ends first the message may still arrive. Errors:
// CodeUnreachable, CodeNotStarted, CodeTooLarge, CodeTimeout, CodeRefused,
// CodeCancelled, CodeClosed.
func (p *Peer) Send(ctx context.Context, to identity.PeerID, protocol Protocol, c Content, level Level) (Level, error) {
	out, err := p.send(ctx, network.Outgoing{To: to, Protocol: protocol, Content: c, Level: level, Wait: true})
	return out.Level, err
}

// Request sends a message and waits for the answer of the other side's handler.
// A handler without an answer gives an empty Content.
func (p *Peer) Request(ctx context.Context, to identity.PeerID, protocol Protocol, c Content) (Content, error) {
	out, err := p.send(ctx, network.Outgoing{To: to, Protocol: protocol, Content: c, Level: Handled, Reply: true, Wait: true})
	if err != nil || out.Reply == nil {
		return Content{}, err
	}
	return *out.Reply, nil
}

func (p *Peer) send(ctx context.Context, out network.Outgoing) (network.Outcome, error) {
	settled := make(chan network.Outcome, 1)
	out.Done = func(o network.Outcome) { settled <- o }
	cancel, err := p.hold.Send(out)
	if err != nil {
		return network.Outcome{}, err
	}
	select {
	case o := <-settled:
		return o, o.Err
	case <-ctx.Done():
		cancel()
		return network.Outcome{}, identity.Errorf(identity.CodeCancelled, "send was given up: %w", ctx.Err())
	}
}

// AddPeers keeps connections to peers, at these multiaddrs too.
func (p *Peer) AddPeers(ids []identity.PeerID, addresses ...string) error {
	return p.hold.AddPeers(ids, addresses)
}

// Path tells how a peer is reached now, and what was tried where it isn't.
func (p *Peer) Path(id identity.PeerID) gateway.PathInfo { return p.hold.Path(id) }

// Close ends the peer, or this share of it, and returns when its handlers no
// longer run; it must not be called from one.
func (p *Peer) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.work.Wait()
		return nil
	}
	p.closed = true
	topics := p.topics
	p.topics = nil
	p.mu.Unlock()
	p.cancel()
	for _, s := range topics {
		s.queue.Close(errPeerClosed)
	}
	p.hold.Leave()
	p.work.Wait()
	p.forget()
	return nil
}

var errPeerClosed = identity.Errorf(identity.CodeClosed, "peer closed")

// Text is a JSON string as a Content; pages get it as a string.
func Text(s string) Content {
	c, _ := JSON(s) // a string can always be encoded
	return c
}
