package channel

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/mux"
)

// registryDomain is the space of the channels by which agents register.
const registryDomain = "parley/relay"

// Retries of UseRelay while no relay serves.
const (
	relayRetry    = time.Second
	maxRelayRetry = time.Minute
)

// UseRelay keeps a contract with one of these relays until ctx ends: it asks
// them in turn, registers the agents of this node, renews at half-life, and moves
// to the next when the relay is lost or refuses. Others then reach the agents
// through it. It returns nil when ctx ends, and Closed when the node does.
func (n *Node) UseRelay(ctx context.Context, relays ...identity.PeerID) error {
	if err := n.running(ctx); err != nil {
		return nil
	}
	wait := relayRetry
	for at := 0; ; at++ {
		if err := n.awaitMember(ctx); errors.Is(err, ErrClosed) {
			return ErrClosed
		} else if err != nil {
			return nil
		}
		if at > 0 && at%len(relays) == 0 { // all were tried since the last success
			if err := pause(ctx, wait); err != nil {
				return nil
			}
			wait = min(2*wait, maxRelayRetry)
		}
		if len(relays) == 0 {
			return errorf(RelayRefused, "no relay is named")
		}
		served, err := n.useOne(ctx, relays[at%len(relays)])
		if ctx.Err() != nil {
			return nil
		}
		if n.isStopped() {
			return ErrClosed
		}
		n.log.Info("relay is not there", "relay", relays[at%len(relays)], "reason", err)
		if served {
			wait = relayRetry
			at = at % len(relays)
			if len(relays) > 1 {
				relays = append(slices.Clone(relays[at+1:]), relays[:at+1]...) // the lost one last
				at = -1
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitMember waits until an agent has joined a space: nobody else is of use to a
// relay.
func (n *Node) awaitMember(ctx context.Context) error {
	for {
		n.mu.Lock()
		there, changed := n.members > 0, n.changed
		stopped := n.ctx.Done()
		n.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-changed:
		case <-stopped:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// oneOfEach gives one membership of each agent of this node.
func (n *Node) oneOfEach() map[identity.AgentID]*member {
	n.mu.Lock()
	defer n.mu.Unlock()
	members := make(map[identity.AgentID]*member)
	for _, s := range n.spaces {
		for a, m := range s.members {
			members[a] = m
		}
	}
	return members
}

func (n *Node) isStopped() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stopped
}

// useOne uses one relay until it is lost. served reports that there was a
// contract.
func (n *Node) useOne(ctx context.Context, relay identity.PeerID) (served bool, err error) {
	agent, err := identity.AgentOf(relay)
	if err != nil {
		return false, err
	}
	l, err := n.connect(ctx, relay)
	if err != nil {
		return false, err
	}
	u := &relayUse{node: n, link: l, relay: relay, agent: agent, streams: make(map[identity.AgentID]*conn.Stream)}
	life, err := n.ask(ctx, l)
	if errors.Is(err, ErrRelayRefused) { // it may know one of the agents
		u.prove(ctx)
		life, err = n.ask(ctx, l)
	}
	if err != nil {
		return false, err
	}
	defer u.end()
	return true, u.keep(ctx, life)
}

// ask requests or renews a contract and returns how long it lasts.
func (n *Node) ask(ctx context.Context, l *link) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, conn.OpenTimeout)
	defer cancel()
	replies := make(chan mux.Message, 4)
	n.mu.Lock()
	l.replies = replies
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		l.replies = nil
		n.mu.Unlock()
	}()
	l.conn.Send(&mux.Message{Kind: mux.RelayRequest})
	for {
		select {
		case m := <-replies:
			switch {
			case m.Kind == mux.Error:
				return 0, &Error{Code: RelayRefused, Text: m.Text, Remote: true}
			case m.Kind == mux.RelayTerms:
				const longest = 24 * time.Hour
				return min(max(time.Duration(min(m.Terms.ExpireMs, uint64(longest/time.Millisecond)))*time.Millisecond, time.Second), longest), nil
			case l.conn.DocumentOnly(): // no terms will come
				return time.Hour, nil
			}
		case <-l.conn.Done():
			return 0, l.conn.Err()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// relayUse is a contract that this node has with a relay. It belongs to the
// goroutine of UseRelay.
type relayUse struct {
	node    *Node
	link    *link
	relay   identity.PeerID
	agent   identity.AgentID // the relay's own
	streams map[identity.AgentID]*conn.Stream
}

// keep registers agents and renews the contract until the relay is lost.
func (u *relayUse) keep(ctx context.Context, life time.Duration) error {
	n := u.node
	n.setRelay(u.relay, true)
	renew := time.NewTimer(life / 2)
	defer renew.Stop()
	for {
		changed, ended, err := u.register(ctx)
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ended:
		case <-renew.C:
			if life, err = n.ask(ctx, u.link); err != nil {
				return err
			}
			renew.Reset(life / 2)
		case <-u.link.conn.Done():
			return u.link.conn.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// register brings the registered agents in line with the members of this node.
// changed tells when to do so again; ended, when one registration has ended.
func (u *relayUse) register(ctx context.Context) (changed, ended <-chan struct{}, err error) {
	n := u.node
	n.mu.Lock()
	changed = n.changed
	n.mu.Unlock()
	members := n.oneOfEach()
	for a, s := range u.streams {
		if members[a] == nil {
			s.Close()
			delete(u.streams, a)
		}
	}
	for a, m := range members {
		if s := u.streams[a]; s != nil && s.Err() == nil {
			ended = s.Done()
			continue
		}
		s, err := u.registerOne(ctx, m)
		if err != nil {
			return nil, nil, err
		}
		u.streams[a] = s
		ended = s.Done()
	}
	return changed, ended, nil
}

// prove shows the relay the agents of this node: it refuses the channels, but
// knows then who is there.
func (u *relayUse) prove(ctx context.Context) {
	for _, m := range u.node.oneOfEach() {
		if s, err := u.registerOne(ctx, m); err == nil {
			s.Close()
		}
	}
}

// registerOne opens the channel that registers an agent: to the relay's own id,
// carrying nothing.
func (u *relayUse) registerOne(ctx context.Context, m *member) (*conn.Stream, error) {
	a := attempt{member: m, to: u.agent, protocol: registryDomain}
	a.addr = address{space: HashSpace(registryDomain), to: u.agent, from: m.agent}
	ch, err := a.openOn(ctx, u.link, 0)
	if err != nil {
		return nil, err
	}
	return ch.stream, nil
}

func (u *relayUse) end() {
	for _, s := range u.streams {
		s.Close()
	}
	u.node.setRelay(u.relay, false)
}

// setRelay notes a relay that leads to this node and tells the Locator.
func (n *Node) setRelay(relay identity.PeerID, use bool) {
	n.mu.Lock()
	n.relays = slices.DeleteFunc(n.relays, func(r identity.PeerID) bool { return r == relay })
	if use {
		n.relays = append(n.relays, relay)
	}
	var members []*member
	for _, s := range n.spaces {
		for _, m := range s.members {
			members = append(members, m)
		}
	}
	n.mu.Unlock()
	for _, m := range members {
		n.announce(m)
	}
}

// Relays lists the relays that lead to this node now.
func (n *Node) Relays() []identity.PeerID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.relays)
}
