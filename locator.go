package parley

import (
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	libpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/topic"
)

// locator finds agents of spaces and tells where this node's are
// (docs/spec/channels.md §5). It is a channel.Locator:
//
//	Announce, Withdraw ─▶ wanted ─▶ Run ─▶ presence in parley/space/<hash>
//	Locate ◀── presence of other nodes, or else the agent's page record, or else
//	           the nodes of p2p.muxPeers
//
// What an agent says of itself in its space are the relays that lead to it.
type locator struct {
	node *Node
	wake chan struct{} // capacity 1: wanted differs from held

	mu      sync.Mutex
	wanted  map[attendance]*attending
	arrived map[channel.SpaceHash]chan struct{} // closed when presence in a space changes; only where somebody waits

	held map[attendance]*attending // owned by Run
}

// attendance is an agent in a space.
type attendance struct {
	space channel.SpaceHash
	agent identity.AgentID
}

// attending is what an attendance says. It is not changed once made.
type attending struct {
	agent  identity.Agent
	relays []identity.PeerID
	page   *topic.Page // owned by Run
}

const (
	// locateWait bounds the search for an agent that nothing is known of: it may
	// just have joined, and its presence be on the way.
	locateWait = 2 * time.Second
	// attendRetry is when an agent is announced again where that failed.
	attendRetry = 5 * time.Second
	// maxRelayAddrs bounds the addresses of relays in a presence record, whose
	// state holds 1 KiB.
	maxRelayAddrs    = 8
	maxRelayAddrText = 110
)

func newLocator(n *Node) *locator {
	return &locator{node: n, wake: make(chan struct{}, 1), wanted: make(map[attendance]*attending),
		arrived: make(map[channel.SpaceHash]chan struct{}), held: make(map[attendance]*attending)}
}

func spaceTopic(space channel.SpaceHash) string {
	return topic.SpacePrefix + hex.EncodeToString(space[:])
}

// Announce implements channel.Locator.
func (l *locator) Announce(space channel.SpaceHash, agent identity.Agent, relays []identity.PeerID) {
	l.mu.Lock()
	l.wanted[attendance{space, agent.Agent()}] = &attending{agent: agent, relays: relays}
	l.mu.Unlock()
	l.poke()
}

// Withdraw implements channel.Locator.
func (l *locator) Withdraw(space channel.SpaceHash, agent identity.AgentID) {
	l.mu.Lock()
	delete(l.wanted, attendance{space, agent})
	l.mu.Unlock()
	l.poke()
}

