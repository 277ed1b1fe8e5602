package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
)

// row is one line of the table.
type row struct {
	what      string
	reference string
	parley    string
	ratio     string // how many times better parley is
	target    string
}

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
	}
}

// bench is what all parts share.
type bench struct {
	root     string // of the repository
	programs string // a folder with starserver
	runs     int
	profile  string
}

func main() {
	report := flag.String("report", "../docs/benchmarks.md", "the page whose section \"star\" is rewritten; empty for none")
	runs := flag.Int("runs", 5, "how many runs a median is of")
	profile := flag.String("profile", "", "write CPU profiles of parley's server into this folder")
	only := flag.String("only", "", "measure \"parley\" or \"reference\" alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *report, *only, &bench{runs: *runs, profile: *profile}, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, report, only string, b *bench, names []string) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(b.programs)
	kinds = slices.DeleteFunc(kinds, func(k kind) bool { return only != "" && string(k) != only })
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
	if report == "" || len(names) > 0 || only != "" {
		return nil
	}
	return rewrite(report, "star", "\n"+render(rows)+"\n")
}

func render(rows []row) string {
	var b strings.Builder
	b.WriteString("| measure | npm server | parley | better | must reach |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.what, r.reference, r.parley, r.ratio, r.target)
	}
	return b.String()
}

// rewrite replaces what stands between the marks of a section in the report.
func rewrite(path, name, text string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	open, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, ok := strings.Cut(string(raw), open)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for section %q", path, name)
	}
	return os.WriteFile(path, []byte(before+open+text+end+after), 0o644)
}

// figures are what was measured of each server.
type figures map[kind]float64

// line makes a row. more says that a greater figure is the better one.
func line(what, target string, f figures, show func(float64) string, more bool) row {
	text := func(k kind) string {
		if v, ok := f[k]; ok {
			return show(v)
		}
		return "–"
	}
	r := row{what: what, target: target, reference: text(reference), parley: text(parley), ratio: "–"}
	a, ok1 := f[reference]
	p, ok2 := f[parley]
	if more {
		a, p = p, a
	}
	if ok1 && ok2 && p > 0 && a > 0 {
		r.ratio = fmt.Sprintf("%.1f ×", a/p)
	}
	return r
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func micros(v float64) string  { return trim(v*1e6) + " µs" }
func millis(v float64) string  { return trim(v*1e3) + " ms" }
func rate(v float64) string    { return thousands(v) + " /s" }
func mbs(v float64) string     { return trim(v/1e6) + " MB/s" }
func mb(v float64) string      { return trim(v/1e6) + " MB" }
func percent(v float64) string { return trim(v*100) + " %" }
func bytes(v float64) string   { return thousands(v) + " B" }

func trim(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func thousands(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
