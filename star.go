package parley

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// StarConfig is a star server: a program of its own (parley star), or one inside
// a node (docs/spec/star.md §9.1).
type StarConfig struct {
	Enabled bool   `toml:"enabled"` // run one inside the node
	Host    string `toml:"host"`
	Port    int    `toml:"port"` // 0 for any free one

	Key           string   `toml:"key"` // PEM
	Cert          string   `toml:"cert"`
	PFX           string   `toml:"pfx"` // PKCS#12
	Passphrase    string   `toml:"passphrase"`
	ACME          []string `toml:"acme"`          // host names to get certificates for
	ACMECache     string   `toml:"acmeCache"`     // folder; "": one among the user's data
	ACMEDirectory string   `toml:"acmeDirectory"` // "" is Let's Encrypt

	Challenge    bool     `toml:"challenge"` // peers prove who they are
	Strict       bool     `toml:"strict"`    // addresses are those of stars
	Metrics      bool     `toml:"metrics"`   // on the main port
	MetricsAllow []string `toml:"metricsAllow"`
	Refresh      Duration `toml:"refresh"`

	Names          []string `toml:"names"`
	Origins        []string `toml:"origins"`
	TrustedProxies []string `toml:"trustedProxies"`
	Announce       string   `toml:"announce"` // "all", "sample" or "off"
	Policy         string   `toml:"policy"`   // "open" or "public"
	ResetStrings   string   `toml:"resetStrings"`
	Drain          Duration `toml:"drain"`
	Admin          string   `toml:"admin"` // "" for none

	// Several servers behind one name share their members over NATS.
	Cluster      []string `toml:"cluster"` // URLs of NATS; none: this star is alone
	ClusterName  string   `toml:"clusterName"`
	ClusterURL   string   `toml:"clusterURL"`   // how the others reach this one; "": as NATS sees it
	ClusterCreds string   `toml:"clusterCreds"` // file of a NATS user
	ClusterCA    string   `toml:"clusterCA"`    // PEM, beside the system's roots
	ClusterCert  string   `toml:"clusterCert"`  // PEM
	ClusterKey   string   `toml:"clusterKey"`

	Limits StarLimits `toml:"limits"`
}

// StarLimits are the limits of docs/spec/star.md §11.2. 0 lifts those that count
// or time; 0 leaves those that say "by policy" to the policy.
type StarLimits struct {
	Message Size `toml:"message"` // of a packet or a POST
	Text    Size `toml:"text"`    // of an event other than a chunk

	Sessions         int `toml:"sessions"`
	SessionsPerIP    int `toml:"sessionsPerIP"`
	NewSessionsPerIP int `toml:"newSessionsPerIP"` // a second
	NewSessionBurst  int `toml:"newSessionBurst"`

	Addresses           int `toml:"addresses"`
	AddressesPerSession int `toml:"addressesPerSession"`
	AddressesPerKey     int `toml:"addressesPerKey"`
	AddressesPerIP      int `toml:"addressesPerIP"`

	Joins         int      `toml:"joins"` // a second, of a session
	JoinBurst     int      `toml:"joinBurst"`
	ServerJoins   int      `toml:"serverJoins"` // a second
	Challenges    int      `toml:"challenges"`  // open, of a session
	ChallengeLife Duration `toml:"challengeLife"`
	Verifying     int      `toml:"verifying"` // signatures that wait

	Dials            int      `toml:"dials"` // a second, of a session
	DialBurst        int      `toml:"dialBurst"`
	OpenDials        int      `toml:"openDials"` // of a session, as dialer and as callee
	UnansweredDials  int      `toml:"unansweredDials"`
	ServerDials      int      `toml:"serverDials"` // open
	DialAnswer       Duration `toml:"dialAnswer"`
	Events           int      `toml:"events"` // a second, of a session
	EventBurst       int      `toml:"eventBurst"`
	Stall            Duration `toml:"stall"`
	Stuck            Duration `toml:"stuck"`
	Idle             Duration `toml:"idle"`
	StreamBytes      Size     `toml:"streamBytes"` // held
	SessionBytes     Size     `toml:"sessionBytes"`
	ServerBytes      Size     `toml:"serverBytes"`
	DialBytes        Size     `toml:"dialBytes"` // of a dial and direction
	DialLife         Duration `toml:"dialLife"`
	SessionRate      Size     `toml:"sessionRate"` // a second
	IPRate           Size     `toml:"ipRate"`
	List             int      `toml:"list"` // addresses in the answer to a join
	RefreshBatch     int      `toml:"refreshBatch"`
	NewMembersSecond int      `toml:"newMembersPerSecond"` // told to each member
}

// defaultAdmin is for metrics and health, which are nobody else's. A second star of
// the machine, which did not ask for it, does without.
const defaultAdmin = "127.0.0.1:9091"

