package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Transport is the libp2p transport for star addresses.
type Transport struct {
	// Static after construction.
	opts      Options
	key       crypto.PrivKey
	id        peer.ID
	publicHex string
	mem       *ws.Memory
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	work      sync.WaitGroup // stars and their sessions
	scope     ma.Multiaddr   // what the resource manager is told instead of the star

	in, out atomic.Int64 // bytes of all connections

	// Static after Attach.
	upgrader transport.Upgrader
	limits   network.ResourceManager
	gater    connmgr.ConnectionGater // nil allows all

	mu     sync.Mutex
	stars  map[string]*star // by address without id
	closed bool
}

var (
	_ transport.Transport    = (*Transport)(nil)
	_ transport.SkipResolver = (*Transport)(nil)
)

// New makes a transport for the identity of key, which may be RSA, Ed25519 or
// secp256k1. It joins nothing before Listen or Dial.
func New(key crypto.PrivKey, o Options) (*Transport, error) {
	if err := Register(); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "star transport: key: %w", err)
	}
	t := &Transport{opts: o.withDefaults(), key: key, id: id, mem: &ws.Memory{}, stars: make(map[string]*star)}
	if t.publicHex, err = publicHex(key); err != nil {
		return nil, err
	}
	// Connections over a star count as their peers', but not against the address of
	// the star, to which all would add up.
	if t.scope, err = ma.NewMultiaddr("/ip4/127.0.0.1/" + protocolName); err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "star transport: %w", err)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Attach gives the transport what it needs of its host, and is what libp2p.Transport
// takes. It is called once, before everything else. limits and gater may be nil.
func (t *Transport) Attach(up transport.Upgrader, limits network.ResourceManager, gater connmgr.ConnectionGater) (*Transport, error) {
	if limits == nil {
		limits = &network.NullResourceManager{}
	}
	t.upgrader, t.limits, t.gater = up, limits, gater
	return t, nil
}

// Protocols is what this transport is for.
func (t *Transport) Protocols() []int { return []int{Code} }

// Proxy says that connections go through somebody else: libp2p prefers others, and
// looks for this transport also where an id stands behind the address.
func (t *Transport) Proxy() bool { return true }

// String names the transport.
func (t *Transport) String() string { return protocolName }

// CanDial is true for exactly the strict shapes of star.md §7.1.
func (t *Transport) CanDial(a ma.Multiaddr) bool {
	_, err := parse(a)
	return err == nil
}

// SkipResolve keeps names as they are: TLS needs them, and addresses are compared
// as text.
func (t *Transport) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

// Dial reaches a peer over the star of addr, which is joined for it where it isn't
// yet. ctx bounds all of it, and Times.Dial the star's part. Errors are the star's
// own (errors.go), those of the join, and of the handshake.
func (t *Transport) Dial(ctx context.Context, addr ma.Multiaddr, to peer.ID) (transport.CapableConn, error) {
	at, err := parse(addr)
	if err != nil {
		return nil, err
	}
	if at.ID != "" && at.ID != to.String() {
		return nil, identity.Errorf(identity.CodeMalformed, "the address is of %s, not of %s", at.ID, to)
	}
	scope, err := t.limits.OpenConnection(network.DirOutbound, false, t.scope)
	if err != nil {
		return nil, err
	}
	if err := scope.SetPeer(to); err != nil {
		scope.Done()
		return nil, err
	}
	raw, err := t.dial(ctx, at.With(""), to)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return t.upgrader.Upgrade(ctx, t, raw, network.DirOutbound, to, scope) // ends scope when it fails
}

// dial is Dial up to the handshake.
func (t *Transport) dial(ctx context.Context, at address.Star, to peer.ID) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.opts.Times.Dial, ErrDialTimedOut)
	defer cancel()
	s, err := t.use(at)
	if err != nil {
		return nil, err
	}
	defer t.release(s)
	sess, err := s.joined(ctx)
	if err != nil {
		return nil, err
	}
	return sess.dial(ctx, to)
}

// use gives the star of an address, and keeps it until release.
func (t *Transport) use(at address.Star) (*star, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.star(at, true)
	if err == nil {
		s.uses++
	}
	return s, err
}

// release ends a use.
func (t *Transport) release(s *star) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.uses--
	s.lastUse = time.Now()
}

// star gives the star of an address, a new one where there is none; those that a
// dial alone asks for are bounded. The caller holds mu.
func (t *Transport) star(at address.Star, onDemand bool) (*star, error) {
	if t.closed {
		return nil, errStarClosed
	}
	if s := t.stars[at.Server()]; s != nil {
		return s, nil
	}
	if onDemand {
		demanded := 0
		for _, s := range t.stars {
			if s.listener == nil {
				demanded++
			}
		}
		if demanded >= t.opts.Limits.OnDemand {
			return nil, errTooManyStars
		}
	}
	s, err := newStar(t, at)
	if err != nil {
		return nil, err
	}
	t.stars[at.Server()] = s
	t.work.Go(s.run)
	return s, nil
}

// Listen makes the node reachable over a star, which need not be there: the join
// goes on by itself, and Status tells how. addr may end in the own id. The
// listener's own Multiaddr is not to be announced; Addrs is.
func (t *Transport) Listen(addr ma.Multiaddr) (transport.Listener, error) {
	at, err := parse(addr)
	if err != nil {
		return nil, err
	}
	if at.ID != "" && at.ID != t.id.String() {
		return nil, identity.Errorf(identity.CodeMalformed, "can't listen as %s: the own id is %s", at.ID, t.id)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.star(at.With(""), false)
	if err != nil {
		return nil, err
	}
	if s.listener != nil {
		return nil, identity.Errorf(identity.CodeAlreadyStarted, "already listening on %s", at.Server())
	}
	s.listener = newListener(t, s)
	return provenListener{t.upgrader.UpgradeGatedMaListener(t, s.listener)}, nil
}

// Addrs are the addresses that are joined now and listened on, without an id: what
// a host adds to those it announces. They change with the stars (Options.Changed).
func (t *Transport) Addrs() []ma.Multiaddr {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []ma.Multiaddr
	for _, s := range t.stars {
		if s.state == Joined && s.listener != nil {
			out = append(out, s.addr)
		}
	}
	return out
}

// Close leaves all stars and returns when nothing runs any more. Connections that
// are being closed have Times.Linger to send their last bytes.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	stars := make([]*star, 0, len(t.stars))
	for _, s := range t.stars {
		stars = append(stars, s)
	}
	t.mu.Unlock()
	limit := time.NewTimer(t.opts.Times.Linger)
	defer limit.Stop()
	for _, s := range stars {
		s.quiet(limit.C)
	}
	t.cancel()
	t.work.Wait()
	return nil
}

func (t *Transport) changed() {
	if t.opts.Changed != nil {
		t.opts.Changed()
	}
}

func (t *Transport) nearLimit(id peer.ID) {
	if t.opts.NearLimit != nil {
		t.opts.NearLimit(id)
	}
}
