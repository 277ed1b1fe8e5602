package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/bench/page"
)

// measureTopic publishes from one page to four, on one node and on two, as fast
// as publish lets it.
func measureTopic(ctx context.Context, env *environment) ([]table, error) {
	t := table{title: "Topic, one publisher, four subscribers, 100 B",
		note: "The publisher keeps 64 publications unanswered and never pauses; each must reach all four, in order. Ready is the time from subscribe to its answer.",
		head: []string{"subscribers", "published", "delivered", "expected", "out of order", "told lost", "ready p50"}}
	for _, nodes := range []int{1, 2} {
		r, err := runTopic(ctx, env, nodes)
		if err != nil {
			return nil, err
		}
		t.rows = append(t.rows, r.row())
		t.notes = append(t.notes, target("subscribers "+r.name()+", ≥ 3,000 /s, all delivered in order",
			r.rate >= 3000 && r.got == r.want && r.wrong == 0, "%s", perSecond(r.rate)))
	}
	return []table{t}, nil
}

// listener counts what one subscriber got.
type listener struct {
	page  *page.Page
	got   atomic.Int64
	wrong atomic.Int64
	last  int // owned by the page's reader
}

func (l *listener) take(_ string, data []byte) {
	var n int
	if _, err := fmt.Sscanf(string(trimHead(data)), "%d", &n); err != nil || n <= l.last {
		l.wrong.Add(1)
	}
	l.last = max(l.last, n)
	l.got.Add(1)
}

// trimHead steps to the first digit: the text may come as CBOR or as JSON.
func trimHead(data []byte) []byte {
	for i, b := range data {
		if i > 0 && b >= '0' && b <= '9' {
			return data[i:]
		}
	}
	return nil
}

// topicResult is what one run gave.
type topicResult struct {
	nodes            int
	rate             float64
	got, want, wrong int64
	lost             uint64
	ready            time.Duration
}

func (r *topicResult) name() string {
	return map[int]string{1: "on the publisher's node", 2: "on another node"}[r.nodes]
}

func (r *topicResult) row() []string {
	return []string{r.name(), perSecond(r.rate), fmt.Sprint(r.got), fmt.Sprint(r.want), fmt.Sprint(r.wrong), fmt.Sprint(r.lost), millis(r.ready)}
}

func runTopic(ctx context.Context, env *environment, nodes int) (r topicResult, err error) {
	var running []*node
	var pages []*page.Page
	defer func() {
		for _, p := range pages {
			p.Close()
		}
		for _, n := range running {
			_ = n.stop()
		}
	}()
	for range nodes {
		n, err := env.start(ctx)
		if err != nil {
			return r, err
		}
		running = append(running, n)
	}
	var ready sample
	listeners := make([]*listener, 4)
	for i := range listeners {
		p, err := running[nodes-1].page(ctx)
		if err != nil {
			return r, err
		}
		pages = append(pages, p)
		listeners[i] = &listener{page: p}
		began := time.Now()
		if err := p.Subscribe(ctx, "bench", listeners[i].take); err != nil {
			return r, err
		}
		ready = append(ready, time.Since(began))
	}
	publisher, err := running[0].page(ctx)
	if err != nil {
		return r, err
	}
	pages = append(pages, publisher)
	const count = 30_000
	rate, err := publishAll(ctx, publisher, count)
	if err != nil {
		return r, err
	}
	r = topicResult{nodes: nodes, rate: rate, want: 4 * count, ready: ready.at(0.5)}
	r.got, r.wrong, r.lost = settle(ctx, listeners, count)
	return r, nil
}

func publishAll(ctx context.Context, p *page.Page, count int) (float64, error) {
	slots := make(chan struct{}, 64)
	var once sync.Once
	var failed error
	began := time.Now()
	for i := 1; i <= count; i++ {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		p.Publish("bench", fmt.Sprintf("%08d%92s", i, "x"), func(err error) {
			if err != nil {
				once.Do(func() { failed = err })
			}
			<-slots
		})
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	return float64(count) / time.Since(began).Seconds(), failed
}

// settle waits until every listener has all, or nothing more comes for 2 s.
func settle(ctx context.Context, ls []*listener, count int64) (got, wrong int64, lost uint64) {
	last, since := int64(-1), time.Now()
	for ctx.Err() == nil && time.Since(since) < 2*time.Second {
		got = 0
		for _, l := range ls {
			got += l.got.Load()
		}
		if got >= count*int64(len(ls)) {
			break
		}
		if got != last {
			last, since = got, time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, l := range ls {
		wrong += l.wrong.Load()
		lost += l.page.Lost()
	}
	return got, wrong, lost
}