// defaultStar is what holds where nothing else is said.
func defaultStar() StarConfig {
	return StarConfig{
		Host: "0.0.0.0", Port: 9090, // as the reference
		Challenge: true, Strict: true, Metrics: true,
		Refresh:  seconds(10),
		Announce: string(star.AnnounceAll), Policy: string(star.PolicyOpen), ResetStrings: "extended",
		Drain: seconds(30),
		Admin: defaultAdmin,

		ClusterName: cluster.DefaultName,
		Limits: StarLimits{
			Message: 1_000_000, Text: 64 * KiB, // what clients of the reference take
			Sessions: 20_000, SessionsPerIP: 256, NewSessionsPerIP: 50, NewSessionBurst: 200,
			Addresses: 10_000, AddressesPerSession: 8, AddressesPerKey: 16, AddressesPerIP: 256,
			Joins: 20, JoinBurst: 200, ServerJoins: 10_000, Challenges: 8, ChallengeLife: seconds(30), Verifying: 1024,
			Dials: 200, DialBurst: 1000, OpenDials: 1024, UnansweredDials: 128, ServerDials: 50_000, DialAnswer: seconds(15),
			Events: 1000, EventBurst: 5000, Stall: seconds(20), Stuck: seconds(45), Idle: seconds(120),
			StreamBytes: 256 * KiB, SessionBytes: MiB, ServerBytes: 512 * MiB,
			List: 256, RefreshBatch: 64, NewMembersSecond: 64,
		},
	}
}

// Secure reports whether the star speaks TLS.
func (c StarConfig) Secure() bool {
	return c.Key != "" || c.Cert != "" || c.PFX != "" || len(c.ACME) > 0
}

// Validate says what a star can't be started with, all faults at once, each with
// its key.
func (c StarConfig) Validate() error {
	return errors.Join(Config{Star: c}.checkUnits(), c.check())
}

func (c StarConfig) check() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(c.Port < 0 || c.Port > 65535, "star.port: %d is no port", c.Port)
	refuse((c.Key == "") != (c.Cert == ""), "star.key, star.cert: they go together")
	kinds := 0
	for _, given := range []bool{c.Key != "" || c.Cert != "", c.PFX != "", len(c.ACME) > 0} {
		if given {
			kinds++
		}
	}
	refuse(kinds > 1, "star.key, star.pfx, star.acme: only one kind of certificate")
	refuse(c.Refresh < Duration(100*time.Millisecond), "star.refresh: %s, at least 100ms", c.Refresh)
	refuse(!slices.Contains([]string{"all", "sample", "off"}, c.Announce), `star.announce: %q is none of "all", "sample", "off"`, c.Announce)
	refuse(!slices.Contains([]string{"open", "public"}, c.Policy), `star.policy: %q is neither "open" nor "public"`, c.Policy)
	refuse(!slices.Contains([]string{"extended", "all"}, c.ResetStrings), `star.resetStrings: %q is neither "extended" nor "all"`, c.ResetStrings)
	if c.Admin != "" {
		_, _, err := net.SplitHostPort(c.Admin)
		refuse(err != nil, "star.admin: %q is no address such as 127.0.0.1:9091", c.Admin)
	}
	for key, list := range map[string][]string{"star.trustedProxies": c.TrustedProxies, "star.metricsAllow": c.MetricsAllow} {
		_, err := networks(list)
		refuse(err != nil, "%s: %v", key, err)
	}
	if len(c.Cluster) > 0 {
		err := c.clusterOptions(nil).Validate()
		refuse(err != nil, "star.cluster: %v", err)
	}
	l := c.Limits
	refuse(l.Message < KiB || l.Message > 16*MiB, "star.limits.message: %s is not 1 KiB to 16 MiB", l.Message)
	refuse(l.Text < KiB || l.Text > l.Message, "star.limits.text: %s is not 1 KiB to star.limits.message", l.Text)
	refuse(l.StreamBytes < 64*KiB, "star.limits.streamBytes: %s, at least 64 KiB", l.StreamBytes)
	refuse(l.SessionBytes < l.StreamBytes, "star.limits.sessionBytes: %s is less than star.limits.streamBytes", l.SessionBytes)
	refuse(l.ServerBytes < l.SessionBytes, "star.limits.serverBytes: %s is less than star.limits.sessionBytes", l.ServerBytes)
	for name, d := range map[string]Duration{"challengeLife": l.ChallengeLife, "dialAnswer": l.DialAnswer, "stall": l.Stall, "stuck": l.Stuck} {
		refuse(d == 0, "star.limits.%s: 0 would wait for ever", name)
	}
	return errors.Join(append(errs, c.checkSigns())...)
}

// checkSigns refuses numbers below zero.
func (c StarConfig) checkSigns() error {
	var errs []error
	whole := Config{Star: c}
	for _, k := range whole.keys() {
		if n, ok := k.value.Interface().(int); ok && n < 0 && k.name != "star.port" {
			errs = append(errs, fmt.Errorf("%s: %d is negative; 0 is no limit", k.name, n))
		}
	}
	return errors.Join(errs...)
}

