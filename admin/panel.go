package admin

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Panel is one part of the dashboard and of status.json.
type Panel struct {
	ID    string // stays the same between versions: "topics"
	Title string // for people: "Topics"
	Help  string // one sentence; may be empty
	// Show gives what is to be seen now. It is called for every look, by any
	// goroutine, and must not wait for the network.
	Show func() Section
}

// Section is what a panel shows: single facts, a table, or both.
type Section struct {
	Facts []Fact `json:"facts,omitempty"`
	Table *Table `json:"table,omitempty"`
}

// Fact is one value with a name.
type Fact struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
	Unit  Unit   `json:"unit,omitempty"`
	Trend bool   `json:"trend,omitempty"` // draw its course
}

// Table has a row for each thing of a kind. Only the first MaxRows are told.
type Table struct {
	Columns []Column `json:"columns"`
	Rows    [][]any  `json:"rows"`
	More    int      `json:"more,omitempty"`  // rows that were left out
	Empty   string   `json:"empty,omitempty"` // what to say when there is none
}

// Column is the head of a column.
type Column struct {
	Name string `json:"name"`
	Unit Unit   `json:"unit,omitempty"`
}

// MaxRows is how many rows of a table are told.
const MaxRows = 200

// Unit says how a value is to be read and shown.
type Unit string

// The units. A value without one is text, or a number as it is.
const (
	Count   Unit = "count"   // a number of things
	Total   Unit = "total"   // a count that only grows; the page shows its rate too
	Bytes   Unit = "bytes"   // what is there now
	Traffic Unit = "traffic" // bytes that only grow; the page shows its rate too
	Seconds Unit = "seconds" // from a time.Duration
	Share   Unit = "share"   // 0 to 1
	Time    Unit = "time"    // from a time.Time; in JSON milliseconds since 1970
	Name    Unit = "name"    // an id or address, in a fixed-width face; cut in the middle where it is long
	Whole   Unit = "whole"   // the same, never cut
	State   Unit = "state"   // a word with a colour: direct, relay, connected …
)

// plain makes a section that is only JSON: texts without control characters,
// numbers that exist.
func (s Section) plain() Section {
	out := Section{}
	for _, f := range s.Facts {
		f.Name, f.Value = clean(f.Name), plain(f.Value)
		out.Facts = append(out.Facts, f)
	}
	if s.Table == nil {
		return out
	}
	t := Table{Columns: s.Table.Columns, Empty: s.Table.Empty, More: s.Table.More, Rows: [][]any{}}
	rows := s.Table.Rows
	if len(rows) > MaxRows {
		t.More += len(rows) - MaxRows
		rows = rows[:MaxRows]
	}
	for _, row := range rows {
		cells := make([]any, len(row))
		for i, v := range row {
			cells[i] = plain(v)
		}
		t.Rows = append(t.Rows, cells)
	}
	out.Table = &t
	return out
}

func plain(v any) any {
	switch v := v.(type) {
	case nil, bool, int, int32, int64, uint32, uint64, uint:
		return v
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return v
	case time.Duration:
		return v.Seconds()
	case time.Time:
		if v.IsZero() {
			return nil
		}
		return v.UnixMilli()
	case string:
		return clean(v)
	}
	return clean(fmt.Sprint(v))
}

// maxText is how much of a text is shown, in bytes.
const maxText = 256

// clean makes a text of the network harmless to look at: valid UTF-8, no
// control characters, nothing that turns the direction of what follows, not
// endless.
func clean(s string) string {
	cut := len(s) > maxText
	if cut {
		end := maxText
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if cut {
		s += "…"
	}
	return s
}
