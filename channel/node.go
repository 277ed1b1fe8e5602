package channel

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/channel/internal/relay"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// Node holds a node's spaces, members and connections. New makes it, Run lives.
// Join waits until Run has begun; once it has ended, everything fails with Closed.
type Node struct {
	// static after New
	cfg     Config
	limits  Limits
	conns   conn.Limits
	metrics conn.Metrics
	buffers conn.Buffers
	log     *slog.Logger
	self    identity.AgentID // the node's own key as an agent
	started chan struct{}    // closed when Run has begun

	// guarded by mu
	mu        sync.Mutex
	ctx       context.Context // of Run; nil before
	stopped   bool
	spaces    map[SpaceHash]*space
	hashes    map[[32]byte]target // what a spaceHash on the wire means
	members   int
	links     map[*link]struct{}
	byPeer    map[identity.PeerID][]*link // oldest first
	dialing   map[identity.PeerID]*dial
	addresses map[string]int
	refused   [3]int64 // connections in all and by address, members
	loop      *loop
	relay     *relay.Service                 // set where this node relays for others
	relays    []identity.PeerID              // that lead to this node
	failed    map[identity.PeerID]time.Time  // nodes that could not be reached lately
	distant   map[identity.AgentID]time.Time // agents that only a relay of this node's led to lately
	changed   chan struct{}                  // closed, and made anew, when agents join or leave
	wg        sync.WaitGroup
}

// target is a space, or a protocol in it.
type target struct {
	space    *space
	protocol string // "" is the space's system channels
}

// New makes a node.
func New(cfg Config) (*Node, error) {
	if cfg.Network == nil {
		return nil, identity.Errorf(identity.CodeInternal, "channel: no network")
	}
	n := &Node{
		changed: make(chan struct{}), failed: make(map[identity.PeerID]time.Time),
		distant: make(map[identity.AgentID]time.Time),
		cfg:     cfg, started: make(chan struct{}), limits: cfg.Limits.withDefaults(), conns: cfg.Limits.conn(), log: cfg.Logger,
		spaces: make(map[SpaceHash]*space), hashes: make(map[[32]byte]target), links: make(map[*link]struct{}),
		byPeer: make(map[identity.PeerID][]*link), dialing: make(map[identity.PeerID]*dial), addresses: make(map[string]int),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.log = n.log.With("component", "channel")
	if self, err := identity.AgentOf(cfg.Network.Local()); err == nil {
		n.self = self
	}
	return n, nil
}

// Run accepts connections until ctx ends. It then ends them in order: what was
// sent leaves, and every channel that its user has not closed ends with an error
// at the other end, within 0.75 s. It returns when all of them and everything
// else that the node started have ended.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	if n.ctx != nil || n.stopped {
		n.mu.Unlock()
		return errorf(Closed, "a channel node runs once")
	}
	n.ctx = ctx
	close(n.started)
	n.mu.Unlock()

	remove := n.Accept(n.cfg.Network)
	<-ctx.Done()
	remove()
	n.stop()
	n.wg.Wait()
	return nil
}

// stop refuses what is new and ends what is there.
func (n *Node) stop() {
	n.mu.Lock()
	n.stopped = true
	var listeners []*listener
	for _, s := range n.spaces {
		for _, m := range s.members {
			for _, l := range m.listeners {
				listeners = append(listeners, l)
			}
		}
	}
	links := make([]*link, 0, len(n.links))
	for l := range n.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	for _, l := range listeners {
		l.end(ErrClosed)
	}
	for _, l := range links {
		l.conn.Drain()
	}
}

// start runs f in a goroutine that Run waits for. It reports false where the
// node does not run.
func (n *Node) start(f func(ctx context.Context)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil || n.stopped {
		return false
	}
	ctx := n.ctx
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		f(ctx)
	}()
	return true
}

// Accept takes connections for this node on another identity that leads to it,
// such as a page's, until remove is called; they live on. Those on the node's own
// identity are taken while Run runs.
func (n *Node) Accept(on network.Network) (remove func()) {
	plain := on.Handle(Protocol, n.handler(wire.Unpacked))
	packed := on.Handle(ProtocolPacked, n.handler(wire.Packed))
	return func() {
		plain()
		packed()
	}
}

func (n *Node) handler(e wire.Encoding) network.Handler {
	return func(ctx context.Context, s network.Stream) {
		err := n.Serve(ctx, streamCarrier(s, e, false))
		n.log.Debug("connection ended", "peer", s.Remote(), "reason", err)
	}
}

