package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libtls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Node is the full host of a node, and the maker of its pages' bare ones.
// Everything that runs in it ends before Close returns.
type Node struct {
	// Static after construction.
	cfg        Config
	log        *slog.Logger
	host       libhost.Host
	limits     libnet.ResourceManager
	gater      *gater
	net        *endpoint
	relay      *relayService // nil unless this node relays for others
	relays     atomic.Pointer[relayClient]
	ports      atomic.Pointer[ports] // nil without port mapping
	reach      atomic.Int32          // a libnet.Reachability
	pageListen []ma.Multiaddr
	base       ma.Multiaddr // /p2p/<node>/p2p-circuit
	maxShaking int          // of each node: circuits that haven't finished their handshake
	roam       *roamer
	names      *names
	puncher    puncher // without a service where there is no hole punching
	background sync.WaitGroup
	making     sync.WaitGroup // calls of Page under way
	cancel     context.CancelFunc

	mu      sync.RWMutex
	look    Finder
	pages   map[peer.ID]*Page // nil: being made
	shaking map[peer.ID]int   // circuits of a node that haven't finished their handshake
	carried map[peer.ID]int   // circuits on the connection to a node
	punched map[peer.ID]bool  // peers with a connection made by hole punching

	improving map[peer.ID]bool // peers that a better path is looked for; nil for none yet
	closed    bool
}

// New makes a node's host and starts it: it listens when New returns, and
// nothing of that waits for the network.
func New(key identity.Key, cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg.withDefaults(), maxShaking: defaultMaxShaking,
		pages: make(map[peer.ID]*Page), punched: make(map[peer.ID]bool),
		carried: make(map[peer.ID]int), shaking: make(map[peer.ID]int),
	}
	n.log = n.cfg.Logger
	n.roam, n.names = newRoamer(n), newNames()
	n.gater = &gater{next: n.cfg.Gater, others: make(map[peer.ID]bool)}
	n.base = ma.StringCast("/p2p/" + key.PeerID().String()).Encapsulate(circuitAddr)
	n.pageListen, _ = parseAddrs(n.cfg.PageListen) // validated; derived ones are well-formed
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	if err := n.start(ctx, key); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, key identity.Key) (err error) {
	if n.limits, err = newLimits(); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	if err := errIfTaken(n.cfg.Listen); err != nil {
		return errors.Join(err, n.limits.Close())
	}
	opts, unused, err := n.hostOptions(key)
	if err != nil {
		return err
	}
	if n.host, err = libp2p.New(opts...); err != nil {
		n.host = nil // an interface that holds nothing
		for _, c := range unused {
			err = errors.Join(err, c.Close())
		}
		return fmt.Errorf("start libp2p: %w", err)
	}
	if err := n.listen(); err != nil {
		return err // Close closes the host
	}
	if n.net, err = newEndpoint(n, n.host); err != nil {
		return err
	}
	n.roam.watch(n.host.Network())
	n.host.Network().Notify(&libnet.NotifyBundle{DisconnectedF: n.forgetPunch, ConnectedF: n.moveCircuits})
	if err := n.startPunching(ctx); err != nil {
		return fmt.Errorf("watch own addresses: %w", err)
	}
	if err := n.startRelaying(); err != nil {
		return err
	}
	readdress, err := n.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("parley pages"))
	if err != nil {
		return fmt.Errorf("watch own addresses: %w", err)
	}
	n.background.Go(func() { n.readdressPages(ctx, readdress) })
	relays, err := newRelayClient(n)
	if err != nil {
		return fmt.Errorf("keep relays: %w", err)
	}
	n.relays.Store(relays)
	n.background.Go(func() { n.roam.run(ctx) })
	n.background.Go(func() { relays.run(ctx) })
	return nil
}

// hostOptions also gives what must be closed where no host is made of it; a
// host closes it itself.
func (n *Node) hostOptions(key identity.Key) (_ []libp2p.Option, unused []io.Closer, _ error) {
	conns, err := connmgr.NewConnManager(n.cfg.Conns.Low, n.cfg.Conns.High, connmgr.WithGracePeriod(n.cfg.Conns.Grace))
	if err != nil {
		return nil, nil, errors.Join(err, n.limits.Close())
	}
	peers, err := pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(nodeAddresses))
	if err != nil {
		return nil, nil, errors.Join(err, conns.Close(), n.limits.Close())
	}
	unused = []io.Closer{conns, peers, n.limits}
	opts := []libp2p.Option{
		libp2p.Identity(key.Libp2p()),
		libp2p.Peerstore(peers),
		libp2p.UserAgent(n.cfg.UserAgent),
		libp2p.ProtocolVersion("parley/1"),
		libp2p.ResourceManager(n.limits),
		libp2p.ConnectionGater(n.gater),
		libp2p.ConnectionManager(conns),
		libp2p.Security(libtls.ID, libtls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.DefaultMuxers,
		libp2p.DefaultTransports,
		libp2p.EnableRelay(),
		libp2p.NoListenAddrs, // see listen
		libp2p.MultiaddrResolver(n.names),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials), swarm.WithDialTimeoutLocal(dialTimeout)),
	}
	if n.cfg.Registerer != nil {
		opts = append(opts, libp2p.PrometheusRegisterer(n.cfg.Registerer))
	} else {
		opts = append(opts, libp2p.DisableMetrics())
	}
	if !n.cfg.NoNAT {
		if listensBeyond(n.cfg.Listen) && !n.cfg.NoPortMap {
			opts = append(opts, libp2p.NATManager(n.mapPorts))
		}
		opts = append(opts,
			libp2p.EnableNATService(),
			libp2p.EnableAutoNATv2(),
			libp2p.EnableHolePunching(holepunch.WithTracer((*punchTracer)(n)),
				holepunch.DirectDialTimeout(punchTimeout), n.keepService),
		)
	}
	opts = append(opts, libp2p.AddrsFactory(n.announced))
	return append(opts, n.cfg.Options...), unused, nil
}

// announced makes what the node announces of what libp2p would. A star's address
// counts while it is joined, which is for Announce to say.
func (n *Node) announced(addrs []ma.Multiaddr) []ma.Multiaddr {
	out := ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return !isStar(a) })
	if n.cfg.NoNAT { // nobody finds out whether the node is reachable, so relays are always announced
		out = append(out, n.relayAddrs()...)
	}
	if n.cfg.Announce != nil {
		out = append(out, n.cfg.Announce()...)
	}
	return out
}

// Readdress announces at once what Config.Announce gives now. libp2p itself looks
// every 5 s; only a change of what is known of relays makes it look sooner. It never
// blocks and may be called by anybody, also before and after the node's life.
func (n *Node) Readdress() {
	if c := n.relays.Load(); c != nil {
		select {
		case c.again <- struct{}{}:
		default:
		}
	}
}

// relayAddrs are the addresses through the relays that hold a place for the node.
func (n *Node) relayAddrs() []ma.Multiaddr {
	if c := n.relays.Load(); c != nil {
		return c.announced()
	}
	return nil
}

// Reachable is what is known of whether others reach the node by themselves.
func (n *Node) Reachable() libnet.Reachability { return libnet.Reachability(n.reach.Load()) }

// startRelaying makes the node answer hop streams, for its pages and, if
// wanted, for others.
func (n *Node) startRelaying() error {
	profile := n.cfg.RelayProfile
	if profile == "" || profile == RelayOff {
		n.registerHop(false)
		return nil
	}
	rc := relay.DefaultResources()
	if profile == RelayOwn {
		rc.Limit = nil
	}
	var err error
	n.relay, err = newRelayService(n.host, rc, n.cfg.RelayAllow)
	if err != nil {
		return fmt.Errorf("start relay: %w", err)
	}
	n.registerHop(true)
	return nil
}

// Close closes the pages and the host, and returns when everything has ended.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	pages := make([]*Page, 0, len(n.pages))
	for _, p := range n.pages {
		if p != nil {
			pages = append(pages, p)
		}
	}
	n.mu.Unlock()
	n.making.Wait() // what they made meanwhile they close

	var closing sync.WaitGroup
	for _, p := range pages {
		closing.Go(func() { _ = p.Close() })
	}
	closing.Wait()
	n.cancel()
	if n.net != nil {
		n.net.stop()
	}
	if n.relay != nil {
		n.relay.close()
	}
	var err error
	if n.host != nil {
		err = n.host.Close()
	}
	if n.net != nil {
		n.net.wait()
	}
	n.background.Wait()
	return err
}

// Network is the node's own network.Network: the Node itself.
func (n *Node) Network() network.Network { return n }

// Local is the node's peer id.
func (n *Node) Local() identity.PeerID { return n.host.ID() }

// Open implements network.Network.
func (n *Node) Open(ctx context.Context, to identity.PeerID, protocols ...network.Protocol) (network.Stream, error) {
	return n.net.Open(ctx, to, protocols...)
}

// Handle implements network.Network.
func (n *Node) Handle(p network.Protocol, h network.Handler) (remove func()) {
	return n.net.Handle(p, h)
}

// Connect makes a connection to a peer if there is none, by any path. Errors
// are those of Open.
func (n *Node) Connect(ctx context.Context, to identity.PeerID) error { return n.net.Connect(ctx, to) }

// Connected reports whether there is a connection to a peer, by whatever path.
func (n *Node) Connected(id identity.PeerID) bool { return n.net.Connected(id) }

// AddAddrs tells addresses of a peer that came from elsewhere. They are
// forgotten after ttl without a connection.
func (n *Node) AddAddrs(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration) {
	n.net.AddAddrs(id, addrs, ttl)
}

// Notify is Page's Notify for the node's own connections.
func (n *Node) Notify(f func(id identity.PeerID)) (stop func()) { return n.net.Notify(f) }

// Path tells how the node itself reaches a peer now, and why not otherwise.
func (n *Node) Path(id identity.PeerID) PathInfo { return n.net.Path(id) }

// Libp2p is the node's host, for what needs all of libp2p: DHT, bitswap, mDNS.
func (n *Node) Libp2p() libhost.Host { return n.host }

// Addrs are the node's addresses, each ending in /p2p/<id>.
func (n *Node) Addrs() []ma.Multiaddr {
	own := ma.StringCast("/p2p/" + n.host.ID().String())
	var out []ma.Multiaddr
	for _, a := range n.host.Addrs() {
		out = append(out, a.Encapsulate(own))
	}
	return out
}

// SetFinder sets what looks for addresses of peers, for the node and its pages.
// nil looks nowhere.
func (n *Node) SetFinder(f Finder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.look = f
}

func (n *Node) finder() Finder {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.look
}

// page gives the living page of id, or nil.
func (n *Node) page(id peer.ID) *Page {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.pages[id]
}

// circuitBase is the address of the node's pages inside the process.
func (n *Node) circuitBase() ma.Multiaddr { return n.base }

func (n *Node) relayHandler() libnet.StreamHandler {
	if n.relay == nil {
		return nil
	}
	return n.relay.handler
}

// Found tells the node and all its pages addresses of a peer that discovery
// learnt; whoever waits for the peer tries again. They are forgotten after ttl
// without a connection.
func (n *Node) Found(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration) {
	n.net.AddAddrs(id, addrs, ttl)
	for _, p := range n.livePages() {
		p.watch.changed(id)
	}
}

func (n *Node) livePages() []*Page {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]*Page, 0, len(n.pages))
	for _, p := range n.pages {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// readdressPages passes changes of the node's addresses on to its pages, which
// announce them too.
func (n *Node) readdressPages(ctx context.Context, sub event.Subscription) {
	defer sub.Close()
	for {
		select {
		case _, ok := <-sub.Out():
			if !ok {
				return
			}
			for _, p := range n.livePages() {
				p.bare.readdress()
			}
		case <-ctx.Done():
			return
		}
	}
}
