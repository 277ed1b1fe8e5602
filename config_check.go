package parley

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// Validate says what a node can't be started with, all faults at once, each
// with its key.
func (c Config) Validate() error {
	return errors.Join(
		c.checkUnits(), c.Server.check(), c.HTTP.Validate(), c.Files.Validate(), c.checkAccess(),
		c.Behavior.check(), c.P2P.check(), c.Relay.check(), c.checkRelay(), c.Star.check(), c.checkLimits(),
	)
}

// Exposed reports whether the HTTP server listens on more than loopback.
func (c Config) Exposed() bool { return !loopback(c.Server.Listen) }

// Secure reports whether the HTTP server speaks TLS.
func (c Config) Secure() bool { return c.Server.TLS.Cert != "" }

// Warnings lists what is allowed but not as it seems: unsafe settings, and keys
// that this version reads but does not use yet.
func (c Config) Warnings() []string {
	var list []string
	if !c.WebSocket.CheckOrigin {
		list = append(list, "websocket.checkOrigin = false: any page in this browser can use this node; list its origin in websocket.allowedOrigins instead")
	}
	if c.Gateway.Auth == "none" {
		list = append(list, "gateway.auth = none: any program on this machine can use this node")
	}
	def := DefaultConfig()
	defaults := def.keys()
	for i, k := range c.keys() {
		why, ok := notUsed[k.name]
		if ok && !reflect.DeepEqual(k.value.Interface(), defaults[i].value.Interface()) {
			list = append(list, k.name+" is set, but not used: "+why)
		}
	}
	return list
}

// notUsed has the keys that are read and checked only, and why. The manual
// marks them too.
var notUsed = map[string]string{
	"p2p.fileUpdateNotifyTopic": "this version shares no files",
	"p2p.ipfsGetTimeout":        "this version shares no files",
	"p2p.streamTimeout":         "this version shares no files",
	"websocket.readBufferSize":  "WebSockets read into buffers that fit the frames",
	"websocket.writeBufferSize": "WebSockets write what is waiting at once",
}

// checkUnits finds a duration that was written without its unit: autoExit = 5
// would be five nanoseconds.
func (c Config) checkUnits() error {
	var errs []error
	for _, k := range c.keys() {
		switch v := k.value.Interface().(type) {
		case Duration:
			if v < 0 {
				errs = append(errs, fmt.Errorf("%s: %s is negative", k.name, v))
			} else if v > 0 && v < Duration(time.Millisecond) {
				errs = append(errs, fmt.Errorf(`%s: %d has no unit; write "%ds"`, k.name, int64(v), int64(v)))
			}
		case Size:
			if v < 0 {
				errs = append(errs, fmt.Errorf("%s: %d is negative", k.name, int64(v)))
			}
		}
	}
	return errors.Join(errs...)
}

