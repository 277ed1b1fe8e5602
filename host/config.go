package host

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-p2p/parley/identity"
)

// Relay profiles (gateway.md §9, relay.profile; channels.md §11).
const (
	RelayOff    = "off"    // relays for the node's own pages only
	RelayOwn    = "own"    // for friends: generous limits
	RelayPublic = "public" // for strangers: libp2p's limits
)

// Config says how a node is on the network. The zero value is the default:
// every transport on all interfaces, no relays, relaying for own pages only.
type Config struct {
	// Listen are the node's listen multiaddrs (p2p.listen). nil listens with
	// every transport on all interfaces; an empty list listens nowhere.
	Listen []string
	// PageListen are those of each page. nil takes TCP and QUIC with free ports
	// on the addresses of Listen; an empty list listens nowhere, so that pages
	// are reached through the node alone.
	PageListen []string
	// NoNAT turns off what only makes sense across routers: port mapping,
	// AutoNAT and hole punching.
	NoNAT bool
	// NoPortMap leaves the router alone (p2p.portMapping).
	NoPortMap bool

	// Relays are multiaddrs of circuit relays, each ending in /p2p/<id>
	// (p2p.relays). The node keeps a reservation at up to two of them while it
	// isn't known to be publicly reachable.
	Relays []string
	// RelayProfile is RelayOff (also ""), RelayOwn or RelayPublic.
	RelayProfile string
	// RelayAllow limits who may have a reservation; empty allows everybody.
	RelayAllow []identity.PeerID

	// Conns says when connections are too many. The zero value is the default.
	Conns Conns

	// MaxPages bounds the pages of the node; 0 is 10,000.
	MaxPages int

	// UserAgent is what identify shows; "" is "parley".
	UserAgent string
	// Gater is asked after the host's own rules; nil allows all.
	Gater connmgr.ConnectionGater
	// Options are further options of the node's host, for example a transport
	// that this package doesn't know.
	Options []libp2p.Option
	// Announce gives addresses to announce beside those of the node's sockets and
	// relays, such as those on stars; it is asked each time. nil has none.
	Announce func() []ma.Multiaddr
	// Registerer takes libp2p's metrics; nil has none.
	Registerer prometheus.Registerer
	// Logger is where the host logs; nil is nowhere.
	Logger *slog.Logger
}

// Conns bounds the connections that a node keeps. Above High they are closed down
// to Low, the least valued first; those of protected peers (which the node was told
// to keep, or whose relay it uses) never are, nor young ones.
type Conns struct {
	Low, High int           // 192, 384
	Grace     time.Duration // how long one is young; 1 min
}

// Timeouts of the host.
const (
	// negotiateTimeout bounds agreeing on a protocol on a new stream. A healthy
	// peer needs one round trip; a connection that doesn't answer is given up.
	negotiateTimeout = 5 * time.Second
	// dialTimeout bounds a dial with its handshakes, also by a private address:
	// libp2p gives those 5 s, but a circuit behind one may lead anywhere, and a
	// busy machine takes its time. What doesn't answer at all fails in 5 s anyhow.
	dialTimeout = 15 * time.Second
	// findDelay is how long a dial of known addresses has before others are
	// looked for.
	findDelay = 200 * time.Millisecond
)

// DefaultListen is what nil for Config.Listen means: all transports of
// gateway.md §5.1, on free ports.
func DefaultListen() []string {
	var out []string
	for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
		out = append(out,
			ip+"/tcp/0",
			ip+"/udp/0/quic-v1",
			ip+"/tcp/0/ws",
			ip+"/udp/0/quic-v1/webtransport",
			ip+"/udp/0/webrtc-direct",
		)
	}
	return out
}

// Validate names the first thing that is wrong with c.
func (c *Config) Validate() error {
	for key, list := range map[string][]string{"p2p.listen": c.Listen, "page listen address": c.PageListen} {
		if _, err := parseAddrs(list); err != nil {
			return identity.Errorf(identity.CodeMalformed, "%s: %w", key, err)
		}
	}
	if _, err := parseInfos(c.Relays); err != nil {
		return identity.Errorf(identity.CodeMalformed, "p2p.relays: %w", err)
	}
	switch c.RelayProfile {
	case "", RelayOff, RelayOwn, RelayPublic:
	default:
		return identity.Errorf(identity.CodeMalformed,
			"relay.profile is %q: want %q, %q or %q", c.RelayProfile, RelayOff, RelayOwn, RelayPublic)
	}
	if c.Conns.Low < 0 || c.Conns.High < c.Conns.Low {
		return identity.Errorf(identity.CodeMalformed, "connections: high mark %d is below the low one %d", c.Conns.High, c.Conns.Low)
	}
	if c.MaxPages < 0 {
		return identity.Errorf(identity.CodeMalformed, "MaxPages is %d: want 0 or more", c.MaxPages)
	}
	return nil
}

func (c *Config) withDefaults() Config {
	d := *c
	if d.Listen == nil {
		d.Listen = DefaultListen()
	}
	if d.PageListen == nil {
		d.PageListen = pageListen(d.Listen)
	}
	if d.Conns == (Conns{}) {
		d.Conns = Conns{Low: 192, High: 384, Grace: time.Minute}
	}
	if d.MaxPages == 0 {
		d.MaxPages = 10_000
	}
	if d.UserAgent == "" {
		d.UserAgent = "parley"
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	d.Logger = d.Logger.With("component", "host")
	return d
}

// pageListen derives where pages listen: TCP and QUIC on the node's addresses,
// each with a port of its own.
func pageListen(node []string) []string {
	seen := make(map[string]bool)
	out := []string{}
	for _, text := range node {
		parts := strings.Split(strings.Trim(text, "/"), "/")
		if len(parts) < 4 || (parts[0] != "ip4" && parts[0] != "ip6") {
			continue
		}
		ip := "/" + parts[0] + "/" + parts[1]
		addr := ""
		switch {
		case parts[2] == "tcp" && len(parts) == 4:
			addr = ip + "/tcp/0"
		case parts[2] == "udp" && len(parts) == 5 && parts[4] == "quic-v1":
			addr = ip + "/udp/0/quic-v1"
		}
		if addr != "" && !seen[addr] {
			seen[addr] = true
			out = append(out, addr)
		}
	}
	return out
}

// listensBeyond reports whether any address is not of the own machine alone.
func listensBeyond(addrs []string) bool {
	parsed, _ := parseAddrs(addrs)
	return slices.ContainsFunc(parsed, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
}

func parseAddrs(texts []string) ([]ma.Multiaddr, error) {
	out := make([]ma.Multiaddr, 0, len(texts))
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a multiaddr: %w", text, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// parseInfos reads multiaddrs that end in /p2p/<id> and joins those of one peer,
// in the order of the first of each.
func parseInfos(texts []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	for _, text := range texts {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			return nil, fmt.Errorf("%q must be a multiaddr that ends in /p2p/<id>: %w", text, err)
		}
		at := slices.IndexFunc(out, func(o peer.AddrInfo) bool { return o.ID == info.ID })
		if at < 0 {
			out = append(out, *info)
			continue
		}
		out[at].Addrs = append(out[at].Addrs, info.Addrs...)
	}
	return out, nil
}
