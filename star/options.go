package star

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// Announce says which members a member hears of.
type Announce string

// The ways to announce.
const (
	AnnounceAll    Announce = "all"
	AnnounceSample Announce = "sample" // at most 16 random others each
	AnnounceOff    Announce = "off"
)

// Policy is a set of limits of dials and rates.
type Policy string

// The policies.
const (
	PolicyOpen   Policy = "open"   // no limits of bytes, time and rate
	PolicyPublic Policy = "public" // 128 MiB and an hour a dial and direction; 10 MB/s a session, 40 MB/s an address
)

// Options configures a Server. The zero Options is a server with challenge,
// strict addresses and metrics on a free port of all interfaces, without TLS.
type Options struct {
	Host string // "" is 0.0.0.0
	Port int    // 0 picks a free one
	TLS  TLSOptions

	OpenJoins    bool          // no challenge: anybody takes any free address
	AnyMultiaddr bool          // addresses need not have the shape of a star's
	NoMetrics    bool          // no metrics on the main port
	Refresh      time.Duration // between two announcements of a member; 10 s

	Names          []string       // hosts that are equal in a look-up
	Origins        []string       // pages that may connect; none allows all
	TrustedProxies []netip.Prefix // whose forwarding headers count
	MetricsAllow   []netip.Prefix // who may read metrics on the main port, beside loopback

	Announce     Announce // AnnounceAll
	Policy       Policy   // PolicyOpen
	ResetStrings bool     // vanished peers end streams with a string for everybody

	Drain time.Duration // for streams to end; 30 s; negative: none
	Admin string        // address of health and metrics; "" has no such port
	Spare bool          // where Admin is taken the server does without

	Limits  Limits
	Sockets socketio.Limits
	Times   socketio.Times
	Streams proxy.Limits

	Registry Registry     // of several servers; nil: this one is alone
	Log      *slog.Logger // nil: none
	Nonces   io.Reader    // for tests and benchmarks; nil: the system's
	Version  string       // shown on the status page
}

// Limits are those of star.md §11.2 that are the server's own. Zero values are the
// defaults; a negative value lifts a limit.
type Limits struct {
	SessionsPerIP, Sessions           int     // 256; 20,000
	NewSessionsPerIP, NewSessionBurst float64 // 50 a second; 200

	AddressesPerSession, AddressesPerKey, AddressesPerIP, Addresses int // 8; 16; 256; 10,000

	Joins, JoinBurst   float64 // of a session: 20 a second; 200
	ServerJoins        float64 // 10,000 a second
	Dials, DialBurst   float64 // of a session: 200 a second; 1,000
	Events, EventBurst float64 // of a session: 1,000 a second; 5,000

	Challenges    int           // open, of a session; 8
	ChallengeLife time.Duration // 30 s
	WrongTries    int           // signatures to a challenge; 3
	Verifying     int           // that may wait; 1,024

	Idle  time.Duration // a session without address and stream; 120 s
	Probe time.Duration // for the owner of an address to answer; 3 s

	ListInAck, RefreshBatch, NewPerSecond int // 256; 64; 64

	SessionRate, IPRate float64 // bytes a second; 0: by policy
}

func (l Limits) withDefaults() Limits {
	ints := []struct {
		v *int
		d int
	}{{&l.SessionsPerIP, 256}, {&l.Sessions, 20_000}, {&l.AddressesPerSession, 8}, {&l.AddressesPerKey, 16}, {&l.AddressesPerIP, 256},
		{&l.Addresses, 10_000}, {&l.Challenges, 8}, {&l.WrongTries, 3}, {&l.Verifying, 1024}, {&l.ListInAck, 256}, {&l.RefreshBatch, 64},
		{&l.NewPerSecond, 64}}
	for _, i := range ints {
		*i.v = orLifted(*i.v, i.d, 1<<40)
	}
	rates := []struct {
		v *float64
		d float64
	}{{&l.NewSessionsPerIP, 50}, {&l.NewSessionBurst, 200}, {&l.Joins, 20}, {&l.JoinBurst, 200}, {&l.ServerJoins, 10_000}, {&l.Dials, 200},
		{&l.DialBurst, 1000}, {&l.Events, 1000}, {&l.EventBurst, 5000}}
	for _, r := range rates {
		*r.v = orLifted(*r.v, r.d, 1e12)
	}
	times := []struct {
		v *time.Duration
		d time.Duration
	}{{&l.ChallengeLife, 30 * time.Second}, {&l.Idle, 120 * time.Second}, {&l.Probe, 3 * time.Second}}
	for _, t := range times {
		*t.v = orLifted(*t.v, t.d, 1<<62)
	}
	return l
}

// orLifted gives v, a default for zero, and no limit for less.
func orLifted[T int | float64 | time.Duration](v, otherwise, lifted T) T {
	switch {
	case v == 0:
		return otherwise
	case v < 0:
		return lifted
	}
	return v
}

// withDefaults fills in what is not set and says what can't be.
func (o Options) withDefaults() (Options, error) {
	var faults []error
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	o.Limits = o.Limits.withDefaults()
	if o.Host == "" {
		o.Host = "0.0.0.0"
	}
	if o.Port < 0 || o.Port > 65535 {
		wrong("port %d is not between 0 and 65535", o.Port)
	}
	if o.Refresh == 0 {
		o.Refresh = 10 * time.Second
	}
	if o.Refresh < 100*time.Millisecond {
		wrong("refreshPeerListIntervalMS is below 100")
	}
	switch o.Announce {
	case "":
		o.Announce = AnnounceAll
	case AnnounceAll, AnnounceSample, AnnounceOff:
	default:
		wrong("announce is %q: all, sample or off", o.Announce)
	}
	switch o.Policy {
	case "", PolicyOpen:
		o.Policy = PolicyOpen
	case PolicyPublic:
		o = o.public()
	default:
		wrong("policy is %q: open or public", o.Policy)
	}
	if o.Drain == 0 {
		o.Drain = 30 * time.Second
	}
	if o.Admin != "" {
		if _, _, err := net.SplitHostPort(o.Admin); err != nil {
			wrong("admin: %w", err)
		}
	}
	if o.Sockets.Message > 16<<20 {
		wrong("messages of %d bytes are above 16 MiB", o.Sockets.Message)
	}
	if o.Sockets.LongEvents == "" {
		o.Sockets.LongEvents = proxy.Queue
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(faults...); err != nil {
		return o, &identity.Error{Code: identity.CodeMalformed, Text: "star: " + err.Error(), Err: err}
	}
	return o, nil
}

func (o Options) public() Options {
	if o.Streams.DialBytes == 0 {
		o.Streams.DialBytes = 128 << 20
	}
	if o.Streams.DialLife == 0 {
		o.Streams.DialLife = time.Hour
	}
	if o.Limits.SessionRate == 0 {
		o.Limits.SessionRate = 10e6
	}
	if o.Limits.IPRate == 0 {
		o.Limits.IPRate = 40e6
	}
	return o
}
