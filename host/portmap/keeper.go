package portmap

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Numbers of the keeper.
const (
	maxPorts    = 16               // asked for
	lifetime    = 2 * time.Minute  // of a mapping that nobody renews
	renewEvery  = 20 * time.Second // also how soon a router that forgot is asked again
	findBound   = 4 * time.Second  // to look for a router
	askBound    = 5 * time.Second  // for the answer to one question
	removeBound = 2 * time.Second  // for all removals at the end
	retryFirst  = 5 * time.Second  // wait after a search in vain, doubling …
	retryLast   = 5 * time.Minute  // … up to this
	otherPorts  = 3                // tried when the router refuses the one that was wished
)

// The protocols of a Port.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Port is a socket that listens: on one IPv4 address of the machine, or on
// 0.0.0.0 for all of them.
type Port struct {
	Proto string // TCP or UDP
	At    netip.AddrPort
}

// router is a gateway by one of the protocols. Calls come one after the other.
type router interface {
	String() string // such as "NAT-PMP at 192.168.1.1"
	outside(ctx context.Context) (netip.Addr, error)
	// add leads an outer port to one of this machine and gives the outer port, which
	// may be another than wished, and how long that holds; 0 is for ever.
	add(ctx context.Context, proto string, inner, wished uint16) (outer uint16, life time.Duration, err error)
	remove(ctx context.Context, proto string, inner, outer uint16) error
}

// errPort is for a router that refuses just this outer port.
var errPort = errors.New("the port is taken")

// way is the route out of the machine: its address there, and the gateway.
type way struct{ inside, gateway netip.Addr }

// Config of a Keeper. The zero value works.
type Config struct {
	// Changed is called, from one goroutine, after what Outside gives has changed.
	// It must not block; nil isn't called.
	Changed func()
	Log     *slog.Logger // nil is nowhere

	way  func() (way, error) // tests have their own
	find func(ctx context.Context, at way, take func(router) bool)
}

// Keeper keeps ports of this machine mapped. Its methods may be called by anybody
// at any time.
type Keeper struct {
	// Static after construction.
	cfg    Config
	wake   chan struct{} // capacity 1: what is wanted, or the network, has changed
	cancel context.CancelFunc
	ended  chan struct{}

	// Owned by run.
	at     way
	router router
	retry  time.Duration // after the next search in vain

	mu   sync.Mutex
	want []Port
	held map[Port]mapping
	name string // of the router; "" without one
}

// mapping is one that the router made.
type mapping struct {
	outside netip.AddrPort
	until   time.Time
}

// New makes a keeper that wants nothing yet. It asks nobody before Want.
func New(cfg Config) *Keeper {
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.way == nil {
		cfg.way, cfg.find = wayOut, find
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{cfg: cfg, wake: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{}), held: make(map[Port]mapping)}
	go k.run(ctx)
	return k
}

// Close removes the mappings, for which the router has 2 s, and returns when
// nothing of the keeper runs.
func (k *Keeper) Close() error {
	k.cancel()
	<-k.ended
	return nil
}

// Want says which ports shall be mapped, in place of those of before; of more than
// 16 the first count. It doesn't wait.
func (k *Keeper) Want(ports []Port) {
	ports = ports[:min(len(ports), maxPorts)]
	k.mu.Lock()
	same := slices.Equal(k.want, ports)
	k.want = slices.Clone(ports)
	k.mu.Unlock()
	if !same {
		k.Look()
	}
}

// Look makes the keeper look whether the machine's gateway is still the same. It
// doesn't wait.
func (k *Keeper) Look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Outside gives the address at which a port is reached from outside.
func (k *Keeper) Outside(p Port) (netip.AddrPort, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok := k.held[p]
	return m.outside, ok && m.outside.IsValid()
}

// Router is the name of the router that maps, with its protocol, "" where none does.
func (k *Keeper) Router() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.name
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.ended)
	again := time.NewTimer(0)
	defer again.Stop()
	<-again.C
	for {
		select {
		case <-k.wake:
		case <-again.C:
		case <-ctx.Done():
			k.removeAll()
			return
		}
		if wait := k.step(ctx); wait > 0 {
			again.Reset(wait)
		} else {
			again.Stop()
		}
	}
}

