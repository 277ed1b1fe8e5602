package discover

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/identity"
)

// Numbers of the DHT's use (gateway.md §6.3).
const (
	provideEvery   = 90 * time.Minute // half of what a record is good for
	provideTimeout = time.Minute
	provideRetry   = 30 * time.Second // where nobody took the record
	pageSettles    = 20 * time.Second // pages younger than this aren't put into the DHT
	dhtWork        = 2                // provides at once; each asks some 20 nodes
	maxProviders   = 8                // looked at for one key
	lonelyFirst    = 5 * time.Second
	lonelyLast     = 10 * time.Minute
	othersFirst    = 100 * time.Millisecond // between looks whether there is anybody in the DHT
	othersLast     = 5 * time.Second
)

// dhtNode is the running DHT.
type dhtNode struct {
	*dht.IpfsDHT
	slots chan struct{} // capacity dhtWork
}

// DHT is the node's public DHT for content and peers, or nil while it doesn't
// run.
func (d *Discovery) DHT() *dht.IpfsDHT {
	if a := d.amino.Load(); a != nil {
		return a.IpfsDHT
	}
	return nil
}

// PublicBootstrap is the public list for Config.Bootstrap.
func PublicBootstrap() []string {
	var out []string
	for _, a := range dht.DefaultBootstrapPeers {
		out = append(out, a.String())
	}
	return out
}

func (d *Discovery) runDHT(ctx context.Context) {
	mode := dht.ModeAuto
	if d.cfg.DHTServer {
		mode = dht.ModeServer
	}
	opts := []dht.Option{dht.Mode(mode), dht.Datastore(newRecordStore(maxRecordBytes))}
	infos, _ := parseInfos(d.cfg.Bootstrap) // validated
	if len(infos) > 0 {
		opts = append(opts, dht.BootstrapPeers(infos...))
		for _, info := range infos {
			d.node.AllowOtherKeys(info.ID)
		}
	}
	table, err := dht.New(d.node.Libp2p(), opts...)
	if err != nil {
		d.log.Warn("no DHT", "err", err)
		return
	}
	d.amino.Store(&dhtNode{IpfsDHT: table, slots: make(chan struct{}, dhtWork)})
	_ = table.Bootstrap(ctx) // begins in the background
	d.awaitOthers(ctx, table)
	<-ctx.Done()
	d.amino.Store(nil)
	if err := table.Close(); err != nil {
		d.log.Debug("DHT closed", "err", err)
	}
}

// awaitOthers returns when the DHT has somebody to ask, and lets those go on who
// wait for that: a topic that was entered at once would otherwise look, find
// nobody to ask, and pause.
func (d *Discovery) awaitOthers(ctx context.Context, table *dht.IpfsDHT) {
	pause := othersFirst
	for table.RoutingTable().Size() == 0 {
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, othersLast)
	}
	d.metOnce.Do(func() { close(d.met) })
}

// others waits until the DHT has somebody to ask, and is false when ctx ended.
func (d *Discovery) others(ctx context.Context) bool {
	select {
	case <-d.met:
		return true
	case <-ctx.Done():
		return false
	}
}

// searchDHT adds the DHT's part to a search. It reports whether there is one.
func (d *Discovery) searchDHT(ctx context.Context, work *errgroup.Group, s *search) bool {
	table := d.amino.Load()
	if table == nil || table.RoutingTable().Size() == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, dhtBound)
	var parts errgroup.Group
	parts.Go(func() error {
		if info, err := table.FindPeer(ctx, s.id); err == nil {
			s.tell(info.Addrs)
		}
		return nil
	})
	parts.Go(func() error {
		for node := range table.FindProvidersAsync(ctx, d.pageKey(s.id), maxProviders) {
			if node.ID == d.node.Local() {
				continue
			}
			d.node.AddAddrs(node.ID, node.Addrs, peerstore.TempAddrTTL)
			parts.Go(func() error { s.ask(ctx, node.ID); return nil })
		}
		return nil
	})
	work.Go(func() error {
		defer cancel()
		return parts.Wait()
	})
	return true
}

