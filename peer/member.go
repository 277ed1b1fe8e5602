package peer

import (
	"context"
	"slices"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Member is a session's hold on its peer. It is safe for use by any number of
// goroutines.
type Member struct {
	// Static after construction.
	peer     *Peer
	receiver network.Receiver
	settles  bool

	// Guarded by the peer's mu.
	subs map[network.Protocol]*subscription
	open shareList // deliveries this member has not settled
	left bool
}

// Peer is the peer that the member shares.
func (m *Member) Peer() *Peer { return m.peer }

// Start listens to a protocol: what others send to (peer, protocol) goes to this
// member too, and to all other members that started it. Errors: CodeReserved,
// CodeAlreadyStarted, CodeClosed.
func (m *Member) Start(protocol network.Protocol) error {
	p := m.peer
	if err := CheckProtocol(protocol, p.cfg.Reserved...); err != nil {
		return err
	}
	p.registering.Lock()
	defer p.registering.Unlock()
	first, err := m.subscribe(protocol)
	if err != nil {
		return err
	}
	if first {
		remove := p.register(protocol)
		p.mu.Lock()
		p.listening[protocol].remove = remove
		p.mu.Unlock()
	}
	p.node.reached(p.id) // peers of this node that wait for it
	return nil
}

// register puts the handlers of a protocol on the network.
func (p *Peer) register(protocol network.Protocol) []func() {
	var remove []func()
	if !p.cfg.plainOnly {
		remove = append(remove, p.net.Handle(ownPrefix+protocol, func(ctx context.Context, s network.Stream) {
			p.serveOwn(ctx, s, protocol)
		}))
	}
	return append(remove, p.net.Handle(protocol, func(ctx context.Context, s network.Stream) {
		p.serveReference(ctx, s, protocol)
	}))
}

func (m *Member) subscribe(protocol network.Protocol) (first bool, err error) {
	p := m.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || m.left:
		return false, errPeerClosed
	case m.subs[protocol] != nil:
		return false, identity.Errorf(identity.CodeAlreadyStarted, "already started protocol: %s", protocol)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	sub := &subscription{member: m, ctx: ctx, cancel: cancel}
	m.subs[protocol] = sub
	l := p.listening[protocol]
	if l == nil {
		l = &listening{}
		p.listening[protocol] = l
		first = true
	}
	l.generation = p.nextGeneration()
	l.subs = append(slices.Clip(l.subs), sub)
	return first, nil
}

// Stop ends listening. After it returned no delivery of the protocol comes; what
// was taken can still be settled. It waits for calls of Receive that run, so it
// must not be called from one. Error: CodeNotStarted.
func (m *Member) Stop(protocol network.Protocol) error {
	p := m.peer
	p.registering.Lock()
	defer p.registering.Unlock()
	p.mu.Lock()
	sub := m.subs[protocol]
	if sub == nil {
		p.mu.Unlock()
		return identity.Errorf(identity.CodeNotStarted, "protocol not started: %s", protocol)
	}
	delete(m.subs, protocol)
	l := p.listening[protocol]
	l.generation = p.nextGeneration()
	l.subs = slices.DeleteFunc(slices.Clone(l.subs), func(s *subscription) bool { return s == sub })
	var remove []func()
	if len(l.subs) == 0 {
		delete(p.listening, protocol)
		remove = l.remove
		p.endStreams(protocol)
	}
	if sub.active > 0 {
		sub.idle = make(chan struct{})
	}
	p.mu.Unlock()

	for _, f := range remove {
		f()
	}
	sub.cancel()
	if sub.idle != nil {
		<-sub.idle
	}
	return nil
}

// Leave ends the session's hold: its protocols stop, what it has not settled is
// refused with CodeClosed, what it sent and is unsettled is answered with
// CodeClosed. The peer stays. It is idempotent.
func (m *Member) Leave() {
	p := m.peer
	p.mu.Lock()
	if m.left {
		p.mu.Unlock()
		return
	}
	m.left = true
	delete(p.members, m)
	protocols := make([]network.Protocol, 0, len(m.subs))
	for protocol := range m.subs {
		protocols = append(protocols, protocol)
	}
	var settled settlements
	for _, c := range p.conversations {
		c.fail(errPeerClosed, m, &settled)
	}
	p.mu.Unlock()
	settled.tell()
	m.refuseOpen() // while the streams can still tell it
	for _, protocol := range protocols {
		_ = m.Stop(protocol)
	}
	m.refuseOpen()
}

// refuseOpen refuses every delivery that the member took and did not settle.
func (m *Member) refuseOpen() {
	m.peer.mu.Lock()
	open := m.open.taken()
	m.peer.mu.Unlock()
	for _, s := range open {
		s.settle(verdict{level: verdictRefused, code: identity.CodeClosed, text: "page closed"})
	}
}

// Send puts a message into the outbox of (To, Protocol). It never blocks.
// Messages of one conversation arrive in the order of the calls. An error means
// that Done is not called: CodeMalformed, CodeReserved, CodeTooLarge,
// CodeQueueFull, CodeLimit, CodeClosed. Otherwise Done is called once: for level
// Queued before Send returns, else from another goroutine, maybe before Send
// returns; with the errors of gateway.md §2.6.
//
// cancel takes the message back if it has not been written to a stream yet; Done
// gets CodeCancelled then. Otherwise it does nothing.
func (m *Member) Send(out network.Outgoing) (cancel func(), err error) {
	p := m.peer
	if size := len(out.Content.Data); size > p.cfg.MaxMessage {
		return nil, errTooLarge(size, p.cfg.MaxMessage)
	}
	if out.Reply {
		out.Level = max(out.Level, network.Handled)
	}
	e := &entry{content: out.Content, size: len(out.Content.Data), level: out.Level,
		reply: out.Reply, done: out.Done, member: m}
	p.mu.Lock()
	c, err := p.conversation(out.To, out.Protocol, m)
	if err == nil && c.blocked {
		err = errBlocked(c.to)
	}
	if err == nil {
		err = c.admit(e, out.Wait)
	}
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	c.put(e)
	done := e.done
	if e.level == network.Queued {
		e.done = c.late
	}
	p.mu.Unlock()
	p.node.count.sent.Add(1)
	c.signal()
	if e.level == network.Queued {
		done(network.Outcome{Level: network.Queued})
	}
	return func() { c.cancel(e) }, nil
}