// step does what is due and gives how long to wait for the next; 0 is until
// somebody wakes the keeper.
func (k *Keeper) step(ctx context.Context) time.Duration {
	k.expire()
	if k.idle() {
		return 0 // and nobody is asked
	}
	if now, err := k.cfg.way(); err != nil || now != k.at {
		// Another network: what the old gateway had is out of reach, and ends by itself.
		k.forget()
		k.at, k.retry = now, retryFirst
		k.clear()
	}
	if !k.at.gateway.IsValid() {
		return renewEvery // there may be one later
	}
	want := k.wanted()
	k.removeOthers(ctx, want)
	if len(want) == 0 {
		return 0
	}
	if k.router != nil && k.renew(ctx, k.router, want) {
		return renewEvery
	}
	if ctx.Err() != nil {
		return 0
	}
	k.forget()
	if k.search(ctx, want) {
		k.retry = retryFirst
		return renewEvery
	}
	if ctx.Err() != nil {
		return 0
	}
	wait := k.retry
	k.retry = min(2*k.retry, retryLast)
	return wait
}

// search looks for a router that maps, and takes the first.
func (k *Keeper) search(ctx context.Context, want []Port) bool {
	found := false
	k.cfg.find(ctx, k.at, func(r router) bool {
		k.router = r // what it does is taken back if the keeper is closed meanwhile
		found = k.renew(ctx, r, want)
		return found || ctx.Err() != nil
	})
	if !found {
		if ctx.Err() == nil {
			k.router = nil
		}
		return false
	}
	k.mu.Lock()
	k.name = k.router.String()
	k.mu.Unlock()
	k.cfg.Log.Info("the router leads ports in", "router", k.router.String())
	return true
}

// removeOthers gives back what isn't wanted any more.
func (k *Keeper) removeOthers(ctx context.Context, want []Port) {
	for p, m := range k.all() {
		if slices.Contains(want, p) {
			continue
		}
		if k.router != nil {
			k.remove(ctx, p, m)
		}
		if ctx.Err() == nil { // else it is for removeAll, which has time
			k.drop(p)
		}
	}
}

func (k *Keeper) remove(ctx context.Context, p Port, m mapping) {
	asking, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	if err := k.router.remove(asking, p.Proto, p.At.Port(), m.outside.Port()); err != nil {
		k.cfg.Log.Debug("a mapping stays until it ends by itself", "proto", p.Proto, "port", p.At.Port(), "err", err)
	}
}

// renew has a router map all that is wanted, and reports whether it does so.
func (k *Keeper) renew(ctx context.Context, r router, want []Port) bool {
	asking, cancel := context.WithTimeout(ctx, askBound)
	outside, err := r.outside(asking)
	cancel()
	if err != nil || !sensible(outside) {
		k.cfg.Log.Debug("the router tells no outside address", "router", r.String(), "address", outside, "err", err)
		return false
	}
	failed := 0
	for _, p := range want {
		if err := k.renewOne(ctx, r, p, outside); err != nil {
			k.cfg.Log.Debug("the router maps no port", "router", r.String(), "proto", p.Proto, "port", p.At.Port(), "err", err)
			if failed++; failed == 2 {
				break // it has others to serve
			}
		}
	}
	return failed == 0 || failed == 1 && len(want) > 1
}

// renewOne maps one port, where it can be the outer port that it has or else the
// port itself.
func (k *Keeper) renewOne(ctx context.Context, r router, p Port, outside netip.Addr) error {
	inner := p.At.Port()
	wished := inner
	if old, ok := k.all()[p]; ok {
		wished = old.outside.Port()
	}
	for try := 0; ; try++ {
		asking, cancel := context.WithTimeout(ctx, askBound)
		outer, life, err := r.add(asking, p.Proto, inner, wished)
		cancel()
		if err == nil {
			if life <= 0 || life > lifetime {
				life = lifetime // a router that doesn't answer for so long is not what it was
			}
			until := time.Now().Add(max(life, 3*renewEvery))
			k.keep(p, mapping{outside: netip.AddrPortFrom(outside, outer), until: until})
			return nil
		}
		if !errors.Is(err, errPort) || try == otherPorts {
			return err
		}
		wished = uint16(10000 + rand.IntN(50000)) //nolint:gosec // any port, and it fits
	}
}

// sensible reports whether an address can be one at which a router is seen.
func sensible(a netip.Addr) bool {
	return a.Is4() && a.IsGlobalUnicast() && a.As4()[0] != 0
}

// forget leaves the router; its mappings hold for as long as it said.
func (k *Keeper) forget() {
	if k.router == nil {
		return
	}
	k.cfg.Log.Info("the router leads no ports in any more", "router", k.router.String())
	k.router = nil
	k.mu.Lock()
	k.name = ""
	k.mu.Unlock()
}

// removeAll gives the mappings back.
func (k *Keeper) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), removeBound)
	defer cancel()
	for p, m := range k.all() {
		if k.router != nil && ctx.Err() == nil {
			k.remove(ctx, p, m)
		}
	}
	k.clear()
	k.forget()
}