func (c ServerConfig) check() error {
	var errs []error
	if c.Port < 0 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("server.port: %d is no port", c.Port))
	}
	if c.PortRange < 1 {
		errs = append(errs, fmt.Errorf("server.portRange: %d leaves no port to try", c.PortRange))
	}
	if c.Listen == "" || strings.ContainsAny(c.Listen, "/ ") {
		errs = append(errs, fmt.Errorf("server.listen: %q is no name or address", c.Listen))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err == nil {
		errs = append(errs, fmt.Errorf("server.listen: %q has a port; that is for server.port", c.Listen))
	}
	if c.MaxHeaderBytes < 4*KiB {
		errs = append(errs, fmt.Errorf("server.maxHeaderBytes: %s is too little for a browser's headers; at least 4 KiB", c.MaxHeaderBytes))
	}
	for name, d := range map[string]Duration{
		"read": c.Timeouts.Read, "write": c.Timeouts.Write, "idle": c.Timeouts.Idle, "readHeader": c.Timeouts.ReadHeader,
	} {
		if d == 0 {
			errs = append(errs, fmt.Errorf("server.timeouts.%s: 0 would wait for ever", name))
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		errs = append(errs, errors.New("server.tls: cert and key go together"))
	}
	return errors.Join(errs...)
}

// checkAccess refuses what would open the node to strangers (G-S2, abuse row 8).
func (c Config) checkAccess() error {
	var errs []error
	if c.Gateway.Auth != "link" && c.Gateway.Auth != "none" {
		errs = append(errs, fmt.Errorf(`gateway.auth: %q is neither "link" nor "none"`, c.Gateway.Auth))
	}
	if !c.Exposed() {
		return errors.Join(errs...)
	}
	where := fmt.Sprintf("server.listen: %q is not loopback: ", c.Server.Listen)
	if !c.Secure() {
		errs = append(errs, errors.New(where+"others could read the token on the way. "+
			"Set server.tls.cert and server.tls.key, or listen on localhost behind a proxy that does TLS"))
	}
	if c.Gateway.Auth == "none" {
		errs = append(errs, errors.New(where+`anybody could use this node; gateway.auth = "none" is for loopback only`))
	}
	if !c.WebSocket.CheckOrigin {
		errs = append(errs, errors.New(where+"any page could use this node; websocket.checkOrigin = false is for loopback only"))
	}
	return errors.Join(errs...)
}

func (c BehaviorConfig) check() error {
	if c.Verbosity < 0 || c.Verbosity > 3 {
		return fmt.Errorf("behavior.verbosity: %d is not 0 to 3", c.Verbosity)
	}
	return nil
}

func (c P2PConfig) check() error {
	var errs []error
	if c.ProtocolName == "" || c.ProtocolName[0] != '/' || len(c.ProtocolName) > 256 {
		errs = append(errs, fmt.Errorf("p2p.protocolName: %q is no protocol id such as /p2p-webapp/1.0.0", c.ProtocolName))
	}
	switch c.Router {
	case "node":
	case "page": // a page that nobody finds would look like one that is alone
		errs = append(errs, errors.New(`p2p.router: "page", a GossipSub router for each page, is not in this version: leave it at "node"`))
	default:
		errs = append(errs, fmt.Errorf(`p2p.router: %q is not "node"`, c.Router))
	}
	if len(c.Namespace) > 64 || strings.Trim(c.Namespace, "/") != c.Namespace || strings.ContainsFunc(c.Namespace, func(r rune) bool { return r <= ' ' }) {
		errs = append(errs, fmt.Errorf("p2p.namespace: %q; up to 64 characters without spaces, no slash at its ends", c.Namespace))
	}
	for _, a := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(a); err != nil && !isStar(a) && a != listenNone {
			errs = append(errs, fmt.Errorf("p2p.listen: %q is no multiaddr such as /ip4/0.0.0.0/udp/4001/quic-v1", a))
		}
	}
	if sockets, _ := c.listen(); len(sockets) > 0 && slices.Contains(c.Listen, listenNone) {
		errs = append(errs, fmt.Errorf("p2p.listen: %q and %s exclude each other", listenNone, sockets[0]))
	}
	for _, list := range []struct {
		key   string
		addrs []string
	}{{"p2p.connect", c.Connect}, {"p2p.bootstrap", c.Bootstrap}, {"p2p.relays", c.Relays}} {
		for _, a := range list.addrs {
			if _, err := peer.AddrInfoFromString(a); err != nil {
				errs = append(errs, fmt.Errorf("%s: %q is no multiaddr that ends in /p2p/ID", list.key, a))
			}
		}
	}
	if !goodNetwork(c.MuxNetwork) {
		errs = append(errs, fmt.Errorf("p2p.muxNetwork: %q; up to 64 letters, digits, dots, - and _", c.MuxNetwork))
	}
	for _, text := range c.MuxPeers {
		if _, _, err := parseMux(text); err != nil {
			errs = append(errs, fmt.Errorf("p2p.muxPeers: %q is no wss://node.example/v1/NAME/mux#PEER-ID", text))
		}
	}
	for _, a := range c.OpenStars {
		if !slices.Contains(c.Stars, a) {
			errs = append(errs, fmt.Errorf("p2p.openStars: %q is not among p2p.stars", a))
		}
	}
	for _, text := range c.StarRoots {
		star, file, ok := strings.Cut(text, "=")
		if _, stars := c.listen(); !ok || file == "" || !slices.Contains(stars, star) {
			errs = append(errs, fmt.Errorf("p2p.starRoots: %q is no STAR=FILE with one of p2p.stars", text))
		}
	}
	for _, a := range c.Stars {
		if !isStar(a) {
			errs = append(errs, fmt.Errorf("p2p.stars: %q is no star such as /dns4/star.example/tcp/443/wss/p2p-websocket-star", a))
		}
	}
	return errors.Join(errs...)
}

