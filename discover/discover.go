package discover

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/identity"
)

// Bounds of a search.
const (
	maxAsked     = 32               // nodes asked for one page
	dhtBound     = 30 * time.Second // the DHT's part of a search
	maxWanted    = 1024             // pages looked for in vain, asked of nodes that come
	wantedFor    = time.Minute
	maxMet       = 32 // nodes of this machine that a connection is kept to
	machineFirst = time.Second
	machineLast  = 30 * time.Second
)

// Discovery is a node's search for others. New builds it, Run lives.
type Discovery struct {
	// Static after construction.
	cfg     Config
	log     *slog.Logger
	node    Node
	pages   *pageBook
	ready   *ReadyList // p2p.connect
	machine *ReadyList // nodes of this machine
	stars   *ReadyList // nodes on stars
	amino   atomic.Pointer[dhtNode]
	met     chan struct{} // closed once the DHT has somebody to ask
	metOnce sync.Once

	mu     sync.Mutex
	inst   Instance
	reg    *Registration // nil until registered
	wanted map[identity.PeerID]time.Time
	seen   map[identity.PeerID]time.Time // on stars, and until when that is believed
	run    *running                      // nil unless Run runs
}

// running is what lives during Run.
type running struct {
	ctx  context.Context
	work *errgroup.Group
}

// New makes a node's discovery. It does nothing until Run.
func New(node Node, cfg Config) (*Discovery, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Discovery{
		cfg: cfg, log: cfg.Logger.With("component", "discover"), node: node,
		pages:   newPageBook(node.Local()),
		ready:   NewReadyList(node, node.Libp2p().ConnManager()),
		machine: newReadyList(node, nil, machineFirst, machineLast),
		stars:   newReadyList(node, nil, readyFirst, readyLast),
		inst:    cfg.Instance,
		wanted:  make(map[identity.PeerID]time.Time),
		seen:    make(map[identity.PeerID]time.Time),
		met:     make(chan struct{}),
	}, nil
}

// Run searches, answers and registers until ctx ends, and returns when
// everything it started has ended. What can't work here (no multicast, no
// runtime folder) is logged and left out.
func (d *Discovery) Run(ctx context.Context) error {
	// Before anybody can come: who is missed isn't asked for the pages that are wanted.
	came, err := d.node.Libp2p().EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.Name("parley discover"))
	if err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	work, ctx := errgroup.WithContext(ctx)
	d.mu.Lock()
	work.Go(func() error { // before anything can be spawned: work is never empty then
		<-ctx.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.run = nil
		return nil
	})
	d.run = &running{ctx: ctx, work: work}
	d.mu.Unlock()
	defer d.node.Handle(PagesProtocol, d.pages.serve)()
	defer d.ready.Close()
	defer d.machine.Close()
	defer d.stars.Close()

	infos, _ := parseInfos(d.cfg.Connect) // validated
	for _, info := range infos {
		if err := d.ready.Add(info.ID, info.Addrs); err != nil {
			d.log.Warn("not kept connected", "peer", info.ID, "err", err)
		}
	}
	if d.cfg.RuntimeDir != "" {
		work.Go(func() error { d.runRegistry(ctx); return nil })
	}
	if d.cfg.MDNS {
		work.Go(func() error { d.runMDNS(ctx); return nil })
	}
	if d.cfg.DHT {
		work.Go(func() error { d.runDHT(ctx); return nil })
	}
	work.Go(func() error { return d.watchNodes(ctx, came) })
	work.Go(func() error { return d.watchMoves(ctx) })
	return work.Wait()
}

// spawn runs f in a goroutine that Run waits for; f must end with its context.
// It reports false when Run doesn't run.
func (d *Discovery) spawn(f func(ctx context.Context)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil {
		return false
	}
	run := d.run
	run.work.Go(func() error { f(run.ctx); return nil })
	return true
}

// AddPage makes the node answer where the page with this key is: at addrs, and
// through the node. The returned function ends it. Addresses may end in the
// page's id.
func (d *Discovery) AddPage(key identity.Key, addrs func() []ma.Multiaddr) (remove func()) {
	forget := d.pages.add(key, func() []ma.Multiaddr { return withoutID(addrs(), key.PeerID()) })
	leave := d.announcePage(key.PeerID())
	return func() {
		leave()
		forget()
	}
}

// Find implements the host's Finder.
func (d *Discovery) Find(ctx context.Context, id identity.PeerID, found func([]ma.Multiaddr)) error {
	s := &search{d: d, id: id, found: found}
	s.tell(d.node.Libp2p().Peerstore().Addrs(id))
	if rec, ok := d.pages.where(id, time.Now()); ok {
		s.page(rec)
	}
	work, ctx := errgroup.WithContext(ctx)
	asked := d.nodesToAsk(id)
	asked = append(asked, d.starsToAsk(id, maxAsked-len(asked))...)
	for _, node := range asked {
		work.Go(func() error { s.ask(ctx, node); return nil })
	}
	looked := d.searchDHT(ctx, work, s)
	_ = work.Wait()
	if s.any {
		return nil
	}
	d.want(id)
	text := fmt.Sprintf("no addresses found: asked %d nodes", len(asked))
	if looked {
		text += " and the DHT"
	}
	return identity.Errorf(identity.CodeUnreachable, "%s", text)
}

