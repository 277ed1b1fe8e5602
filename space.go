package parley

import (
	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
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
		Network: n.host, Key: key, Locator: n.located, Own: n.ownPage, Quiet: !loopbackOnly(n.cfg.P2P.Listen), Logger: n.cfg.Log,
	})
	return err
}

// ownPage reports whether id is a page's of this node: connections to it lead
// here.
func (n *Node) ownPage(id identity.PeerID) bool { return n.backend.get(id) != nil }
