package parley

import (
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/admin"
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/transport"
)

// A node is reached through the stars of p2p.stars, and reaches others through any
// star that they announce, as the last of all paths. Its pages have what it has:
// their circuits run over the node's connections.

// isStar reports whether text is a star's address, with or without an id.
func isStar(text string) bool {
	_, err := address.Parse(text)
	return err == nil
}

// listenNone in p2p.listen stands for no sockets: nobody can dial the node or its
// pages, and relays and stars are the only ways to it.
const listenNone = "none"

// listen takes the stars out of p2p.listen: a node that listens on stars alone, or
// on listenNone, has no sockets.
func (c P2PConfig) listen() (sockets, stars []string) {
	sockets = []string{}
	stars = slices.Clone(c.Stars)
	for _, a := range c.Listen {
		switch {
		case isStar(a):
			stars = append(stars, a)
		case a != listenNone:
			sockets = append(sockets, a)
		}
	}
	return sockets, stars
}

// starRoots reads the certificates of p2p.starRoots, by star.
func (c P2PConfig) starRoots() (map[string]*x509.CertPool, error) {
	roots := make(map[string]*x509.CertPool)
	for _, text := range c.StarRoots {
		star, file, _ := strings.Cut(text, "=") // validated
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("p2p.starRoots: %w", err)
		}
		at, err := address.Parse(star)
		if err != nil {
			return nil, fmt.Errorf("p2p.starRoots: %s: %w", star, err)
		}
		pool := roots[at.Server()]
		if pool == nil {
			pool = x509.NewCertPool()
			roots[at.Server()] = pool
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("p2p.starRoots: %s has no certificate", file)
		}
	}
	return roots, nil
}

func (c Config) starOptions(n *Node, roots map[string]*x509.CertPool) transport.Options {
	open := make(map[string]bool)
	for _, text := range c.P2P.OpenStars {
		if s, err := address.Parse(text); err == nil {
			open[s.Server()] = true
		}
	}
	return transport.Options{
		Star: func(server string) transport.StarOptions {
			return transport.StarOptions{AllowOpen: open[server], Roots: roots[server], Budget: transport.Budget{Dial: int64(c.P2P.StarBudget)}}
		},
		Found:     func(id peer.ID, addr ma.Multiaddr, life time.Duration) { n.found.Seen(id, addr, life) },
		Changed:   func() { n.host.Readdress() },
		NearLimit: func(id peer.ID) { n.host.Improve(id) },
		Log:       c.Log.With("component", "star"),
	}
}

// listenOnStars begins to join them. A star that isn't there delays nothing and
// fails nothing: the dashboard says how each is doing.
func (n *Node) listenOnStars() error {
	_, stars := n.cfg.P2P.listen()
	for _, text := range stars {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return fmt.Errorf("p2p.stars: %w", err)
		}
		if err := n.host.Libp2p().Network().Listen(a); err != nil {
			return fmt.Errorf("p2p.stars: %s: %w", text, err)
		}
	}
	return nil
}

func (n *Node) starRows() []admin.Star {
	var rows []admin.Star
	for _, s := range n.stars.Status() {
		row := admin.Star{Address: s.Address, State: string(s.State), Since: s.Since, RTT: s.RTT, Members: s.Members,
			Streams: s.Streams, In: s.In, Out: s.Out, OnDemand: s.OnDemand}
		if s.Error != nil {
			row.Error = s.Error.Error()
		}
		rows = append(rows, row)
	}
	return rows
}

// starStats are what is counted of all stars together. The names of the metrics are
// made of those of the fields.
type starStats struct {
	Configured, Joined, Members, Streams int
	BytesIn, BytesOut                    uint64
}

func (n *Node) starStats() (sum starStats) {
	_, stars := n.cfg.P2P.listen()
	sum.Configured = len(stars)
	for _, s := range n.stars.Status() {
		if s.State == transport.Joined {
			sum.Joined++
		}
		sum.Members += s.Members
		sum.Streams += s.Streams
	}
	in, out := n.stars.Traffic()
	sum.BytesIn, sum.BytesOut = uint64(in), uint64(out)
	return sum
}
