package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// rateCase is a row: how large, how many at once, how many in a round.
type rateCase struct{ size, inFlight, count int }

var rateCases = []rateCase{
	{100, 64, 100_000}, {1 << 10, 64, 80_000}, {64 << 10, 64, 8_000},
	{100, 1000, 100_000}, {1 << 10, 1000, 80_000}, {64 << 10, 1000, 8_000},
}

const rateRounds = 5

// rateResult is what the rounds of a case gave; rates are medians, in messages
// a second.
type rateResult struct {
	rateCase
	rate, stream, way float64
	nodeCPU, driver   time.Duration // a message, of all nodes and of both pages
	wayCPU            time.Duration // a message, of both bare processes
	memory            int64         // bytes of the larger node
}

func measureRate(ctx context.Context, env *environment) ([]table, error) {
	t := table{title: "Handled messages a second",
		note: fmt.Sprintf("Every message acknowledged as handled by the other page; medians of %d rounds. *Of a bare stream* compares the bytes with a libp2p stream inside one process that carries pieces of the same size one way, without any WebSocket. *Of the bare way* compares with what such a path can be at all: WebSocket → process → libp2p stream → process → WebSocket, each message answered by a byte, with the same libraries and the same pages and without outbox, acknowledgements, resumption or limits; it does not join small messages. Everything shares two cores, so the processor time of nodes and pages bounds the rate.", rateRounds),
		head: []string{"path", "size", "in flight", "messages", "bytes", "of a bare stream", "of the bare way", "CPU of the nodes, a message", "of the pages", "of the bare processes", "memory of a node"}}
	f, err := newFloor(ctx)
	defer f.Close()
	if err != nil {
		return nil, err
	}
	way, err := newBareWay(ctx)
	defer way.close()
	if err != nil {
		return nil, err
	}
	for nodes := 1; nodes <= 2; nodes++ {
		p, err := env.pair(ctx, nodes)
		var results []rateResult
		for i := 0; err == nil && i < len(rateCases); i++ {
			var r rateResult
			if r, err = measureCase(ctx, f, way, p, rateCases[i]); err == nil {
				t.rows = append(t.rows, r.row(nodes))
				results = append(results, r)
			}
		}
		p.close()
		if err != nil {
			return nil, err
		}
		if nodes == 2 {
			t.notes = rateTargets(results)
		}
	}
	return []table{t}, nil
}

func measureCase(ctx context.Context, f *floor, way *bareWay, p *pair, c rateCase) (r rateResult, err error) {
	r.rateCase = c
	var rates, bare, ways []float64
	var nodeCPU, driver, wayCPU time.Duration
	for range rateRounds {
		before, me := p.cpu(), cpuOf(os.Getpid())
		rate, err := p.many(ctx, c.size, c.inFlight, c.count)
		if err != nil {
			return r, fmt.Errorf("%d nodes, %d B, %d in flight: %w", len(p.nodes), c.size, c.inFlight, err)
		}
		nodeCPU += p.cpu() - before
		driver += cpuOf(os.Getpid()) - me
		stream, err := f.streamRate(ctx, c.size, int64(c.size)*int64(c.count))
		if err != nil {
			return r, err
		}
		before = way.cpu()
		passed, err := way.many(c.size, c.inFlight, c.count/2)
		if err != nil {
			return r, fmt.Errorf("bare way: %w", err)
		}
		wayCPU += way.cpu() - before
		rates, bare, ways = append(rates, rate), append(bare, stream/float64(c.size)), append(ways, passed)
	}
	n := time.Duration(rateRounds * c.count)
	r.rate, r.stream, r.way = median(rates), median(bare), median(ways)
	r.nodeCPU, r.driver, r.wayCPU = nodeCPU/n, driver/n, wayCPU*2/n
	for _, n := range p.nodes {
		u, err := n.usage()
		if err != nil {
			return r, err
		}
		r.memory = max(r.memory, u.rss)
	}
	return r, nil
}

func (r *rateResult) row(nodes int) []string {
	path := map[int]string{1: "same node", 2: "two nodes"}[nodes]
	bytes := r.rate * float64(r.size)
	return []string{path, sizeName(r.size), fmt.Sprint(r.inFlight), perSecond(r.rate), megabytes(bytes),
		percent(r.rate / r.stream), percent(r.rate / r.way), tenths(r.nodeCPU), tenths(r.driver), tenths(r.wayCPU),
		fmt.Sprintf("%.0f MB", float64(r.memory)/1e6)}
}

// rateTargets holds the rows of two nodes to what was asked of them. What was
// lost would have failed the run: each message is waited for, and counted where
// it arrives.
func rateTargets(rs []rateResult) []string {
	of := func(size, inFlight int) rateResult {
		for _, r := range rs {
			if r.size == size && r.inFlight == inFlight {
				return r
			}
		}
		return rateResult{}
	}
	small, middle, large := of(100, 64), of(1<<10, 64), of(64<<10, 64)
	notes := []string{
		target("two nodes, 100 B, 64 in flight: ≥ 60,000 /s", small.rate >= 60_000, "%s", perSecond(small.rate)),
		target("two nodes, 1 KiB, 64 in flight: ≥ 45,000 /s", middle.rate >= 45_000, "%s", perSecond(middle.rate)),
		target("two nodes, 64 KiB, 64 in flight: ≥ 50 % of a bare stream's bytes", large.rate >= large.stream/2,
			"%s; the bare way itself reaches %s", percent(large.rate/large.stream), percent(large.way/large.stream)),
	}
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		few, many := of(size, 64), of(size, 1000)
		notes = append(notes, target("two nodes, "+sizeName(size)+", 1,000 in flight: the rate of 64, nothing lost",
			many.rate >= 0.95*few.rate, "%s, node at %.0f MB", percent(many.rate/few.rate), float64(many.memory)/1e6))
	}
	return notes
}

func sizeName(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
