package main

import (
	"context"
	"time"
)

// measureStart starts the binary several times with an empty data folder and
// takes the time until the first byte of the page was served.
func measureStart(ctx context.Context, env *environment) ([]table, error) {
	t := table{title: "Start", head: []string{"from exec to", "median", "worst of 7"}}
	var s sample
	for range 7 {
		n, err := env.start(ctx)
		if err != nil {
			return nil, err
		}
		s = append(s, n.up)
		if err := n.stop(); err != nil {
			return nil, err
		}
	}
	row := func(name string, d ...time.Duration) []string { return []string{name, millis(d[0]), millis(d[1])} }
	t.rows = append(t.rows, row("first page served", s.at(0.5), s.at(1)))
	return []table{t}, nil
}
