package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/bench/page"
)

const protocol = "bench/1"

// maxUnsettled is limits.outbox, less what frames weigh.
const maxUnsettled = 15 << 20

// pair is two pages that talk: on one node, or on two.
type pair struct {
	a, b  *page.Page
	nodes []*node
}

func (e *environment) pair(ctx context.Context, nodes int) (*pair, error) {
	p := &pair{}
	for range nodes {
		n, err := e.start(ctx)
		if err != nil {
			return p, err
		}
		p.nodes = append(p.nodes, n)
	}
	var err error
	if p.a, err = p.nodes[0].page(ctx); err != nil {
		return p, err
	}
	if p.b, err = p.nodes[nodes-1].page(ctx); err != nil {
		return p, err
	}
	if err := p.b.Start(ctx, protocol, func(string, []byte) {}); err != nil {
		return p, err
	}
	return p, p.one(ctx, []byte("first")) // so that the connection stands
}

func (p *pair) close() {
	for _, side := range []*page.Page{p.a, p.b} {
		if side != nil {
			side.Close()
		}
	}
	for _, n := range p.nodes {
		_ = n.stop()
	}
}

// one sends one message and waits until it was handled.
func (p *pair) one(ctx context.Context, msg []byte) error {
	result := make(chan error, 1)
	p.a.Send(p.b.Peer(), protocol, msg, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// many sends count messages with up to inFlight unsettled and gives messages a
// second. The callback of one sends the next, as a page would.
func (p *pair) many(ctx context.Context, size, inFlight, count int) (float64, error) {
	inFlight = min(inFlight, maxUnsettled/size) // a client waits by itself beyond it
	msg := make([]byte, size)
	var started, settled atomic.Int64
	done := make(chan error, 1)
	finish := func(err error) {
		select {
		case done <- err:
		default:
		}
	}
	var next func()
	next = func() {
		if started.Add(1) > int64(count) {
			return
		}
		p.a.Send(p.b.Peer(), protocol, msg, func(err error) {
			if err != nil {
				finish(err)
			} else if settled.Add(1) == int64(count) {
				finish(nil)
			} else {
				next()
			}
		})
	}
	began := time.Now()
	for range inFlight {
		next()
	}
	select {
	case err := <-done:
		return float64(count) / time.Since(began).Seconds(), err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func measureLatency(ctx context.Context, env *environment) ([]table, error) {
	t := table{title: "Latency of `send` to `handled`, one after another, 100 B",
		note: "B = one WebSocket echo + one echo on an open libp2p stream + one WebSocket echo, measured in turns with the rest.",
		head: []string{"path", "p50", "p99", "p50 / B", "p99 / B"}}
	f, err := newFloor(ctx)
	defer f.Close()
	if err != nil {
		return nil, err
	}
	same, err := env.pair(ctx, 1)
	defer same.close()
	if err != nil {
		return nil, err
	}
	two, err := env.pair(ctx, 2)
	defer two.close()
	if err != nil {
		return nil, err
	}
	const rounds, each = 15, 400
	msg := make([]byte, 100)
	var base, one, far sample
	for range rounds {
		for range each {
			d, err := f.roundTrip(ctx, msg)
			if err != nil {
				return nil, err
			}
			base = append(base, d)
		}
		for p, into := range map[*pair]*sample{same: &one, two: &far} {
			for range each {
				began := time.Now()
				if err := p.one(ctx, msg); err != nil {
					return nil, err
				}
				*into = append(*into, time.Since(began))
			}
		}
	}
	b := base.at(0.5)
	for _, row := range []struct {
		name string
		s    sample
	}{{"B (floor)", base}, {"same node", one}, {"two nodes", far}} {
		s := row.s
		t.rows = append(t.rows, []string{row.name, micros(s.at(0.5)), micros(s.at(0.99)), times(s.at(0.5), b), times(s.at(0.99), b)})
	}
	return []table{t}, nil
}

func measureRate(ctx context.Context, env *environment) ([]table, error) {
	t := table{title: "Handled messages a second",
		note: "Every message acknowledged as handled by the other page; median of 5 rounds. The last column compares the bytes with a bare libp2p stream that carries pieces of the same size one way, in the same run.",
		head: []string{"path", "size", "in flight", "messages", "bytes", "of a bare stream"}}
	f, err := newFloor(ctx)
	defer f.Close()
	if err != nil {
		return nil, err
	}
	for nodes := 1; nodes <= 2; nodes++ {
		p, err := env.pair(ctx, nodes)
		if err != nil {
			p.close()
			return nil, err
		}
		rows, err := rateRows(ctx, f, p, nodes)
		p.close()
		if err != nil {
			return nil, err
		}
		t.rows = append(t.rows, rows...)
	}
	return []table{t}, nil
}

func rateRows(ctx context.Context, f *floor, p *pair, nodes int) (rows [][]string, err error) {
	path := map[int]string{1: "same node", 2: "two nodes"}[nodes]
	for _, c := range []struct{ size, inFlight, count int }{
		{100, 64, 100_000}, {1 << 10, 64, 80_000}, {64 << 10, 64, 6_000},
		{100, 1000, 100_000}, {1 << 10, 1000, 80_000}, {64 << 10, 1000, 6_000},
	} {
		var rates, bare []float64
		for range 5 {
			r, err := p.many(ctx, c.size, c.inFlight, c.count)
			if err != nil {
				return nil, fmt.Errorf("%s, %d B, %d in flight: %w", path, c.size, c.inFlight, err)
			}
			b, err := f.streamRate(ctx, c.size, int64(c.size)*int64(c.count))
			if err != nil {
				return nil, err
			}
			rates, bare = append(rates, r), append(bare, b)
		}
		rate, bytes := median(rates), median(rates)*float64(c.size)
		rows = append(rows, []string{path, sizeName(c.size), fmt.Sprint(c.inFlight), perSecond(rate), megabytes(bytes),
			fmt.Sprintf("%.0f %%", 100*bytes/median(bare))})
	}
	return rows, nil
}

func sizeName(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