// search is one call of Find.
type search struct {
	d  *Discovery
	id identity.PeerID

	mu    sync.Mutex
	found func([]ma.Multiaddr) // called with mu held: one at a time
	any   bool
}

func (s *search) tell(addrs []ma.Multiaddr) {
	if len(addrs) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.any = true
	s.found(addrs)
}

func (s *search) page(rec pageRecord) { s.tell(rec.dialable()) }

func (s *search) ask(ctx context.Context, node identity.PeerID) {
	s.d.ask(ctx, node, []identity.PeerID{s.id}, s.page)
}

// ask asks one node for pages and remembers what it says.
func (d *Discovery) ask(ctx context.Context, node identity.PeerID, ids []identity.PeerID, found func(pageRecord)) {
	if d.pages.liars.Refused(node, time.Now()) {
		return
	}
	err := askNode(ctx, d.node, node, ids, func(rec pageRecord, raw []byte) {
		if rec.node == d.node.Local() { // it was ours once
			return
		}
		rec.addrs = d.plausible(node, rec.addrs)
		d.pages.learn(rec, raw, time.Now())
		found(rec)
	})
	if err != nil && ctx.Err() == nil {
		d.pages.blame(node, err)
		d.log.Debug("node gave no answer about pages", "node", node, "err", err)
	}
}

// dialable are the addresses of a record, and the way through the node by the
// connections there are.
func (r pageRecord) dialable() []ma.Multiaddr {
	via := ma.StringCast("/p2p/" + r.node.String() + "/p2p-circuit")
	return append(r.addrs[:len(r.addrs):len(r.addrs)], via)
}

// nodesToAsk are the connected nodes that answer for pages; those that were met
// on this machine or in the LAN are connected soon after they appear.
func (d *Discovery) nodesToAsk(id identity.PeerID) []identity.PeerID {
	h := d.node.Libp2p()
	var out []identity.PeerID
	for _, p := range h.Network().Peers() {
		if p != id && d.answersPages(p) {
			out = append(out, p)
		}
	}
	if len(out) > maxAsked {
		rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		out = out[:maxAsked]
	}
	return out
}

func (d *Discovery) answersPages(p peer.ID) bool {
	spoken, err := d.node.Libp2p().Peerstore().SupportsProtocols(p, protocol.ID(PagesProtocol))
	return err == nil && len(spoken) > 0
}

// want remembers that a page was looked for in vain.
func (d *Discovery) want(id identity.PeerID) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.wanted) >= maxWanted {
		for other, until := range d.wanted {
			if until.Before(now) {
				delete(d.wanted, other)
			}
		}
		if len(d.wanted) >= maxWanted {
			return
		}
	}
	d.wanted[id] = now.Add(wantedFor)
}

// wantedNow lists the pages that are still wanted.
func (d *Discovery) wantedNow() []identity.PeerID {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []identity.PeerID
	for id, until := range d.wanted {
		if until.Before(now) {
			delete(d.wanted, id)
			continue
		}
		out = append(out, id)
	}
	return out
}

// watchNodes asks each node that comes for the pages that are wanted.
func (d *Discovery) watchNodes(ctx context.Context, sub event.Subscription) error {
	defer sub.Close()
	for {
		select {
		case e, ok := <-sub.Out():
			if !ok {
				return nil
			}
			node := e.(event.EvtPeerIdentificationCompleted).Peer
			ids := d.wantedNow()
			if len(ids) == 0 || !d.answersPages(node) {
				continue
			}
			d.spawn(func(ctx context.Context) {
				d.ask(ctx, node, ids, func(rec pageRecord) {
					d.mu.Lock()
					delete(d.wanted, rec.page)
					d.mu.Unlock()
					d.node.Found(rec.page, rec.dialable(), peerstore.TempAddrTTL)
				})
			})
		case <-ctx.Done():
			return nil
		}
	}
}

// watchMoves has everybody dialled again who is to be kept, when the node's own
// addresses have changed: what failed before may work now.
func (d *Discovery) watchMoves(ctx context.Context) error {
	sub, err := d.node.Libp2p().EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("parley ready"))
	if err != nil {
		return fmt.Errorf("watch own addresses: %w", err)
	}
	defer sub.Close()
	for {
		select {
		case _, ok := <-sub.Out():
			if !ok {
				return nil
			}
			d.ready.Again()
			d.stars.Again()
		case <-ctx.Done():
			return nil
		}
	}
}

// withoutID strips /p2p/<id> at the end.
func withoutID(addrs []ma.Multiaddr, id identity.PeerID) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		rest, last := ma.SplitLast(a)
		if last != nil && last.Protocol().Code == ma.P_P2P && last.Value() == id.String() {
			a = rest
		}
		if len(a) > 0 {
			out = append(out, a)
		}
	}
	return out
}

// Stats are counts since the node was made.
type Stats struct {
	BadPages uint64 // questions and answers about pages that could not be read, or were false
	Unheard  uint64 // streams with questions that were reset unread: their peer is refused for a while
}

// Stats gives a snapshot.
func (d *Discovery) Stats() Stats {
	return Stats{BadPages: d.pages.bad.Load(), Unheard: d.pages.unheard.Load()}
}
