package host

import (
	"context"
	"errors"
	"sync"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
)

// Bounds of looking up names.
const (
	nameWait   = 3 * time.Second  // for one
	nameSilent = 30 * time.Second // how long one that gave no answer isn't asked for again
	maxSilent  = 1024             // names that are remembered so
)

// names looks up the names in addresses. libp2p resolves all names of a peer before
// it dials any of its addresses: where DNS is dead, an address without a name would
// wait until the whole dial is given up.
type names struct {
	libnet.MultiaddrDNSResolver

	mu     sync.Mutex
	silent map[string]time.Time // until when
}

func newNames() *names {
	return &names{MultiaddrDNSResolver: swarm.ResolverFromMaDNS{Resolver: madns.DefaultResolver}, silent: make(map[string]time.Time)}
}

// ResolveDNSAddr implements network.MultiaddrDNSResolver.
func (n *names) ResolveDNSAddr(ctx context.Context, id peer.ID, a ma.Multiaddr, depth, limit int) ([]ma.Multiaddr, error) {
	return n.ask(ctx, a, func(ctx context.Context) ([]ma.Multiaddr, error) {
		return n.MultiaddrDNSResolver.ResolveDNSAddr(ctx, id, a, depth, limit)
	})
}

// ResolveDNSComponent implements network.MultiaddrDNSResolver.
func (n *names) ResolveDNSComponent(ctx context.Context, a ma.Multiaddr, limit int) ([]ma.Multiaddr, error) {
	return n.ask(ctx, a, func(ctx context.Context) ([]ma.Multiaddr, error) {
		return n.MultiaddrDNSResolver.ResolveDNSComponent(ctx, a, limit)
	})
}

var errSilentName = errors.New("no answer from DNS")

func (n *names) ask(ctx context.Context, a ma.Multiaddr, resolve func(context.Context) ([]ma.Multiaddr, error)) ([]ma.Multiaddr, error) {
	name := a[0].Value()
	n.mu.Lock()
	silent := time.Now().Before(n.silent[name])
	n.mu.Unlock()
	if silent {
		return nil, errSilentName
	}
	limited, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	out, err := resolve(limited)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil || ctx.Err() != nil || limited.Err() == nil {
		delete(n.silent, name) // an answer, or the caller went away
		return out, err
	}
	if len(n.silent) >= maxSilent {
		clear(n.silent)
	}
	n.silent[name] = time.Now().Add(nameSilent)
	return nil, errSilentName
}
