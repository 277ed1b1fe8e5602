package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"

	"github.com/parley-p2p/parley/bench/report"
)

// part is some rows that are measured together.
type part struct {
	name string
	run  func(ctx context.Context, b *bench) ([]row, error)
}

func parts() []part {
	return []part{
		{"messages", measureMessages},
		{"streams", measureStreams},
		{"roundtrip", measureRoundTrip},
		{"dials", measureDials},
		{"joins", measureJoins},
		{"members", measureMembers},
		{"idle", measureIdle},
		{"memory", measureMemory},
		{"noise", measureNoise},
	}
}

// bench is what all parts share.
type bench struct {
	root     string // of the repository
	programs string // a folder with starserver
	kinds    []kind // which servers are measured
	runs     int    // of which a median is taken
	profile  string // a folder for profiles of parley's server; empty: none
}

func main() {
	file := flag.String("report", "../docs/benchmarks.md", "the page whose section \"star\" is rewritten; empty for none")
	runs := flag.Int("runs", 5, "how many runs a median is of")
	profile := flag.String("profile", "", "write CPU profiles of parley's server into this folder")
	only := flag.String("only", "", "measure \"parley\" or \"reference\" alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *file, *only, &bench{runs: *runs, profile: *profile}, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file, only string, b *bench, names []string) error {
	missing, err := b.build(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.programs)
	if missing != "" {
		fmt.Fprintln(os.Stderr, "bench:", missing)
	}
	b.kinds = slices.DeleteFunc([]kind{reference, parley}, func(k kind) bool {
		return only != "" && string(k) != only || missing != "" && k == reference
	})
	var rows []row
	for _, p := range parts() {
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		got, err := p.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Print(render(got))
		rows = append(rows, got...)
	}
	if file == "" || len(names) > 0 || only != "" {
		return nil
	}
	return report.Rewrite(file, "star", b.page(rows, missing))
}

// page is the section of the report.
func (b *bench) page(rows []row, missing string) string {
	not := 0
	for _, r := range rows {
		if strings.Contains(r.verdict, "not") {
			not++
		}
	}
	if missing != "" {
		missing = " " + strings.ToUpper(missing[:1]) + missing[1:] + "."
	}
	load, _ := os.ReadFile("/proc/loadavg")
	average, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("\nMedians of %d runs; %d cores, load of the machine at the end %s; %d of %d rows not met.%s\n\n%s\n",
		b.runs, runtime.NumCPU(), average, not, len(rows), missing, render(rows))
}
