package parley

import (
	"context"
	"net"

	asnutil "github.com/libp2p/go-libp2p-asn-util"
	libpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Space gives a named space, in which agents on this node and others open
// channels to each other (docs/spec/channels.md §17). The name is 1 to 255 bytes
// of UTF-8; a bad one shows at Join. An agent is any ed25519 key that signs, and
// an identity.Key is one. Join waits until the node runs.
//
//	member, err := node.Space("chess").Join(ctx, key)
//	ch, err := member.Open(ctx, bob, "moves/1")
func (n *Node) Space(name string) channel.Space { return n.channels.Space(name) }

func (n *Node) makeChannels() (err error) {
	key, err := n.data.NodeKey()
	if err != nil {
		return err
	}
	n.located = newLocator(n)
	n.channels, err = channel.New(channel.Config{
		Network: n.host, Key: key, Locator: n.located, Own: n.ownPage, Dial: n.dialMux,
		Path:  func(id identity.PeerID) network.Path { return n.host.Path(id).Path },
		Quiet: !loopbackOnly(n.cfg.P2P.Listen), Logger: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	if err := n.makeMuxes(key); err != nil {
		return err
	}
	if policy, serves := n.cfg.relayPolicy(); serves {
		return n.channels.RelayFor(policy)
	}
	return nil
}

// relayPolicy is what the node does as a relay of channels; false for nothing.
func (c Config) relayPolicy() (policy channel.RelayPolicy, serves bool) {
	switch c.Relay.Profile {
	case "own":
	case "public":
		policy = channel.PublicRelay()
	default:
		return policy, false
	}
	if allow := c.Relay.allowed(); len(allow) > 0 {
		policy = policy.For(allow...)
	}
	policy.ASN = asnOf
	return policy, true
}

// asnOf is the autonomous system of an IPv6 address, by the table that libp2p's
// own relay uses; for IPv4 there is none, and the limit by address has to do.
func asnOf(address string) uint32 {
	ip := net.ParseIP(address)
	if ip == nil || ip.To4() != nil {
		return 0
	}
	return asnutil.AsnForIPv6(ip)
}

// useRelays keeps a contract with one of p2p.relays, so that agents of this node
// are reached through it where no direct path leads.
func (n *Node) useRelays(ctx context.Context) error {
	var relays []identity.PeerID
	for _, text := range n.cfg.P2P.Relays {
		info, err := libpeer.AddrInfoFromString(text)
		if err != nil { // Validate has seen that it can be read
			continue
		}
		n.host.AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
		relays = append(relays, info.ID)
	}
	if len(relays) == 0 {
		return nil
	}
	if err := n.channels.UseRelay(ctx, relays...); ctx.Err() == nil {
		return err
	}
	return nil
}

// ownPage reports whether id is a page's of this node: connections to it lead
// here.
func (n *Node) ownPage(id identity.PeerID) bool { return n.backend.get(id) != nil }
