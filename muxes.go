package parley

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/channel/muxws"
	"github.com/parley-p2p/parley/identity"
)

// This file is how channels go over WebSocket, where nothing else gets through
// (docs/spec/channels.md §2): p2p.muxNetwork takes such connections at the node's
// HTTP server, p2p.muxPeers makes them.

// parseMux takes an entry of p2p.muxPeers apart: the URL of another node's mux,
// and behind a # its peer id.
func parseMux(text string) (address string, id identity.PeerID, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", err
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return "", "", fmt.Errorf("%q is no ws:// or wss:// URL", text)
	}
	if id, err = identity.ParsePeerID(u.Fragment); err != nil {
		return "", "", err
	}
	u.Fragment = ""
	return u.String(), id, nil
}

// goodNetwork reports whether a network's name can stand in a path.
func goodNetwork(name string) bool {
	return len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) && strings.Trim(name, ".") == name
}

// muxPeers is where the nodes of p2p.muxPeers are.
func (c Config) muxPeers() map[identity.PeerID]string {
	at := make(map[identity.PeerID]string)
	for _, text := range c.P2P.MuxPeers {
		if address, id, err := parseMux(text); err == nil { // Validate has seen that it can be read
			at[id] = address
		}
	}
	return at
}

func (n *Node) makeMuxes(key identity.Key) (err error) {
	n.muxAt = n.cfg.muxPeers()
	if n.cfg.P2P.MuxNetwork == "" && len(n.muxAt) == 0 {
		return nil
	}
	n.muxes, err = muxws.New(muxws.Config{Key: key, Nodes: n.channels, Log: n.cfg.Log.With("component", "mux")})
	return err
}

// dialMux connects to a node of p2p.muxPeers.
func (n *Node) dialMux(ctx context.Context, id identity.PeerID) (channel.Carrier, error) {
	address, ok := n.muxAt[id]
	if !ok {
		return channel.Carrier{}, identity.Errorf(identity.CodeUnreachable, "no p2p.muxPeers leads to %s", id)
	}
	return n.muxes.Dial(ctx, address, id)
}

// runMuxes ends the connections that were taken when life ends.
func (n *Node) runMuxes(life context.Context) error {
	if n.muxes != nil {
		<-life.Done()
		n.muxes.Close()
	}
	return nil
}
