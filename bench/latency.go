package main

import (
	"context"
	"fmt"
	"time"
)

// latencies are samples of the same moments.
type latencies struct{ inside, between, same, two sample }

// measureLatency takes round trips twice: with cores that are kept from
// sleeping, and as they are. To wake a core of a virtual machine costs about
// 50 µs, as much as all the rest, and only ways between processes pay it.
func measureLatency(ctx context.Context, env *environment) ([]table, error) {
	var tables []table
	for _, awake := range []bool{true, false} {
		l, err := takeLatencies(ctx, env, awake)
		if err != nil {
			return nil, err
		}
		tables = append(tables, l.table(awake))
	}
	return tables, nil
}

func takeLatencies(ctx context.Context, env *environment, awake bool) (l latencies, err error) {
	if awake {
		stop, err := keepAwake(ctx)
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
	const rounds, each = 15, 400
	for range rounds {
		for f, into := range map[*floor]*sample{inside: &l.inside, between: &l.between} {
			if err := f.inTurn(ctx, each, into); err != nil {
				return l, err
			}
		}
		for p, into := range map[*pair]*sample{same: &l.same, two: &l.two} {
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

func (l *latencies) table(awake bool) table {
	t := table{title: "Latency of `send` to `handled`, one after another, 100 B, cores kept awake",
		note: "B = one WebSocket echo + one echo on an open libp2p stream + one WebSocket echo, measured in turns with the rest.",
		head: []string{"path", "p50", "p99", "p50 / B", "p99 / B"}}
	if !awake {
		t.title = "The same, cores that sleep"
		t.note = "A core with nothing to do sleeps, and to wake it takes a virtual machine about 50 µs. Inside one process Go keeps a core awake, so that B pays nothing of it; between processes B pays as parley does."
	}
	b := l.inside.at(0.5)
	for _, row := range []struct {
		name string
		s    sample
	}{{"B, all in one process", l.inside}, {"B, the echoes in another process", l.between},
		{"same node (two processes)", l.same}, {"two nodes (three processes)", l.two}} {
		s := row.s
		t.rows = append(t.rows, []string{row.name, micros(s.at(0.5)), micros(s.at(0.99)), times(s.at(0.5), b), times(s.at(0.99), b)})
	}
	p50, p99 := ratio(l.two.at(0.5), b), ratio(l.two.at(0.99), b)
	if !awake {
		b = l.between.at(0.5)
		p50, p99 = ratio(l.two.at(0.5), b), ratio(l.two.at(0.99), b)
		t.notes = append(t.notes, fmt.Sprintf("Two nodes beside B between processes: p50 %.1f ×, p99 %.1f ×.", p50, p99))
		return t
	}
	t.notes = append(t.notes, target("two nodes, p50 ≤ 4 × B", p50 <= 4, "%.1f ×", p50), target("two nodes, p99 ≤ 25 × B", p99 <= 25, "%.1f ×", p99))
	return t
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }
