package parley

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/admin"
	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/channel/muxws"
	"github.com/parley-p2p/parley/discover"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/consent"
	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/peer"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/transport"
	"github.com/parley-p2p/parley/topic"
)

// Node is a running parley: an identity on the network, a gateway for pages, a
// site. New builds it, Run lives, Close gives back what a Node that never ran
// holds.
type Node struct {
	// Static after New.
	cfg      Config
	log      *slog.Logger
	data     *Data
	host     *host.Node
	stars    *transport.Transport
	found    *discover.Discovery
	peers    *peer.Node
	router   *topic.Router
	topics   *topic.Node
	located  *locator
	channels *channel.Node
	muxes    *muxws.Service             // nil where channels use no WebSocket
	muxAt    map[identity.PeerID]string // nodes of p2p.muxPeers, and their URLs
	backend  *backend
	gateway  *gateway.Gateway
	access   *access.Policy
	consent  *consent.Book // what the person allowed pages of other sites
	pages    *pageWatch
	server   *http.Server
	admin    *admin.Admin
	star     *star.Server // nil without one
	sockets  []net.Listener
	port     int
	began    time.Time
	patience patience

	serving    atomic.Bool        // pages and peers are taken
	stopTopics context.CancelFunc // ends the topics' router, which starts with New
}

// patience is how long the steps of a shutdown may take.
type patience struct {
	drain time.Duration // for messages on their way
	close time.Duration // for sessions to be told; channels have 0.75 s more of their own
}

// Less in all than the 5 s after which a service manager loses its own patience
// (gateway.md §10).
const (
	drainTime = 2500 * time.Millisecond
	closeTime = 1500 * time.Millisecond
)

// starLinger is for a star's sessions to close from their side.
const starLinger = 500 * time.Millisecond

// New builds a node: it locks the data folder, opens its listeners and makes
// its host, so that a start that can't work fails here. Nothing is served and
// nobody is met before Run. The Config must pass Validate.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: cfg.Log.With("component", "node"), began: time.Now(), patience: patience{drainTime, closeTime}}
	for _, build := range []func() error{n.openData, n.openSockets, n.makeHost, n.makeTalk, n.makeChannels, n.makeGateway, n.makeStar} {
		if err := build(); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

func (n *Node) openData() (err error) {
	n.data, err = OpenData(n.cfg.Node.Data, n.siteName())
	return err
}

func (n *Node) makeStar() (err error) {
	if n.cfg.Star.Enabled {
		n.star, err = n.cfg.Star.build(n.cfg.Log.With("component", "star"), n.cfg.version(), starLinger)
	}
	return err
}

func (n *Node) openSockets() (err error) {
	n.sockets, n.port, err = n.cfg.Server.listen(context.Background())
	return err
}

func (n *Node) makeHost() error {
	key, err := n.data.NodeKey()
	if err != nil {
		return err
	}
	cfg := n.cfg.hostConfig()
	roots, err := n.cfg.P2P.starRoots()
	if err != nil {
		return err
	}
	if n.stars, err = transport.New(key.Libp2p(), n.cfg.starOptions(n, roots)); err != nil {
		return err
	}
	cfg.Options = append(cfg.Options, libp2p.Transport(n.stars.Attach))
	cfg.Announce = n.stars.Addrs
	if n.host, err = host.New(key, cfg); err != nil {
		return fmt.Errorf("start the network: %w", err)
	}
	n.found, err = discover.New(n.host, n.cfg.discoverConfig(n))
	if err != nil {
		return err
	}
	n.host.SetFinder(n.found)
	return n.listenOnStars()
}

func (n *Node) makeTalk() error {
	n.backend = newBackend(n)
	n.peers = peer.New(n.cfg.peerConfig())
	ctx, cancel := context.WithCancel(context.Background())
	n.stopTopics = cancel
	var err error
	if n.router, err = topic.NewRouter(ctx, n.host.Libp2p()); err != nil {
		return err
	}
	n.topics = topic.New(n.router, n.host, n.cfg.topicConfig(n))
	return nil
}

func (n *Node) makeGateway() (err error) {
	token, err := n.data.Token()
	if err != nil {
		return err
	}
	if n.consent, err = consent.Open(keptAnswers{n.data}); err != nil {
		return err
	}
	allowed := n.cfg.accessConfig(n.port, token)
	allowed.Grants = n.consent
	if n.access, err = access.New(allowed); err != nil {
		return err
	}
	n.pages = newPageWatch(n.cfg.exitAfter())
	n.gateway = gateway.New(n.backend, n.access, n.cfg.gatewayConfig(n))
	n.consent.OnEnd(n.gateway.Dismiss)
	if err := n.makeAdmin(); err != nil {
		return err
	}
	handler, err := n.handler()
	if err != nil {
		return err
	}
	n.server = n.cfg.httpServer(handler)
	return nil
}

// Run serves until ctx ends, or the last page has left and the node isn't told
// to linger, and then stops in order: nothing that was accepted is lost while
// there is time for it. It returns when everything has ended, and once.
func (n *Node) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	parts, life := errgroup.WithContext(life)
	parts.Go(func() error { return n.peers.Run(life) })
	parts.Go(func() error { return n.topics.Run(life) })
	parts.Go(func() error { return n.found.Run(life) })
	parts.Go(func() error { return n.located.Run(life) })
	parts.Go(func() error { return n.channels.Run(life) })
	parts.Go(func() error { return n.runMuxes(life) })
	parts.Go(func() error { return n.useRelays(life) })
	parts.Go(func() error { return n.gateway.Run(life) })
	parts.Go(func() error { n.tendMemory(life); return nil })
	for _, socket := range n.sockets {
		parts.Go(func() error { return n.serve(socket) })
	}
	stopStar := n.runStar(life, parts)
	n.serving.Store(true)
	n.greet(parts)
	n.wait(ctx, life)
	stopStar() // its streams end while the node's messages leave
	stopped := n.stop(ctx)
	end()
	err := parts.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, stopped, n.Close())
}

// runStar runs the star server, if there is one. stop begins its draining, which
// ends with life.
func (n *Node) runStar(life context.Context, parts *errgroup.Group) (stop func()) {
	ctx, stop := context.WithCancel(life)
	if n.star != nil {
		parts.Go(func() error { return n.star.RunUntil(ctx, life) })
	}
	return stop
}

// greet tells where the node is, and sends a browser there if that is wanted.
func (n *Node) greet(parts *errgroup.Group) {
	started := n.describe()
	if n.cfg.Ready != nil {
		n.cfg.Ready(started)
	}
	if n.cfg.OpenBrowser == nil || !n.cfg.Behavior.AutoOpenBrowser || n.cfg.Site == nil {
		return
	}
	parts.Go(func() error {
		if err := n.cfg.OpenBrowser(n.access.OpenURL(started.URL)); err != nil {
			n.log.Info("no browser was opened", "err", err)
			return nil
		}
		n.pages.expect()
		return nil
	})
}

// describe says where the node can be found.
func (n *Node) describe() Started {
	s := Started{Peer: n.ID(), Data: n.data.Folder(), Listening: append(n.httpAddresses(), n.p2pAddresses()...)}
	s.URL = n.cfg.url(n.port)
	s.LaunchURL = n.access.LaunchURL(s.URL)
	if n.star != nil {
		s.Star = n.star.URI()
	}
	return s
}

// wait returns when the node has a reason to stop: it was told to, nobody needs
// it any more, or a part of it failed.
func (n *Node) wait(ctx, life context.Context) {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	if n.pages.Run(either) {
		n.log.Info("the last page has left")
	}
}

// stop ends the node from the edges inward: no new sessions and peers; what is
// in the outboxes leaves; pages get their last answers; then the sockets close.
func (n *Node) stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	n.log.Info("stopping")
	n.serving.Store(false)
	n.backend.close()
	n.gateway.TakeNoMore()
	drain, cancel := context.WithTimeout(ctx, n.patience.drain)
	defer cancel()
	if err := n.peers.Drain(drain); err != nil {
		n.log.Warn("messages could not be delivered before the end", "err", err)
	}
	closing, cancel := context.WithTimeout(ctx, n.patience.close)
	defer cancel()
	n.backend.closeOwn()
	if err := n.gateway.Shutdown(closing); err != nil {
		n.log.Warn("some pages were cut off: they took too long to hear of the end", "err", err)
	}
	if n.server.Shutdown(closing) == nil {
		return nil
	}
	return n.server.Close() // what is still asked over HTTP, or connected and has not asked
}

func (n *Node) serve(l net.Listener) error {
	serve := n.server.Serve
	if n.cfg.Secure() {
		serve = func(l net.Listener) error {
			return n.server.ServeTLS(l, n.cfg.Server.TLS.Cert, n.cfg.Server.TLS.Key)
		}
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve pages: %w", err)
	}
	return nil
}

// Close gives back what a Node holds that was built and never ran. After Run it
// does nothing.
func (n *Node) Close() error {
	var errs []error
	for _, s := range n.sockets {
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	n.sockets = nil
	if n.star != nil {
		errs = append(errs, n.star.Close())
		n.star = nil
	}
	if n.stopTopics != nil {
		n.stopTopics()
		n.stopTopics = nil
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
		n.host = nil
	}
	if n.data != nil {
		errs = append(errs, n.data.Close())
		n.data = nil
	}
	return errors.Join(errs...)
}

// ID is the node's own peer id. A page has another.
func (n *Node) ID() identity.PeerID { return n.host.Local() }
