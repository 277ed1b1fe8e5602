package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// table is one table of the report, in Markdown.
type table struct {
	title string
	note  string
	head  []string
	rows  [][]string
	notes []string // below it: which targets are met
}

func render(tables []table) string {
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "\n### %s\n\n", t.title)
		if t.note != "" {
			fmt.Fprintf(&b, "%s\n\n", t.note)
		}
		fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
		for _, row := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		if len(t.notes) > 0 {
			fmt.Fprintf(&b, "\n- %s\n", strings.Join(t.notes, "\n- "))
		}
	}
	return b.String() + "\n"
}

// sample is a set of durations.
type sample []time.Duration

func (s sample) at(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func micros(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d)/1e3) }
func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
func times(a, b time.Duration) string {
	return fmt.Sprintf("%.1f ×", float64(a)/float64(max(b, 1)))
}

func perSecond(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.2f M/s", n/1e6)
	case n >= 10e3:
		return fmt.Sprintf("%.1f k/s", n/1e3)
	}
	return fmt.Sprintf("%.0f /s", n)
}

func megabytes(bytesPerSecond float64) string { return fmt.Sprintf("%.0f MB/s", bytesPerSecond/1e6) }

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

func tenths(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }

// target says whether something that was asked for is reached.
func target(what string, met bool, format string, value ...any) string {
	verdict := "met"
	if !met {
		verdict = "**not met**"
	}
	return "Target " + what + ": " + verdict + ", " + fmt.Sprintf(format, value...) + "."
}
