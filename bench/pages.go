package main

import (
	"context"
	"fmt"
	"time"

	"github.com/parley-p2p/parley/bench/page"
)

// lastPages is of how many pages the wait for `peer` is the median: one is chance.
const lastPages = 10

// measurePages opens 1, 10, 100 and 1,000 pages on one node, each with a key of
// its own, one protocol and one topic, and closes them again.
func measurePages(ctx context.Context, env *environment) ([]table, error) {
	t := table{title: "What a page costs",
		note: "Each page has its own peer, a protocol and a topic. The cost a page is the growth over the empty node; `peer` is the median of the last ten pages of a row; the last row is 8 s after all pages closed.",
		head: []string{"pages", "memory", "a page", "descriptors a page", "goroutines a page", "`peer` answered in", "idle CPU, % of a core"}}
	n, err := env.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = n.stop() }()
	empty, err := settled(ctx, n)
	if err != nil {
		return nil, err
	}
	t.rows = append(t.rows, pagesRow("0", 0, empty, empty, 0, -1))
	var pages []*page.Page
	var full usage
	for _, want := range []int{1, 10, 100, 1000} {
		var took []float64 // what each page waited for its peer, in seconds
		for len(pages) < want {
			began := time.Now()
			p, err := n.page(ctx)
			if err != nil {
				return nil, fmt.Errorf("page %d: %w", len(pages)+1, err)
			}
			took = append(took, time.Since(began).Seconds())
			pages = append(pages, p)
			if err := p.Start(ctx, protocol, func(string, []byte) {}); err != nil {
				return nil, err
			}
			if err := p.Subscribe(ctx, "bench", func(string, []byte) {}); err != nil {
				return nil, err
			}
		}
		u, err := settled(ctx, n)
		if err != nil {
			return nil, err
		}
		idle, err := idleCPU(ctx, n)
		if err != nil {
			return nil, err
		}
		last := time.Duration(median(took[max(0, len(took)-lastPages):]) * float64(time.Second))
		t.rows = append(t.rows, pagesRow(fmt.Sprint(want), want, empty, u, last, idle))
		if want == 1000 {
			t.notes = append(t.notes, target("`peer` answered at the thousandth page: ≤ 10 ms", last <= 10*time.Millisecond, "%s", millis(last)))
		}
		if want > 1 {
			each := float64(u.rss-empty.rss) / 1e6 / float64(want)
			fds := float64(u.fds-empty.fds) / float64(want)
			t.notes = append(t.notes, target(fmt.Sprintf("a page of %d: ≤ 0.6 MB, ≤ 6 descriptors", want), each <= 0.6 && fds <= 6, "%.2f MB, %.1f", each, fds))
		}
		if want == 100 {
			t.notes = append(t.notes, target("an idle node of 100 pages: ≤ 2 % of a core", idle <= 2, "%.1f %%", idle))
		}
		full = u
	}
	for _, p := range pages {
		p.Close()
	}
	select { // the node gives memory back when its pages have been away for some seconds
	case <-time.After(8 * time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err := settled(ctx, n)
	if err != nil {
		return nil, err
	}
	t.rows = append(t.rows, pagesRow("closed", 0, empty, after, 0, -1))
	kept := float64(after.rss-empty.rss) / float64(full.rss-empty.rss)
	t.notes = append(t.notes,
		target("after the pages closed: descriptors and goroutines as before", after.fds <= empty.fds && after.goroutines <= empty.goroutines+2, "%d and %d", after.fds, after.goroutines),
		target("after the pages closed: ≤ 10 % of their memory stays", kept <= 0.1, "%s, %.0f MB", percent(kept), float64(after.rss-empty.rss)/1e6))
	return []table{t}, nil
}

func pagesRow(name string, pages int, empty, now usage, last time.Duration, idle float64) []string {
	row := []string{name, fmt.Sprintf("%.0f MB", float64(now.rss)/1e6)}
	if pages == 0 {
		return append(row, "–", fmt.Sprintf("%d in all", now.fds), fmt.Sprintf("%d in all", now.goroutines), "–", "–")
	}
	n := float64(pages)
	return append(row, fmt.Sprintf("%.2f MB", float64(now.rss-empty.rss)/1e6/n),
		fmt.Sprintf("%.1f", float64(now.fds-empty.fds)/n), fmt.Sprintf("%.1f", float64(now.goroutines-empty.goroutines)/n),
		millis(last), fmt.Sprintf("%.1f", idle))
}

// settled waits until goroutines and descriptors stand still for three seconds,
// at most 40, so that what is on its way out is not counted: a node that has
// become quiet collects its garbage within two.
func settled(ctx context.Context, n *node) (usage, error) {
	var last usage
	still := 0
	for deadline := time.Now().Add(40 * time.Second); still < 12 && time.Now().Before(deadline); {
		u, err := n.usage()
		if err != nil {
			return u, err
		}
		if u.goroutines == last.goroutines && u.fds == last.fds {
			still++
		} else {
			still = 0
		}
		last = u
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
	return last, nil
}

func idleCPU(ctx context.Context, n *node) (float64, error) {
	before, err := n.usage()
	if err != nil {
		return 0, err
	}
	const window = 5 * time.Second
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := n.usage()
	return 100 * (after.cpu - before.cpu).Seconds() / window.Seconds(), err
}
