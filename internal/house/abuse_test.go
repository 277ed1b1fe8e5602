package house

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tests into docs/abuse.md")

//go:generate go test -run TestAbuseTable -update

const abuseTable = "docs/abuse.md"

var (
	goTest = regexp.MustCompile(`(?m)^func (TestAbuse(\d+)_\w+)\(`)
	tsTest = regexp.MustCompile("(?mi)^\\s*(?:test|it|describe)\\(\\s*['\"`](abuse ?(\\d+)[^'\"`\\n]*)")
)

// TestAbuseTable: the table names every test of a row, and no other; a row
// without one says so, or what is open.
func TestAbuseTable(t *testing.T) {
	files := repository(t)
	tests := abuseTests(files)
	var out []string
	seen := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(string(files[abuseTable]), "\n"), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 7 {
			out = append(out, line)
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			out = append(out, line)
			continue
		}
		if seen++; n != seen {
			t.Errorf("row %d stands in place %d", n, seen)
		}
		cells[4] = cell(strings.Join(tests[n], ", "))
		open := strings.TrimSpace(cells[5])
		switch {
		case len(tests[n]) == 0 && open == "":
			open = noTest
		case len(tests[n]) > 0 && open == noTest:
			open = ""
		}
		cells[5] = cell(open)
		delete(tests, n)
		out = append(out, strings.Join(cells, "|"))
	}
	for n := range tests {
		t.Errorf("row %d has tests, but isn't in the table", n)
	}
	if seen < 45 {
		t.Errorf("only %d rows", seen)
	}
	want := []byte(strings.Join(out, "\n") + "\n")
	if bytes.Equal(want, files[abuseTable]) {
		return
	}
	if !*update {
		t.Errorf("%s doesn't name the tests there are: make gen", abuseTable)
		return
	}
	if err := os.WriteFile(filepath.Join("..", "..", filepath.FromSlash(abuseTable)), want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// noTest is what the table says of a row that nobody has looked at.
const noTest = "no test yet"

func cell(text string) string {
	if text == "" {
		return " "
	}
	return " " + text + " "
}

// abuseTests gives the tests of each row as the table names them.
func abuseTests(files map[string][]byte) map[int][]string {
	found := map[int][]string{}
	for name, body := range files {
		var matches [][][]byte
		switch {
		case strings.HasSuffix(name, "_test.go"):
			matches = goTest.FindAllSubmatch(body, -1)
		case strings.HasSuffix(name, ".test.ts") || strings.HasSuffix(name, ".spec.ts"):
			matches = tsTest.FindAllSubmatch(body, -1)
		}
		for _, m := range matches {
			n, err := strconv.Atoi(string(m[2]))
			if err != nil {
				continue
			}
			text := strings.ReplaceAll(string(m[1]), "|", "/")
			folder := path.Dir(name)
			if folder == "." {
				folder = "root"
			}
			found[n] = append(found[n], fmt.Sprintf("%s `%s`", folder, text))
		}
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return found
}