func streamCarrier(s network.Stream, e wire.Encoding, dialer bool) Carrier {
	c := Carrier{Stream: s, Dialer: dialer, Format: e, Local: s.Local(), Remote: s.Remote(), Path: s.Path()}
	if a, ok := s.(network.Addressed); ok {
		c.Address = AddressKey(a.RemoteIP())
	}
	if r, ok := s.(network.Relayed); ok {
		c.Relay = r.Relay()
	}
	return c
}

// AddressKey is what counts as one address: an IPv4 address, or the /64 that one
// customer has of IPv6; "" where there is none, and for this machine, whose nodes
// are told apart by their ids.
func AddressKey(ip netip.Addr) string {
	switch {
	case !ip.IsValid() || ip.IsLoopback():
		return ""
	case ip.Is6():
		p, err := ip.WithZone("").Prefix(64)
		if err != nil {
			return ""
		}
		return p.Addr().String()
	}
	return ip.String()
}

// Admits tells whether there is room for a connection from an address
// (Carrier.Address), before anything is allocated for it. Errors: Limit, Closed.
func (n *Node) Admits(address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.admits(address, false)
}

// admits is called with the lock held.
func (n *Node) admits(address string, dialer bool) error {
	switch {
	case n.ctx == nil || n.stopped:
		return ErrClosed
	case len(n.links) >= n.limits.Connections:
		n.refused[0]++
		return errorf(Limit, "too many connections")
	case !dialer && n.addresses[address] >= n.limits.PerAddress:
		n.refused[1]++
		return errorf(Limit, "too many connections from one address")
	}
	return nil
}

// Serve makes a connection of a carrier and serves it until it ends or ctx does.
// It closes the carrier. Errors: Limit, which refuses it before anything is
// allocated, Closed, Lost.
func (n *Node) Serve(ctx context.Context, c Carrier) error {
	l, err := n.newLink(c)
	if err != nil {
		c.Stream.Close()
		return err
	}
	return n.serve(ctx, l)
}

func (n *Node) serve(ctx context.Context, l *link) error {
	err := l.conn.Run(ctx)
	n.removeLink(l)
	return err
}

// newLink registers a connection, which serve then has to run. It counts as one
// of the goroutines that Run waits for.
func (n *Node) newLink(c Carrier) (*link, error) {
	if c.Path == "" {
		c.Path = network.PathDirect
	}
	if c.Address == "" {
		c.Address = c.Remote.String()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.admits(c.Address, c.Dialer); err != nil {
		return nil, err
	}
	l := &link{node: n, remote: c.Remote, leads: c.Remote, address: c.Address, path: c.Path, relay: c.Relay, counted: !c.Dialer}
	if l.leads == "" {
		l.leads = c.Claimed
	}
	cfg := conn.Config{
		Dialer: c.Dialer, Encoding: c.Format, Local: c.Local, Remote: c.Remote, Features: n.features(),
		Limits: n.conns, Metrics: &n.metrics, Buffers: &n.buffers,
	}
	if _, err := rand.Read(cfg.Nonce[:]); err != nil {
		return nil, fmt.Errorf("random nonce: %w", err)
	}
	l.conn = conn.New(c.Stream, cfg, l)
	n.links[l] = struct{}{}
	if l.counted {
		n.addresses[l.address]++
	}
	if l.leads != "" {
		n.byPeer[l.leads] = append(n.byPeer[l.leads], l)
	}
	n.wg.Add(1)
	return l, nil
}

func (n *Node) removeLink(l *link) {
	n.mu.Lock()
	delete(n.links, l)
	r := n.relay
	if l.counted {
		if n.addresses[l.address]--; n.addresses[l.address] == 0 {
			delete(n.addresses, l.address)
		}
	}
	if rest := slices.DeleteFunc(n.byPeer[l.leads], func(o *link) bool { return o == l }); len(rest) > 0 {
		n.byPeer[l.leads] = rest
	} else {
		delete(n.byPeer, l.leads)
	}
	n.mu.Unlock()
	if r != nil {
		r.Gone(l)
	}
	n.wg.Done()
}

// features is called with the lock held.
func (n *Node) features() uint64 {
	f := uint64(mux.FeatureFlow | mux.FeatureProofs | mux.FeatureRelay)
	if n.relay != nil {
		f |= mux.FeatureRelayer
	}
	return f
}

// membersChanged wakes who keeps registrations. It is called with the lock held.
func (n *Node) membersChanged() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Space gives the space of a name, 1 to 255 bytes of UTF-8. A bad name shows when
// an agent joins.
func (n *Node) Space(name string) Space {
	return &spaceRef{node: n, name: name, hash: HashSpace(name)}
}

// running waits until Run has begun.
func (n *Node) running(ctx context.Context) error {
	select {
	case <-n.started:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
