package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// sample is a set of durations.
type sample []time.Duration

// at is a quantile, in seconds.
func (s sample) at(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Seconds()
}

// identity is a key whose signatures are made beforehand.
type identity struct {
	key    crypto.PrivKey
	public string // hex
	id     string
}

func newIdentity(kind int) (*identity, error) {
	key, pub, err := crypto.GenerateKeyPairWithReader(kind, 2048, rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, err := crypto.MarshalPublicKey(pub)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPublicKey(pub)
	return &identity{key: key, public: hex.EncodeToString(raw), id: id.String()}, err
}

// ticket is all that one join needs.
type ticket struct{ addr, public, nonce, signature string }

// tickets makes n joins of one key, each of an address of its own. The nonces of s
// are fixed: the first tells what they look like.
func (i *identity) tickets(ctx context.Context, s *server, n int) ([]ticket, error) {
	probe, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer probe.close()
	addr := func(n int) string {
		return fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/9090/ws/p2p-websocket-star/ipfs/%s", n>>16&255, n>>8&255, n&255, i.id)
	}
	args, err := probe.call(ctx, "ss-join", addr(0), i.public)
	if err != nil || len(args) != 2 {
		return nil, fmt.Errorf("no challenge: %s, %w", args, err)
	}
	var first string
	if err := json.Unmarshal(args[1], &first); err != nil {
		return nil, err
	}
	all := make([]ticket, n)
	signed := map[string]string{}
	for k := range all {
		t := ticket{addr: addr(k + 1), public: i.public, nonce: strings.Replace(first, addr(0), addr(k+1), 1)}
		if signed[t.nonce] == "" {
			sig, err := i.key.Sign([]byte(t.nonce))
			if err != nil {
				return nil, err
			}
			signed[t.nonce] = hex.EncodeToString(sig)
		}
		t.signature = signed[t.nonce]
		all[k] = t
	}
	return all, nil
}

// join does both steps of a join.
func (t *ticket) join(ctx context.Context, c *client) error {
	args, err := c.call(ctx, "ss-join", t.addr, t.public)
	if err != nil {
		return err
	}
	if len(args) != 2 || string(args[1]) != `"`+t.nonce+`"` {
		return fmt.Errorf("another nonce than expected: %s, %s", args, t.nonce)
	}
	return c.join(ctx, t.addr, t.signature)
}

// measureJoins joins by challenge on open connections, and with a connection each.
func measureJoins(ctx context.Context, b *bench) ([]row, error) {
	var rows []row
	for _, m := range []struct {
		name      string
		kind      int
		count     map[kind]int // a run
		cpu, rate goal
	}{
		{"RSA-2048", crypto.RSA, map[kind]int{reference: 800, parley: 800}, most(150e-6), least(5000)},
		{"Ed25519", crypto.Ed25519, map[kind]int{reference: 40, parley: 4000}, most(100e-6), least(10_000, 100)},
	} {
		rates, cpus := figures{}, figures{}
		err := b.each(ctx, setting{challenge: true}, func(s *server) error {
			r, c, err := b.joins(ctx, s, m.kind, m.count[s.kind])
			rates[s.kind], cpus[s.kind] = r, c
			return err
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, line("joins on open connections, "+m.name, m.rate, rates, rate),
			line("server CPU per join, "+m.name, m.cpu, cpus, micros))
	}
	rates := figures{}
	err := b.each(ctx, setting{challenge: true}, func(s *server) error {
		r, err := b.visits(ctx, s)
		rates[s.kind] = r
		return err
	})
	return append(rows, line("connect, join by RSA, leave", least(2000), rates, rate)), err
}

func (b *bench) joins(ctx context.Context, s *server, kind, count int) (perSecond, cpu float64, err error) {
	who, err := newIdentity(kind)
	if err != nil {
		return 0, 0, err
	}
	const connections = 8
	left, err := who.tickets(ctx, s, count*b.runs)
	if err != nil {
		return 0, 0, err
	}
	clients := make(chan *client, connections)
	for range connections {
		c, err := s.connect(ctx)
		if err != nil {
			return 0, 0, err
		}
		defer c.close()
		clients <- c
	}
	next := make(chan ticket, len(left))
	for _, t := range left {
		next <- t
	}
	err = b.profiled(s, fmt.Sprintf("joins-%d", kind), func() error {
		perSecond, cpu, err = b.atOnce(s, connections, count, func() error {
			c, t := <-clients, <-next
			defer func() { clients <- c }()
			if err := t.join(ctx, c); err != nil {
				return err
			}
			return c.emit(-1, "ss-leave", t.addr)
		})
		return err
	})
	return perSecond, cpu, err
}

// visits connect, join, leave and disconnect.
func (b *bench) visits(ctx context.Context, s *server) (perSecond float64, err error) {
	who, err := newIdentity(crypto.RSA)
	if err != nil {
		return 0, err
	}
	const count = 600
	all, err := who.tickets(ctx, s, count*b.runs)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	perSecond, _, err = b.atOnce(s, 16, count, func() error {
		mu.Lock()
		t := all[0]
		all = all[1:]
		mu.Unlock()
		c, err := s.connect(ctx)
		if err != nil {
			return err
		}
		defer c.close()
		if err := t.join(ctx, c); err != nil {
			return err
		}
		return c.emit(-1, "ss-leave", t.addr)
	})
	return perSecond, err
}