// pageKey is under what a page's node is found.
func (d *Discovery) pageKey(id identity.PeerID) cid.Cid {
	return rawKey(d.prefix() + "/parley/page/" + id.String())
}

func (d *Discovery) prefix() string {
	if d.cfg.Namespace == "" {
		return ""
	}
	return d.cfg.Namespace + "/"
}

// rawKey is CIDv1(raw, sha2-256(text)).
func rawKey(text string) cid.Cid {
	sum, err := multihash.Sum([]byte(text), multihash.SHA2_256, -1)
	if err != nil { // a fixed, built-in hash
		return cid.Undef
	}
	return cid.NewCidV1(cid.Raw, sum)
}

// announcePage keeps the provider record of an own page.
func (d *Discovery) announcePage(id identity.PeerID) (leave func()) {
	if !d.cfg.DHT {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ok := d.spawn(func(run context.Context) {
		defer context.AfterFunc(run, cancel)()
		if wait(ctx, pageSettles) {
			d.provide(ctx, d.pageKey(id))
		}
	})
	if !ok {
		cancel()
	}
	return cancel
}

// provide keeps the node's provider records of keys until ctx ends.
func (d *Discovery) provide(ctx context.Context, keys ...cid.Cid) {
	if !d.others(ctx) {
		return
	}
	for {
		next := provideEvery
		if !d.provideOnce(ctx, keys) {
			next = provideRetry
		}
		if !wait(ctx, next) {
			return
		}
	}
}

func (d *Discovery) provideOnce(ctx context.Context, keys []cid.Cid) bool {
	table := d.amino.Load()
	if table == nil || table.RoutingTable().Size() == 0 {
		return false
	}
	select {
	case table.slots <- struct{}{}:
		defer func() { <-table.slots }()
	case <-ctx.Done():
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, provideTimeout)
	defer cancel()
	ok := true
	for _, key := range keys {
		if err := table.Provide(ctx, key, true); err != nil {
			ok = false
			if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				d.log.Debug("DHT took no record", "key", key, "err", err)
			}
		}
	}
	return ok
}

// Topic makes the node findable, and finds others, for a topic (its name on the
// wire, namespace included), until the returned function is called. While
// lonely reports true it looks for members: at once, and then with back-off up
// to ten minutes. It doesn't wait.
func (d *Discovery) Topic(name string, lonely func() bool) (leave func()) {
	if !d.cfg.DHT {
		return func() {}
	}
	keys := []cid.Cid{rawKey(name), rawKey("floodsub:" + name)} // the second is GossipSub's own
	ctx, cancel := context.WithCancel(context.Background())
	ok := d.spawn(func(run context.Context) {
		defer context.AfterFunc(run, cancel)()
		var parts errgroup.Group
		parts.Go(func() error { d.provide(ctx, keys...); return nil })
		parts.Go(func() error { d.lookForMembers(ctx, keys, lonely); return nil })
		_ = parts.Wait()
	})
	if !ok {
		cancel()
	}
	return cancel
}

func (d *Discovery) lookForMembers(ctx context.Context, keys []cid.Cid, lonely func() bool) {
	if !d.others(ctx) {
		return
	}
	pause := lonelyFirst
	for {
		if lonely() {
			d.meetProviders(ctx, keys)
		} else {
			pause = lonelyFirst
		}
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, lonelyLast)
	}
}

// meetProviders connects to nodes that say they are in a topic.
func (d *Discovery) meetProviders(ctx context.Context, keys []cid.Cid) {
	table := d.amino.Load()
	if table == nil || table.RoutingTable().Size() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dhtBound)
	defer cancel()
	var dials errgroup.Group
	dials.SetLimit(maxProviders)
	met := make(map[peer.ID]bool)
	for _, key := range keys {
		for node := range table.FindProvidersAsync(ctx, key, maxProviders) {
			if node.ID == d.node.Local() || met[node.ID] || d.node.Connected(node.ID) {
				continue
			}
			met[node.ID] = true
			d.node.Found(node.ID, node.Addrs, peerstore.TempAddrTTL)
			dials.Go(func() error { _ = d.node.Connect(ctx, node.ID); return nil })
		}
	}
	_ = dials.Wait()
}

// wait pauses, and reports false when ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
