package discover

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Config says where to look. The zero value looks nowhere but in what is told
// by hand.
type Config struct {
	// RuntimeDir is the folder of the process registry; "" is none. RuntimeDir()
	// gives the user's.
	RuntimeDir string
	// Instance is what the own file in the registry says of the node besides its
	// process, id and addresses. Describe changes it later.
	Instance Instance
	// MDNS looks on the LAN (p2p.mdns).
	MDNS bool
	// DHT joins the public DHT (p2p.dht).
	DHT bool
	// Bootstrap are multiaddrs with /p2p/<id> where the DHT begins
	// (p2p.bootstrap); none is needed: nodes met otherwise serve as well.
	// PublicBootstrap() gives the public list.
	Bootstrap []string
	// DHTServer makes the node serve the DHT from the start, instead of when it
	// is known to be publicly reachable. For closed networks and tests.
	DHTServer bool
	// Connect are multiaddrs with /p2p/<id> of peers to keep connections to
	// (p2p.connect).
	Connect []string
	// Namespace keeps this node's records apart from others' (p2p.namespace).
	Namespace string
	// Logger is where to log; nil is nowhere.
	Logger *slog.Logger
}

// Node is the host that discovery works for.
type Node interface {
	Network
	Libp2p() libhost.Host
	// Found tells the node and its pages addresses of a peer.
	Found(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration)
	// AllowOtherKeys lets peers connect although their keys aren't ed25519: the
	// public bootstrap nodes are of the time of RSA.
	AllowOtherKeys(ids ...identity.PeerID)
}

// Network is a network.Network that can be told where peers are.
type Network interface {
	network.Network
	Connecter
}

// Connecter makes connections for one identity: the node's or a page's.
type Connecter interface {
	// Connect makes a connection by any path if there is none.
	Connect(ctx context.Context, id identity.PeerID) error
	// AddAddrs tells addresses of a peer, forgotten after ttl without a connection.
	AddAddrs(id identity.PeerID, addrs []ma.Multiaddr, ttl time.Duration)
	// Notify calls f, which doesn't block, when something about a peer changed.
	Notify(f func(id identity.PeerID)) (stop func())
	// Connected reports whether there is a connection to a peer.
	Connected(id identity.PeerID) bool
}

// Validate names the first thing that is wrong with c.
func (c *Config) Validate() error {
	for key, list := range map[string][]string{"p2p.bootstrap": c.Bootstrap, "p2p.connect": c.Connect} {
		if _, err := parseInfos(list); err != nil {
			return identity.Errorf(identity.CodeMalformed, "%s: %w", key, err)
		}
	}
	if len(c.Namespace) > maxNamespace {
		return identity.Errorf(identity.CodeMalformed, "p2p.namespace has %d bytes, limit %d", len(c.Namespace), maxNamespace)
	}
	return nil
}

const maxNamespace = 128 // bytes

// parseInfos reads multiaddrs that end in /p2p/<id> and joins those of one peer.
func parseInfos(texts []string) ([]peer.AddrInfo, error) {
	var addrs []ma.Multiaddr
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a multiaddr: %w", text, err)
		}
		addrs = append(addrs, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil, fmt.Errorf("an address must end in /p2p/<id>: %w", err)
	}
	return infos, nil
}
