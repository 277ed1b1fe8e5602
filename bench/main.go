package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/parley-p2p/parley/bench/report"
)

// section is one part of the benchmark; it fills its own place of the report.
type section struct {
	name string
	run  func(ctx context.Context, env *environment) ([]table, error)
}

func sections() []section {
	return []section{
		{"latency", measureLatency},
		{"rate", measureRate},
		{"topic", measureTopic},
		{"pages", measurePages},
		{"start", measureStart},
	}
}

func main() {
	file := flag.String("report", "../docs/benchmarks.md", "the page whose sections are rewritten; empty for none")
	binary := flag.String("parley", "", "the binary to measure; built when empty")
	flag.Parse()
	switch flag.Arg(0) { // this process is the benchmark's own helper
	case "bare":
		if err := runBare(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	case "spin":
		runSpin()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, *file, *binary, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, file, binary string, names []string) error {
	env, err := newEnvironment(ctx, binary)
	if err != nil {
		return err
	}
	defer env.Close()
	for _, s := range sections() {
		if len(names) > 0 && !strings.Contains(" "+strings.Join(names, " ")+" ", " "+s.name+" ") {
			continue
		}
		tables, err := s.run(ctx, env)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		text := render(tables)
		fmt.Print(text)
		if file != "" {
			if err := report.Rewrite(file, s.name, text); err != nil {
				return err
			}
		}
	}
	return nil
}
