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
	a, b   *page.Page
	nodes  []*node
	inside []*inside
	got    atomic.Int64 // messages that b's handler had
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
	return p, p.meet(ctx)
}

// meet has b listen, and a connection stand.
func (p *pair) meet(ctx context.Context) error {
	if err := p.b.Start(ctx, protocol, func(string, []byte) { p.got.Add(1) }); err != nil {
		return err
	}
	return p.one(ctx, []byte("first"))
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
	for _, n := range p.inside {
		n.close()
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
	had := p.got.Load()
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
		rate := float64(count) / time.Since(began).Seconds()
		if got := p.got.Load() - had; err == nil && got != int64(count) {
			err = fmt.Errorf("%d of %d messages arrived", got, count)
		}
		return rate, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// inTurn sends count messages, each when the one before was handled, and takes
// the time of each.
func (p *pair) inTurn(ctx context.Context, msg []byte, count int) (sample, error) {
	times := make(sample, 0, count)
	done := make(chan error, 1)
	var next func()
	next = func() {
		began := time.Now()
		p.a.Send(p.b.Peer(), protocol, msg, func(err error) {
			times = append(times, time.Since(began))
			if err != nil || len(times) == count {
				done <- err
				return
			}
			next()
		})
	}
	next()
	select {
	case err := <-done:
		return times, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