func (c RelayConfig) check() error {
	var errs []error
	if !slices.Contains([]string{"off", "own", "public"}, c.Profile) {
		errs = append(errs, fmt.Errorf(`relay.profile: %q is none of "off", "own", "public"`, c.Profile))
	}
	for _, id := range c.Allow {
		if _, err := identity.ParsePeerID(id); err != nil && id != allowAll {
			errs = append(errs, fmt.Errorf("relay.allow: %q is no peer id", id))
		}
	}
	if len(c.Allow) > 1 && slices.Contains(c.Allow, allowAll) {
		errs = append(errs, fmt.Errorf("relay.allow: %q stands alone: it is everybody", allowAll))
	}
	return errors.Join(errs...)
}

// checkRelay refuses an open relay without limits that nobody asked for: relays
// are found by strangers, who would use it up.
func (c Config) checkRelay() error {
	if c.Relay.Profile != "own" || len(c.Relay.Allow) > 0 {
		return nil
	}
	if sockets, stars := c.P2P.listen(); len(stars) == 0 && (loopbackOnly(sockets) || len(c.P2P.Listen) > 0 && len(sockets) == 0) {
		return nil // only this machine reaches it
	}
	return errors.New(`relay.allow: a relay with relay.profile = "own" (--relay) has no limits of bytes and time, so name whom it serves: ` +
		`the peer ids of your other nodes (their first lines tell), or "*" for whoever asks; relay.profile = "public" serves strangers, a little each`)
}

// minFrame is the frame limit before a page has its peer: a smaller
// gateway.maxFrame would shrink when it has one.
const minFrame = 64 * KiB

func (c Config) checkLimits() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(c.Gateway.MaxFrame < minFrame, "gateway.maxFrame: %s, at least %s", c.Gateway.MaxFrame, minFrame)
	refuse(c.Gateway.MaxFrame > GiB, "gateway.maxFrame: %s, at most %s", c.Gateway.MaxFrame, GiB)
	refuse(c.Gateway.SessionBuffer < minFrame, "gateway.sessionBuffer: %s, at least %s", c.Gateway.SessionBuffer, minFrame)
	refuse(c.Limits.MaxMessage < KiB, "limits.maxMessage: %s, at least %s", c.Limits.MaxMessage, KiB)
	refuse(c.Limits.MaxMessage > c.Gateway.MaxFrame, "limits.maxMessage: %s does not fit into gateway.maxFrame, %s", c.Limits.MaxMessage, c.Gateway.MaxFrame)
	refuse(c.Limits.Outbox < c.Limits.MaxMessage, "limits.outbox: %s does not hold one limits.maxMessage, %s", c.Limits.Outbox, c.Limits.MaxMessage)
	refuse(c.Limits.Sessions < 1, "limits.sessions: %d lets no page in", c.Limits.Sessions)
	refuse(c.Limits.SessionsPerOrigin < 1, "limits.sessionsPerOrigin: %d lets no page in", c.Limits.SessionsPerOrigin)
	refuse(c.Peer.SendTimeout == 0, "peer.sendTimeout: 0 would give up at once")
	return errors.Join(errs...)
}

// loopback reports whether a host is only reached from this machine. Names are
// compared whole: "localhost.evil.example" isn't.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}
