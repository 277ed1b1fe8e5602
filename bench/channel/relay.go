package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
)

// trio is three nodes: alice and charlie are joined by the relay bob, and also
// directly, for comparison.
type trio struct {
	alice, bob, charlie *end
	listener            channel.Listener
}

func newTrio(ctx context.Context, secure bool) (*trio, error) {
	t := &trio{}
	for _, e := range []**end{&t.alice, &t.bob, &t.charlie} {
		var err error
		if *e, err = newEnd(ctx, wide, nil); err != nil {
			return nil, err
		}
	}
	if err := t.bob.node.RelayFor(channel.RelayPolicy{Bridges: 10_000, Contracts: 10_000, PerAddress: 10_000}); err != nil {
		return nil, err
	}
	for _, pair := range [][2]*end{{t.alice, t.bob}, {t.charlie, t.bob}, {t.charlie, t.alice}} {
		join := connectSecured
		if !secure {
			join = func(ctx context.Context, a, b *end) error { return connect(ctx, a, b, true) }
		}
		if err := join(ctx, pair[0], pair[1]); err != nil {
			return nil, err
		}
	}
	go func() { _ = t.alice.node.UseRelay(ctx, t.bob.key.PeerID()) }()
	var err error
	if t.listener, err = t.alice.member.Listen("x"); err != nil {
		return nil, err
	}
	return t, waitFor(ctx, func() bool { return len(t.alice.node.Relays()) > 0 })
}

func waitFor(ctx context.Context, ready func() bool) error {
	for !ready() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (t *trio) muxer(ctx context.Context, opts ...channel.OpenOption) *muxer {
	return &muxer{
		open: func() (io.ReadWriteCloser, error) {
			for deadline := time.Now().Add(5 * time.Second); ; {
				ch, err := t.charlie.member.Open(ctx, t.alice.member.Agent(), "x", opts...)
				if err == nil || time.Now().After(deadline) || !errors.Is(err, channel.ErrNoAgent) {
					return ch, err
				}
				time.Sleep(time.Millisecond) // alice is being registered
			}
		},
		accept: func() (io.ReadWriteCloser, error) { return t.listener.Accept(ctx) },
	}
}

func measureRelay(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var rows [][]string
	for _, secure := range []bool{false, true} {
		t, err := newTrio(ctx, secure)
		if err != nil {
			return "", err
		}
		trips, rates, err := compareRelay(t.muxer(ctx), t.muxer(ctx, channel.Via(t.bob.key.PeerID())))
		if err != nil {
			return "", err
		}
		over, targets := "bare TCP", [2]string{}
		added, share := (trips[1]-trips[0])*1e6, rates[1]/rates[0]
		if secure {
			over = "libp2p's Noise"
			targets = [2]string{"≤ +50: " + verdict(added <= 50), "at most 33 % here"}
		}
		rows = append(rows,
			[]string{"echo of 64 B over " + over + ", p50 µs", fmt.Sprintf("%.1f", trips[0]*1e6), fmt.Sprintf("%.1f", trips[1]*1e6),
				fmt.Sprintf("+%.1f", added), targets[0]},
			[]string{"one channel over " + over + ", MiB/s", fmt.Sprintf("%.0f", rates[0]/(1<<20)), fmt.Sprintf("%.0f", rates[1]/(1<<20)),
				fmt.Sprintf("%.0f %%", 100*share), targets[1]})
	}
	return table("Through a relay", "Three nodes in one process, so one machine does the work of three. Relayed channels are encrypted "+
		"between their ends, whatever the connections are: over Noise each byte is encrypted or decrypted six times instead of twice, so a third is the most "+
		"that one machine can reach. \"What a relay costs\" has the share with machines of their own.",
		[]string{"", "direct", "relayed", "", "target"}, rows...), nil
}

// compareRelay gives medians of round trips in seconds and of bytes a second,
// direct and relayed.
func compareRelay(direct, relayed *muxer) (trips, rates [2]float64, err error) {
	var t, b [2][]float64
	for range rounds {
		for i, m := range []*muxer{direct, relayed} {
			v, err := echo(m)
			if err != nil {
				return trips, rates, err
			}
			t[i] = append(t[i], v)
			if v, err = bulk(m); err != nil {
				return trips, rates, err
			}
			b[i] = append(b[i], v)
		}
	}
	for i := range t {
		trips[i], rates[i] = median(t[i]), median(b[i])
	}
	return trips, rates, nil
}

// measureCrowd fills a relay: 1,000 contracts and 5,000 bridges. All ends are in
// this process and counted, so what is given is more than the relay's own.
func measureCrowd(ctx context.Context) (string, error) {
	const contracts, bridges = 1000, 5000
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bob, err := newEnd(ctx, wide, nil)
	if err != nil {
		return "", err
	}
	if err := bob.node.RelayFor(channel.RelayPolicy{Bridges: 16, Contracts: contracts, PerAddress: contracts}); err != nil {
		return "", err
	}
	charlie, err := newEnd(ctx, wide, nil)
	if err != nil {
		return "", err
	}
	before := heap()
	targets, err := crowd(ctx, bob, contracts)
	if err != nil {
		return "", err
	}
	if err := connect(ctx, charlie, bob, true); err != nil { // not before: without a channel it would end after 30 s
		return "", err
	}
	withContracts := heap() - before
	start := time.Now()
	var mu sync.Mutex
	var open []channel.Channel
	var wg sync.WaitGroup
	var failed error
	for worker := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := worker; i < bridges; i += 8 {
				ch, err := charlie.member.Open(ctx, targets[i%len(targets)], "x", channel.Via(bob.key.PeerID()))
				mu.Lock()
				open = append(open, ch)
				failed = errors.Join(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		}()
	}
	wg.Wait()
	if failed != nil {
		return "", failed
	}
	took := time.Since(start)
	total := heap() - before
	n := bob.node.Metrics().Relay
	runtime.KeepAlive(open)
	if n.Bridges != bridges || n.Contracts.Current != contracts {
		return "", fmt.Errorf("%d bridges, %d contracts", n.Bridges, n.Contracts.Current)
	}
	return table("A full relay", "1,000 nodes under contract and 5,000 bridges. Heap of the whole process: the relay, all 1,001 nodes and both ends of all channels.",
		[]string{"", "value", "target"},
		[]string{"1,000 contracts, both sides", fmt.Sprintf("%d MiB", withContracts>>20), ""},
		[]string{"and 5,000 bridges", fmt.Sprintf("%d MiB", total>>20), "≤ 512 MiB: " + verdict(total <= 512<<20)},
		[]string{"opening one of them", fmt.Sprintf("%.2f ms", took.Seconds()*1000/bridges), ""}), nil
}

// crowd makes nodes that use the relay and take channels.
func crowd(ctx context.Context, bob *end, n int) ([]identity.AgentID, error) {
	var agents []identity.AgentID
	for range n {
		e, err := newEnd(ctx, channel.Limits{}, nil)
		if err != nil {
			return nil, err
		}
		if err := connect(ctx, e, bob, true); err != nil {
			return nil, err
		}
		go func() { _ = e.node.UseRelay(ctx, bob.key.PeerID()) }()
		l, err := e.member.Listen("x")
		if err != nil {
			return nil, err
		}
		go func() {
			var keep []channel.Channel
			for {
				ch, err := l.Accept(ctx)
				if err != nil {
					runtime.KeepAlive(keep)
					return
				}
				keep = append(keep, ch)
			}
		}()
		agents = append(agents, e.member.Agent())
	}
	return slices.Clip(agents), waitFor(ctx, func() bool { return bob.node.Metrics().Relay.Registered >= n })
}