// networks reads addresses and networks: 10.0.0.0/8, 192.0.2.1, ::1.
func networks(list []string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%q is no network such as 10.0.0.0/8", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}

// options is the configuration as the star has it.
func (c StarConfig) options() (star.Options, error) {
	if err := c.Validate(); err != nil {
		return star.Options{}, err
	}
	proxies, _ := networks(c.TrustedProxies) // Validate has read them
	readers, _ := networks(c.MetricsAllow)
	l := c.Limits
	o := star.Options{
		Host: c.Host, Port: c.Port,
		TLS: star.TLSOptions{Key: c.Key, Cert: c.Cert, PFX: c.PFX, Passphrase: c.Passphrase,
			ACME: c.ACME, ACMECache: c.ACMECache, Directory: c.ACMEDirectory},
		OpenJoins: !c.Challenge, AnyMultiaddr: !c.Strict, NoMetrics: !c.Metrics, Refresh: c.Refresh.D(),
		Names: c.Names, Origins: c.Origins, TrustedProxies: proxies, MetricsAllow: readers,
		Announce: star.Announce(c.Announce), Policy: star.Policy(c.Policy), ResetStrings: c.ResetStrings == "all",
		Drain: unlimited(c.Drain.D()), Admin: c.Admin, Spare: c.Admin == defaultAdmin,
		Limits:  l.server(),
		Sockets: socketio.Limits{Message: int(l.Message), Text: int(l.Text)},
		Times:   socketio.Times{Stuck: l.Stuck.D()},
		Streams: proxy.Limits{Stream: int(l.StreamBytes), Socket: int(l.SessionBytes), Server: int64(l.ServerBytes),
			DialsOfDialer: unlimited(l.OpenDials), Unanswered: unlimited(l.UnansweredDials), DialsOfCallee: unlimited(l.OpenDials),
			Dials: unlimited(l.ServerDials), Answer: l.DialAnswer.D(), Stall: l.Stall.D(), DialBytes: int64(l.DialBytes), DialLife: l.DialLife.D()},
	}
	if len(c.ACME) > 0 && c.ACMECache == "" {
		folder, err := DataFolder("", "star")
		if err != nil {
			return o, err
		}
		o.TLS.ACMECache = filepath.Join(folder, "acme")
	}
	return o, nil
}

// server gives the limits that are the server's own.
func (l StarLimits) server() star.Limits {
	rate := func(n int) float64 { return float64(unlimited(n)) }
	return star.Limits{
		SessionsPerIP: unlimited(l.SessionsPerIP), Sessions: unlimited(l.Sessions),
		NewSessionsPerIP: rate(l.NewSessionsPerIP), NewSessionBurst: rate(l.NewSessionBurst),
		AddressesPerSession: unlimited(l.AddressesPerSession), AddressesPerKey: unlimited(l.AddressesPerKey),
		AddressesPerIP: unlimited(l.AddressesPerIP), Addresses: unlimited(l.Addresses),
		Joins: rate(l.Joins), JoinBurst: rate(l.JoinBurst), ServerJoins: rate(l.ServerJoins),
		Dials: rate(l.Dials), DialBurst: rate(l.DialBurst), Events: rate(l.Events), EventBurst: rate(l.EventBurst),
		Challenges: unlimited(l.Challenges), ChallengeLife: unlimited(l.ChallengeLife.D()), Verifying: unlimited(l.Verifying),
		Idle: unlimited(l.Idle.D()), ListInAck: unlimited(l.List), RefreshBatch: unlimited(l.RefreshBatch), NewPerSecond: unlimited(l.NewMembersSecond),
		SessionRate: float64(l.SessionRate), IPRate: float64(l.IPRate),
	}
}

// unlimited makes of 0, which is no limit for a person, the -1 of the options.
func unlimited[T int | time.Duration](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// NewStar makes a star server and opens its ports, so that a start that can't work
// fails here. Its Run serves until its context ends, then drains. log and version
// may be nil and "".
func NewStar(c StarConfig, log *slog.Logger, version string) (*star.Server, error) {
	if version == "" {
		version = Version()
	}
	return c.build(log, version, 0)
}

// build is NewStar; linger is how long sessions that are closed may take to close
// from their side, 0 is the default.
func (c StarConfig) build(log *slog.Logger, version string, linger time.Duration) (*star.Server, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	o.Log, o.Version, o.Times.Linger = log, version, linger
	shared, err := c.share(log)
	if err != nil {
		return nil, err
	}
	if shared == nil {
		return star.New(o)
	}
	o.Registry = shared
	srv, err := star.New(o)
	if err != nil {
		shared.Close()
	}
	return srv, err
}

// clusterStart is how long NATS may take to be ready: it may be just starting, too.
const clusterStart = 30 * time.Second

// share makes the star's part in its cluster; nil for a star alone.
func (c StarConfig) share(log *slog.Logger) (*cluster.Cluster, error) {
	if len(c.Cluster) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), clusterStart)
	defer cancel()
	return cluster.New(ctx, c.clusterOptions(log))
}

func (c StarConfig) clusterOptions(log *slog.Logger) cluster.Options {
	return cluster.Options{URL: strings.Join(c.Cluster, ","), Name: c.ClusterName, Internal: c.ClusterURL,
		Credentials: c.ClusterCreds, CA: c.ClusterCA, Cert: c.ClusterCert, Key: c.ClusterKey, Log: log}
}
