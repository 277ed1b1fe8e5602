package main

import (
	"context"
	"fmt"
	"time"
)

// latencies are samples of the same moments.
type latencies struct{ inside, between, same, two, whole sample }

// measureLatency takes round trips twice: on the machine as it is, which the
// targets are for, and with its cores kept busy by a process of the lowest
// priority. Which of the two it is changes the ways between processes by a factor
// of two and B, which is inside one, not at all.
func measureLatency(ctx context.Context, env *environment) ([]table, error) {
	var tables []table
	for _, busy := range []bool{false, true} {
		l, err := takeLatencies(ctx, env, busy)
		if err != nil {
			return nil, err
		}
		tables = append(tables, l.table(busy))
	}
	return tables, nil
}

func takeLatencies(ctx context.Context, env *environment, busy bool) (l latencies, err error) {
	if busy {
		stop, err := loadCores(ctx)
		if err != nil {
			return l, err
		}
		defer stop()
	}
	inside, err := newFloor(ctx)
	defer inside.Close()
	if err != nil {
		return l, err
	}
	between, err := newFloorBetween(ctx)
	defer between.Close()
	if err != nil {
		return l, err
	}
	same, err := env.pair(ctx, 1)
	defer same.close()
	if err != nil {
		return l, err
	}
	two, err := env.pair(ctx, 2)
	defer two.close()
	if err != nil {
		return l, err
	}
	whole, err := env.pairInside(ctx)
	defer whole.close()
	if err != nil {
		return l, err
	}
	const rounds, each = 15, 400
	for range rounds {
		for f, into := range map[*floor]*sample{inside: &l.inside, between: &l.between} {
			if err := f.inTurn(ctx, each, into); err != nil {
				return l, err
			}
		}
		for p, into := range map[*pair]*sample{same: &l.same, two: &l.two, whole: &l.whole} {
			times, err := p.inTurn(ctx, make([]byte, 100), each)
			if err != nil {
				return l, err
			}
			*into = append(*into, times...)
		}
	}
	return l, nil
}

// inTurn takes count round trips.
func (f *floor) inTurn(ctx context.Context, count int, into *sample) error {
	msg := make([]byte, 100)
	for range count {
		d, err := f.roundTrip(ctx, msg)
		if err != nil {
			return err
		}
		*into = append(*into, d)
	}
	return nil
}

func (l *latencies) table(busy bool) table {
	t := table{title: "Latency of `send` to `handled`, one after another, 100 B",
		note: "B = one WebSocket echo + one echo on an open libp2p stream + one WebSocket echo, measured in turns with the rest, all in one process. So two nodes are measured in one process too: the same two WebSockets and one libp2p stream, with parley between them. A page, its node, the other node and the other page are three processes otherwise, and B is measured with its echoes in another process beside it.",
		head: []string{"path", "p50", "p99", "p50 / B", "p99 / B"}}
	if busy {
		t.title = "The same while a process of the lowest priority keeps both cores busy"
		t.note = "On the virtual machine of these figures that makes everything between processes faster, B's own echoes included: what is spared is waking a core that sleeps (decision 0013). The targets are for the table above."
	}
	b, between := l.inside.at(0.5), l.between.at(0.5)
	for _, row := range []struct {
		name string
		s    sample
	}{{"B, all in one process", l.inside}, {"B, the echoes in another process", l.between},
		{"two nodes, all in one process", l.whole},
		{"same node (two processes)", l.same}, {"two nodes (three processes)", l.two}} {
		s := row.s
		t.rows = append(t.rows, []string{row.name, micros(s.at(0.5)), micros(s.at(0.99)), times(s.at(0.5), b), times(s.at(0.99), b)})
	}
	p50, p99 := l.two.at(0.5), l.two.at(0.99)
	if !busy {
		t.notes = append(t.notes, latencyTargets("two nodes, all in one process as B is", l.whole, b)...)
		t.notes = append(t.notes, latencyTargets("two nodes, three processes", l.two, b)...)
	}
	t.notes = append(t.notes, fmt.Sprintf("Two nodes beside B between processes: p50 %.1f ×, p99 %.1f ×.", ratio(p50, between), ratio(p99, between)))
	return t
}

func latencyTargets(what string, s sample, b time.Duration) []string {
	p50, p99 := ratio(s.at(0.5), b), ratio(s.at(0.99), b)
	return []string{target(what+", p50 ≤ 4 × B", p50 <= 4, "%.1f ×", p50), target(what+", p99 ≤ 25 × B", p99 <= 25, "%.1f ×", p99)}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }
