package portmap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home   = way{inside: netip.MustParseAddr("192.168.1.2"), gateway: netip.MustParseAddr("192.168.1.1")}
	office = way{inside: netip.MustParseAddr("10.0.0.2"), gateway: netip.MustParseAddr("10.0.0.1")}
	tcp    = Port{TCP, netip.MustParseAddrPort("0.0.0.0:4001")}
	udp    = Port{UDP, netip.MustParseAddrPort("0.0.0.0:4001")}
)

// box is a router in memory, and the network before it.
type box struct {
	mu      sync.Mutex
	at      way
	out     netip.Addr
	there   bool              // it answers
	taken   map[uint16]bool   // outer ports that it refuses
	ports   map[string]uint16 // "tcp 4001" to the outer port
	found   int               // searches
	life    time.Duration
	changed int
}

func newBox() *box {
	return &box{at: home, out: netip.MustParseAddr("203.0.113.7"), there: true, taken: map[uint16]bool{}, ports: map[string]uint16{}, life: lifetime}
}

// keeper makes one that has the box before it.
func (b *box) keeper(t *testing.T, ports ...Port) *Keeper {
	t.Helper()
	k := New(Config{
		Changed: func() { b.set(func() { b.changed++ }) },
		way: func() (at way, err error) {
			b.set(func() { at = b.at })
			if !at.gateway.IsValid() {
				err = errors.New("no route")
			}
			return at, err
		},
		find: func(_ context.Context, _ way, take func(router) bool) {
			there := false
			b.set(func() { b.found++; there = b.there })
			if there {
				take(b)
			}
		},
	})
	t.Cleanup(func() { _ = k.Close() })
	k.Want(ports)
	synctest.Wait()
	return k
}

func (b *box) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

var errSilent = errors.New("no answer")

func (b *box) String() string { return "a box" }

func (b *box) outside(context.Context) (a netip.Addr, err error) {
	b.set(func() {
		if a = b.out; !b.there {
			err = errSilent
		}
	})
	return a, err
}

func (b *box) add(_ context.Context, proto string, inner, wished uint16) (outer uint16, life time.Duration, err error) {
	b.set(func() {
		switch {
		case !b.there:
			err = errSilent
		case b.taken[wished]:
			err = errPort
		default:
			b.ports[fmt.Sprint(proto, " ", inner)] = wished
		}
	})
	return wished, b.life, err
}

func (b *box) remove(_ context.Context, proto string, inner, _ uint16) (err error) {
	b.set(func() {
		if !b.there {
			err = errSilent
			return
		}
		delete(b.ports, fmt.Sprint(proto, " ", inner))
	})
	return err
}

// mapped checks what the router maps and what the keeper says.
func (b *box) mapped(t *testing.T, k *Keeper, want map[Port]string) {
	t.Helper()
	for _, p := range []Port{tcp, udp} {
		got, ok := k.Outside(p)
		if ok != (want[p] != "") || ok && got.String() != want[p] {
			t.Errorf("%s is outside at %s, %t; want %q", p.Proto, got, ok, want[p])
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ports) != len(want) {
		t.Errorf("the router maps %v, want %v", b.ports, want)
	}
}

var both = map[Port]string{tcp: "203.0.113.7:4001", udp: "203.0.113.7:4001"}

func TestMapsRenewsAndRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		k := b.keeper(t, tcp, udp)
		b.mapped(t, k, both)
		if k.Router() != "a box" || b.changed != 2 {
			t.Errorf("router %q, %d changes", k.Router(), b.changed)
		}
		time.Sleep(time.Hour) // of the bubble
		b.mapped(t, k, both)
		if b.found != 1 || b.changed != 2 {
			t.Errorf("%d searches and %d changes in an hour", b.found, b.changed)
		}
		k.Want([]Port{udp})
		synctest.Wait()
		b.mapped(t, k, map[Port]string{udp: both[udp]})
		_ = k.Close()
		b.mapped(t, k, nil)
	})
}

func TestRouterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		k := b.keeper(t, tcp, udp)
		b.set(func() { clear(b.ports) })
		time.Sleep(renewEvery)
		synctest.Wait()
		b.mapped(t, k, both)
	})
}

func TestRouterAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		k := b.keeper(t, tcp, udp)
		b.set(func() { b.there = false; clear(b.ports) })
		time.Sleep(renewEvery + time.Second)
		if _, ok := k.Outside(tcp); !ok {
			t.Error("the mapping was given up before the router has ended it")
		}
		if k.Router() != "" {
			t.Error("a router that is away maps")
		}
		time.Sleep(lifetime + retryLast)
		b.mapped(t, k, nil)
		searches := 0
		b.set(func() { searches = b.found })
		if searches < 4 || searches > 10 {
			t.Errorf("%d searches in seven minutes", searches)
		}
		b.set(func() { b.there = true })
		time.Sleep(retryLast)
		synctest.Wait()
		b.mapped(t, k, both)
	})
}

func TestAnotherNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		own := Port{TCP, netip.AddrPortFrom(home.inside, 4002)} // the gateway of elsewhere doesn't lead to it
		k := b.keeper(t, tcp, own)
		if _, ok := k.Outside(own); !ok {
			t.Error("not mapped: a port of the address that the gateway knows")
		}
		b.set(func() { b.at, b.out = office, netip.MustParseAddr("198.51.100.9"); clear(b.ports) })
		k.Look()
		synctest.Wait()
		b.mapped(t, k, map[Port]string{tcp: "198.51.100.9:4001"})
		b.set(func() { b.at = way{}; clear(b.ports) })
		k.Look()
		synctest.Wait()
		b.mapped(t, k, nil)
		b.set(func() { b.at, b.out = home, netip.MustParseAddr("203.0.113.7") })
		time.Sleep(renewEvery) // nobody says that the network is back
		synctest.Wait()
		if _, ok := k.Outside(own); !ok {
			t.Error("not mapped on coming back")
		}
	})
}

func TestTakenPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.taken[4001] = true
		k := b.keeper(t, tcp)
		first, ok := k.Outside(tcp)
		if !ok || first.Port() == 4001 || first.Port() < 10000 {
			t.Fatalf("mapped at %s, %t", first, ok)
		}
		time.Sleep(time.Hour)
		if again, _ := k.Outside(tcp); again != first {
			t.Errorf("at %s, then at %s", first, again)
		}
	})
}

// TestNotWorthAnnouncing: addresses that no router has outside.
func TestNotWorthAnnouncing(t *testing.T) {
	for _, text := range []string{"0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "0.1.2.3", "2001:db8::1", ""} {
		t.Run(text, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.out, _ = netip.ParseAddr(text)
				b.mapped(t, b.keeper(t, tcp), nil)
			})
		})
	}
}

func TestForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.life = 0
		k := b.keeper(t, tcp)
		b.set(func() { b.there = false })
		time.Sleep(lifetime - time.Second)
		b.mapped(t, k, map[Port]string{tcp: both[tcp]})
		time.Sleep(retryLast) // it may still hold, but who knows the router
		if _, ok := k.Outside(tcp); ok {
			t.Error("a router that is gone is still announced")
		}
		b.set(func() { b.there = true })
		time.Sleep(retryLast)
		b.mapped(t, k, map[Port]string{tcp: both[tcp]})
		_ = k.Close()
		b.mapped(t, k, nil)
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		var many []Port
		for i := range 100 {
			many = append(many, Port{TCP, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(1000+i))})
		}
		k := b.keeper(t, many...)
		b.mu.Lock()
		if len(b.ports) != maxPorts {
			t.Errorf("%d ports", len(b.ports))
		}
		b.mu.Unlock()
		k.Want(nil)
		synctest.Wait()
		b.mapped(t, k, nil)
		if got := slices.Collect(maps.Keys(k.all())); len(got) != 0 {
			t.Errorf("holds %v", got)
		}
	})
}

// TestNobodyIsAskedForNothing: without a port that could be mapped the router has
// its peace.
func TestNobodyIsAskedForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.keeper(t)
		time.Sleep(time.Hour)
		if b.found != 0 {
			t.Errorf("%d searches", b.found)
		}
	})
}