func (l *locator) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run keeps presence as it is wanted until ctx ends.
func (l *locator) Run(ctx context.Context) error {
	retry := time.NewTimer(attendRetry)
	defer retry.Stop()
	for {
		if !l.settle(ctx) {
			retry.Reset(attendRetry)
		}
		select {
		case <-l.wake:
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// settle brings presence in line with what is wanted, as far as it can.
func (l *locator) settle(ctx context.Context) (done bool) {
	wanted := make(map[attendance]*attending)
	l.mu.Lock()
	for at, a := range l.wanted {
		wanted[at] = a
	}
	l.mu.Unlock()
	for at, a := range l.held {
		if wanted[at] == nil {
			l.leave(at, a)
		}
	}
	done = true
	for at, a := range wanted {
		if l.held[at] == a {
			continue
		}
		if err := l.attend(ctx, at, a); err != nil {
			l.node.log.Warn("an agent of a space is not announced", "agent", a.agent.Agent(), "err", err)
			done = false
		}
	}
	return done
}

func (l *locator) attend(ctx context.Context, at attendance, a *attending) (err error) {
	before := l.held[at]
	if before != nil {
		a.page = before.page
	} else if a.page, err = l.node.topics.Attend(a.agent, spaceSink{l, at.space}); err != nil {
		return err
	}
	if _, err := a.page.Subscribe(ctx, spaceTopic(at.space), l.relayState(a.relays)); err != nil {
		return err
	}
	if before == nil {
		l.node.backend.rooms.enter(spaceTopic(at.space))
	}
	l.held[at] = a
	return nil
}

func (l *locator) leave(at attendance, a *attending) {
	delete(l.held, at)
	l.node.backend.rooms.exit(spaceTopic(at.space))
	a.page.Leave()
}

// relayState is an agent's state in its space: a list of multiaddrs of relays,
// each ending in /p2p/ and the relay's id.
func (l *locator) relayState(relays []identity.PeerID) []byte {
	var list []string
	for _, r := range relays {
		own, err := ma.NewComponent("p2p", r.String())
		if err != nil {
			continue
		}
		known := l.node.host.Libp2p().Peerstore().Addrs(r)
		for _, a := range append(slices.Clip(known[:min(len(known), 2)]), nil) { // the id alone at last
			text := ma.Join(a, own.Multiaddr()).String()
			if len(text) <= maxRelayAddrText && len(list) < maxRelayAddrs {
				list = append(list, text)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	state, err := cbor.Marshal(list)
	if err != nil { // texts can always be encoded
		return nil
	}
	return state
}

// readRelays reads what relayState made elsewhere, and notes the addresses.
func (l *locator) readRelays(state []byte) []identity.PeerID {
	var list []string
	if len(state) == 0 || cbor.Unmarshal(state, &list) != nil {
		return nil
	}
	var relays []identity.PeerID
	seen := make(map[identity.PeerID]bool)
	for _, text := range list[:min(len(list), maxRelayAddrs)] {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			continue
		}
		addr, id := libpeer.SplitAddr(a)
		if id == "" {
			continue
		}
		if len(addr) > 0 {
			l.node.host.Found(id, []ma.Multiaddr{addr}, peerstore.TempAddrTTL)
		}
		if !seen[id] {
			seen[id] = true
			relays = append(relays, id)
		}
	}
	return relays
}

// Locate implements channel.Locator: presence first, then the page record of an
// agent that is a page.
func (l *locator) Locate(ctx context.Context, space channel.SpaceHash, agent identity.AgentID) ([]channel.Location, error) {
	id, err := agent.PeerID()
	if err != nil {
		return nil, err
	}
	if found := l.present(space, id); len(found) > 0 {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, locateWait)
	defer cancel()
	pages := make(chan []channel.Location, 1)
	go func() { // ends with ctx; waited for below
		var found []channel.Location
		if node, ok := l.node.found.NodeOf(ctx, id); ok {
			found = []channel.Location{{Node: node}}
		}
		pages <- found
	}()
	found, looking := l.await(ctx, space, id, pages)
	if looking {
		cancel()
		<-pages
	}
	if len(found) == 0 { // presence does not go over a mux
		for node := range l.node.muxAt {
			found = append(found, channel.Location{Node: node})
		}
	}
	return found, nil
}

// await waits for presence or the page's record, whichever is first. looking
// tells that the second is not there yet.
func (l *locator) await(ctx context.Context, space channel.SpaceHash, id identity.PeerID, pages <-chan []channel.Location) (found []channel.Location, looking bool) {
	looking = true
	for {
		news := l.news(space)
		if found := l.present(space, id); len(found) > 0 {
			return found, looking
		}
		select {
		case <-news:
		case found := <-pages:
			if looking, pages = false, nil; len(found) > 0 {
				return found, false
			}
		case <-ctx.Done():
			return nil, looking
		}
	}
}

// present lists the nodes that tell of an agent in a space.
func (l *locator) present(space channel.SpaceHash, id identity.PeerID) []channel.Location {
	var out []channel.Location
	for _, p := range l.node.topics.Where(spaceTopic(space), id) {
		out = append(out, channel.Location{Node: p.Node, Relays: l.readRelays(p.State)})
	}
	return out
}

// news is closed when presence in a space changes.
func (l *locator) news(space channel.SpaceHash) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.arrived[space]
	if !ok {
		c = make(chan struct{})
		l.arrived[space] = c
	}
	return c
}

// spaceSink hears of presence in a space.
type spaceSink struct {
	locator *locator
	space   channel.SpaceHash
}

// Publish implements topic.Sink: nothing of parley's is published there.
func (spaceSink) Publish(network.Publication) {}

// Presence implements topic.Sink.
func (s spaceSink) Presence(string, network.Member, bool) {
	s.locator.mu.Lock()
	defer s.locator.mu.Unlock()
	if c, ok := s.locator.arrived[s.space]; ok {
		close(c)
		delete(s.locator.arrived, s.space)
	}
}
