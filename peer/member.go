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
	remove := p.unsubscribe(protocol, sub)
	p.mu.Unlock()
	sub.finish(remove)
	return nil
}

// unsubscribe lets no more messages go to sub, and gives the handlers to be
// taken off the network when nobody else listens. The caller holds mu, and calls
// finish afterwards.
func (p *Peer) unsubscribe(protocol network.Protocol, sub *subscription) (remove []func()) {
	delete(sub.member.subs, protocol)
	l := p.listening[protocol]
	l.generation = p.nextGeneration()
	l.subs = slices.DeleteFunc(slices.Clone(l.subs), func(s *subscription) bool { return s == sub })
	if len(l.subs) == 0 {
		delete(p.listening, protocol)
		remove = l.remove
		p.endStreams(protocol)
	}
	if sub.active > 0 {
		sub.idle = make(chan struct{})
	}
	return remove
}

// finish returns when no Receive of sub runs any more.
func (sub *subscription) finish(remove []func()) {
	for _, f := range remove {
		f()
	}
	sub.cancel()
	if sub.idle != nil {
		<-sub.idle
	}
}

// Leave ends the session's hold: its protocols stop, what it has not settled is
// refused with CodeClosed, what it sent and is unsettled is answered with
// CodeClosed. The peer stays. It waits as Stop does, and is idempotent.
func (m *Member) Leave() {
	var settled settlements
	for _, d := range m.leave(&settled) {
		d.report()
	}
	settled.tell()
}

func (m *Member) leave(settled *settlements) (refused []*delivery) {
	p := m.peer
	p.registering.Lock()
	defer p.registering.Unlock()
	p.mu.Lock()
	if m.left {
		p.mu.Unlock()
		return nil
	}
	m.left = true
	delete(p.members, m)
	for _, c := range p.conversations {
		c.fail(errPeerClosed, m, settled)
	}
	for _, s := range m.open.taken() { // before the streams end, so that they can tell it
		if s.end(pageClosed) {
			refused = append(refused, s.d)
		}
	}
	type stopped struct {
		sub    *subscription
		remove []func()
	}
	var all []stopped
	for protocol, sub := range m.subs {
		all = append(all, stopped{sub, p.unsubscribe(protocol, sub)})
	}
	p.mu.Unlock()
	for _, s := range all {
		s.sub.finish(s.remove)
	}
	return refused
}

// pageClosed is the verdict on what a session took and left behind.
var pageClosed = verdict{level: verdictRefused, code: identity.CodeClosed, text: "page closed"}

// Send puts a message into the outbox of (To, Protocol). It never blocks, but for
// a lone small message, which it writes itself: that may take half a second where
// the connection takes nothing.
// Messages of one conversation arrive in the order of the calls. An error means
// that Done is not called: CodeMalformed, CodeReserved, CodeTooLarge,
// CodeQueueFull, CodeLimit, CodeClosed. Otherwise Done is called once: for level
// Queued before Send returns, unless it waits for room in the outbox; else from
// another goroutine, maybe before Send returns; with the errors of gateway.md §2.6.
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
	e.lone = c.unresolved == 1 && !out.More
	done, queued := e.done, e.level == network.Queued && !e.over
	if queued {
		e.done = c.late
	}
	now := c.claimNow(e)
	p.mu.Unlock()
	p.node.count.sent.Add(1)
	if now != nil {
		now.writeNow()
	} else {
		c.signal()
	}
	if queued {
		done(network.Outcome{Level: network.Queued})
	}
	return func() { c.cancel(e) }, nil
}
