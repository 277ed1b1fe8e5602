package transport

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Options configures a Transport. The zero Options has safe defaults. The functions
// are called from several goroutines and must not block.
type Options struct {
	// Star says what holds for one star, named by its address without an id; nil is
	// StarOptions with the default budget for all.
	Star func(server string) StarOptions

	// Found is told of members of stars: id claims to be reached at addr, and that
	// is worth something for life; 0 means that it has left. Nothing is dialled by
	// itself.
	Found func(id peer.ID, addr ma.Multiaddr, life time.Duration)

	// Changed is called when Addrs or a state has changed.
	Changed func()

	// NearLimit is called once a connection whose bytes are limited has used four
	// fifths of them: another path to id is worth a try.
	NearLimit func(id peer.ID)

	// Dialer opens the connections to stars; nil is the system's, with the proxy
	// settings of the environment.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

	Limits Limits
	Times  Times
	Log    *slog.Logger // nil: none
}

// StarOptions is what holds for one star.
type StarOptions struct {
	AllowOpen bool           // join although the star asks for no proof
	Roots     *x509.CertPool // whose certificates count, instead of the system's
	Budget    Budget
}

// Limits bounds what stars can make this side hold. Zero values are the defaults.
type Limits struct {
	Discovered int // members remembered of one star; 4,096
	Dials      int // connections over one star, each way; 1,024
	Backlog    int // incoming connections before they are accepted; 64
	OnDemand   int // stars joined for a dial alone; 16
	Unsent     int // bytes of one connection that wait to be sent; 256 KiB
	Buffer     int // bytes of one connection that wait to be read, on a star without credit; 4 MiB
}

// Times are the waits. Zero values are the defaults.
type Times struct {
	Connect  time.Duration // 10 s
	Join     time.Duration // 10 s
	Dial     time.Duration // 15 s
	RetryMin time.Duration // between attempts, doubling; 1 s
	RetryMax time.Duration // 60 s
	Healthy  time.Duration // after which a lost star is tried as at first; 60 s
	OnDemand time.Duration // that a star joined for a dial is kept after its last use; 60 s
	Refresh  time.Duration // in which stars announce members again; 10 s
	Stall    time.Duration // for a reader that takes nothing, on a star without credit; 20 s
	Linger   time.Duration // for the last bytes of a connection that is closed; 5 s
}

func (o Options) withDefaults() Options {
	l, t := &o.Limits, &o.Times
	setInt(&l.Discovered, 4096)
	setInt(&l.Dials, 1024)
	setInt(&l.Backlog, 64)
	setInt(&l.OnDemand, 16)
	setInt(&l.Unsent, 256<<10)
	setInt(&l.Buffer, 4<<20)
	setTime(&t.Connect, 10*time.Second)
	setTime(&t.Join, 10*time.Second)
	setTime(&t.Dial, 15*time.Second)
	setTime(&t.RetryMin, time.Second)
	setTime(&t.RetryMax, time.Minute)
	setTime(&t.Healthy, time.Minute)
	setTime(&t.OnDemand, time.Minute)
	setTime(&t.Refresh, 10*time.Second)
	setTime(&t.Stall, 20*time.Second)
	setTime(&t.Linger, 5*time.Second)
	if o.Star == nil {
		o.Star = func(string) StarOptions { return StarOptions{Budget: DefaultBudget()} }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func setInt(v *int, otherwise int) {
	if *v == 0 {
		*v = otherwise
	}
}

func setTime(v *time.Duration, otherwise time.Duration) {
	if *v == 0 {
		*v = otherwise
	}
}

// life is how long a member is believed to be there without news of it.
func (t *Times) life() time.Duration { return max(3*t.Refresh, time.Minute) }
