package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/parley-p2p/parley/bench/report"
)

// part is one table of the report.
type part struct {
	name string
	run  func(ctx context.Context) (string, error)
}

func parts() []part {
	return []part{
		{"muxers", measureMuxers},
		{"idle", measureIdle},
		{"isolation", measureIsolation},
		{"garbage", measureGarbage},
		{"relay", measureRelay},
		{"share", measureShare},
		{"crowd", measureCrowd},
	}
}

func main() {
	file := flag.String("report", "../docs/benchmarks.md", "the page whose section \"channels\" is rewritten; empty for none")
	profile := flag.String("cpuprofile", "", "write a CPU profile here")
	role := flag.String("role", "", "be a node of another process of this program")
	by := flag.String("by", "tls", "what secures that one's connections: tls or noise")
	relay := flag.String("relay", "", "where that one's relay is")
	flag.Parse()
	if *profile != "" {
		defer startProfile(*profile)()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *role != "" {
		if err := runRole(ctx, *role, *by, *relay); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", *role+":", err)
			os.Exit(1)
		}
		return
	}
	var out strings.Builder
	for _, p := range parts() {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), p.name) {
			continue
		}
		text, err := p.run(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", p.name, err)
			os.Exit(1)
		}
		fmt.Print(text)
		out.WriteString(text)
	}
	if *file == "" || flag.NArg() > 0 {
		return
	}
	if err := report.Rewrite(*file, "channels", out.String()+"\n"); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// table renders a Markdown table.
func table(title, note string, head []string, rows ...[]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n", title)
	if note != "" {
		fmt.Fprintf(&b, "%s\n\n", note)
	}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// verdict says whether a figure reaches its target.
func verdict(ok bool) string {
	if ok {
		return "yes"
	}
	return "**no**"
}
