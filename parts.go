package parley

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	libpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/discover"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/host"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/peer"
	"github.com/parley-p2p/parley/topic"
)

// This file says what each part of a node is told: one function a part.

func (c Config) hostConfig() host.Config {
	sockets, _ := c.P2P.listen()
	out := host.Config{
		Listen:       sockets,
		NoNAT:        loopbackOnly(sockets) || len(sockets) == 0 && len(c.P2P.Listen) > 0,
		NoPortMap:    !c.P2P.PortMapping,
		Relays:       c.P2P.Relays,
		RelayProfile: c.Relay.Profile,
		RelayAllow:   c.Relay.allowed(),
		MaxPages:     c.Limits.Sessions,
		UserAgent:    "parley/" + c.version(),
		Logger:       c.Log,
	}
	if len(out.Listen) == 0 && len(c.P2P.Listen) == 0 {
		out.Listen = nil // every transport
	}
	return out
}

// loopbackOnly reports whether a node listens on this machine alone: then it has
// no use for port mapping and hole punching.
func loopbackOnly(listen []string) bool {
	for _, text := range listen {
		a, err := ma.NewMultiaddr(text)
		if err != nil || !manet.IsIPLoopback(a) {
			return false
		}
	}
	return len(listen) > 0
}

func (c Config) discoverConfig(n *Node) discover.Config {
	bootstrap := c.P2P.Bootstrap
	if len(bootstrap) == 0 {
		bootstrap = discover.PublicBootstrap()
	}
	return discover.Config{
		RuntimeDir: discover.RuntimeDir(),
		Instance:   discover.Instance{Port: n.port, Site: n.siteName(), Version: c.version()},
		MDNS:       c.P2P.MDNS,
		DHT:        c.P2P.DHT,
		Bootstrap:  bootstrap,
		Connect:    c.P2P.Connect,
		Namespace:  c.P2P.Namespace,
		Logger:     c.Log,
	}
}

func (c Config) peerConfig() peer.Config {
	return peer.Config{
		MaxMessage:  int(c.Limits.MaxMessage),
		Outbox:      int(c.Limits.Outbox),
		OutboxTotal: 4 * int(c.Limits.Outbox),
		SendTimeout: time.Duration(c.Peer.SendTimeout),
		Reserved:    []network.Protocol{network.Protocol(c.P2P.ProtocolName)},
		Log:         c.Log,
	}
}

func (c Config) topicConfig(n *Node) topic.Config {
	return topic.Config{
		Namespace: c.P2P.Namespace,
		Addresses: n.backend.addresses,
		Learned:   n.learned,
		Log:       c.Log,
	}
}

func (c Config) accessConfig(port int, token string) access.Config {
	return access.Config{
		Port: port, Exposed: c.Exposed(), Secure: c.Secure(),
		Hosts: c.Server.Hosts, Origins: c.WebSocket.AllowedOrigins, Anywhere: !c.WebSocket.CheckOrigin,
		Auth: access.Mode(c.Gateway.Auth), Bearer: token, Log: c.Log,
	}
}

func (c Config) gatewayConfig(n *Node) gateway.Config {
	return gateway.Config{
		MaxFrame: int(c.Gateway.MaxFrame), MaxMessage: int(c.Limits.MaxMessage),
		SessionBuffer: int(c.Gateway.SessionBuffer), Outbox: int(c.Limits.Outbox),
		Sessions: c.Limits.Sessions, PerOrigin: c.Limits.SessionsPerOrigin,
		Grace: time.Duration(c.Gateway.Grace), SharePeers: c.Gateway.SharePeers, Version: c.version(),
		Keys: pageKeys{n.data}, Activity: n.pages.set, Log: c.Log,
	}
}

func (c Config) httpServer(h http.Handler) *http.Server {
	t := c.Server.Timeouts
	return &http.Server{
		Handler:           h,
		ReadTimeout:       time.Duration(t.Read),
		WriteTimeout:      time.Duration(t.Write),
		IdleTimeout:       time.Duration(t.Idle),
		ReadHeaderTimeout: time.Duration(t.ReadHeader),
		MaxHeaderBytes:    int(c.Server.MaxHeaderBytes),
		ErrorLog:          slog.NewLogLogger(c.Log.With("component", "http").Handler(), slog.LevelDebug), // about single connections
	}
}

// exitAfter is how long the node stays when its last page has left; 0 is for
// ever. A node without a site has no page to wait for.
func (c Config) exitAfter() time.Duration {
	if c.Site == nil || c.Behavior.Linger {
		return 0
	}
	return time.Duration(c.Behavior.AutoExitTimeout)
}

// pageKeys keeps the keys of v2 pages in the data folder. The node's own pages
// share them by site, whatever the port: the folder is the site's.
type pageKeys struct{ data *Data }

func (k pageKeys) Key(ctx context.Context, origin, name string) (identity.Key, error) {
	return k.data.PageKey(ctx, origin, name)
}

// learned takes addresses that a member of a topic gave of itself, so that a
// message to it needs no search.
func (n *Node) learned(id identity.PeerID, addresses []string) {
	var addrs []ma.Multiaddr
	for _, text := range addresses {
		if a, err := ma.NewMultiaddr(text); err == nil {
			transport, _ := libpeer.SplitAddr(a)
			addrs = append(addrs, transport)
		}
	}
	n.host.Found(id, addrs, peerstore.TempAddrTTL)
}

// addPeers keeps connections from a page to peers. Addresses that name a peer
// are its; one that names none is of the only peer that is added.
func (pp *pagePeer) addPeers(ids []identity.PeerID, addresses []string) error {
	addrs := make(map[identity.PeerID][]ma.Multiaddr)
	for _, text := range addresses {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return identity.Errorf(identity.CodeMalformed, "invalid address %q: %w", text, err)
		}
		transport, id := libpeer.SplitAddr(a)
		switch {
		case id == "" && len(ids) == 1:
			id = ids[0]
		case id == "":
			return identity.Errorf(identity.CodeMalformed, "address %q names no peer: it must end in /p2p/<id>", text)
		}
		addrs[id] = append(addrs[id], transport)
	}
	for _, id := range ids {
		if err := pp.ready.Add(id, addrs[id]); err != nil {
			return err
		}
	}
	return nil
}

// siteName names the data folder where none is given.
func (n *Node) siteName() string {
	if n.cfg.Site == nil {
		return "node"
	}
	return n.cfg.Site.Name()
}

// version is the program's, or the module's.
func (c Config) version() string {
	if c.Version != "" {
		return c.Version
	}
	return Version()
}
