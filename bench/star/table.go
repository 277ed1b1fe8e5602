package main

import (
	"fmt"
	"slices"
	"strings"
)

// figures are what was measured of each server.
type figures map[kind]float64

// unit is how figures of a kind are written.
type unit func(float64) string

// goal is what a row must reach.
type goal struct {
	limit float64
	more  bool    // limit is the least, not the most
	times float64 // and so many times better than the original server; 0: any
}

// most and least are goals; times, where there, is how much better than the original
// server parley must be besides.
func most(limit float64, times ...float64) goal {
	g := goal{limit: limit}
	if len(times) > 0 {
		g.times = times[0]
	}
	return g
}

func least(limit float64, times ...float64) goal {
	g := most(limit, times...)
	g.more = true
	return g
}

// row is one line of the table, as it is written.
type row struct{ what, reference, parley, ratio, target, verdict string }

// line makes a row.
func line(what string, g goal, f figures, show unit) row {
	text := func(k kind) string {
		if v, ok := f[k]; ok {
			return show(v)
		}
		return "–"
	}
	r := row{what: what, reference: text(reference), parley: text(parley), target: g.text(show)}
	ratio := f.ratio(g.more)
	if r.ratio = "–"; ratio > 0 {
		r.ratio = trim(ratio) + " ×"
	}
	r.verdict = g.verdict(f, ratio)
	return r
}

// ratio is how many times better parley is; 0: not known.
func (f figures) ratio(more bool) float64 {
	a, b := f[reference], f[parley]
	if more {
		a, b = b, a
	}
	if a <= 0 || b <= 0 {
		return 0
	}
	return a / b
}

func (g goal) text(show unit) string {
	sign := "≤ "
	if g.more {
		sign = "≥ "
	}
	text := sign + show(g.limit)
	if g.times > 0 {
		text += fmt.Sprintf(", %.0f ×", g.times)
	}
	return text
}

const notMet = "**not met**"

// verdict judges parley's figure; what the original server could not be asked for
// does not count.
func (g goal) verdict(f figures, ratio float64) string {
	v, ok := f[parley]
	switch {
	case !ok:
		return "–"
	case g.more && v < g.limit, !g.more && v > g.limit, g.times > 0 && ratio > 0 && ratio < g.times:
		return notMet
	}
	return "met"
}

func render(rows []row) string {
	var b strings.Builder
	b.WriteString("| measure | npm server | parley | better | must reach | |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.what, r.reference, r.parley, r.ratio, r.target, r.verdict)
	}
	return b.String()
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
func seconds(v float64) string { return trim(v) + " s" }
func rate(v float64) string    { return thousands(v) + " /s" }
func mbs(v float64) string     { return trim(v/1e6) + " MB/s" }
func mb(v float64) string      { return trim(v/1e6) + " MB" }
func mib(v float64) string     { return trim(v/(1<<20)) + " MiB" }
func kib(v float64) string     { return trim(v/(1<<10)) + " KiB" }
func bytes(v float64) string   { return thousands(v) + " B" }
func percent(v float64) string { return trim(v*100) + " % of a core" }

// trim writes three digits, and no zeros that say nothing.
func trim(v float64) string {
	switch {
	case v >= 999.5 || v == float64(int64(v)):
		return thousands(v)
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
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
