package house

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

//go:generate go test -run TestRequirementTables -update

// requirements are the specs whose numbered requirements have a table of the
// tests that are named after them: the letters that the numbers begin with, and
// the folders of those tests ("." for all).
var requirements = map[string]struct {
	letters string
	folders []string
}{
	"docs/spec/gateway.md": {"G", []string{"."}},
	"docs/spec/star.md":    {"SABC", []string{"star", "tests/star"}},
}

// A number is S-4, or G-D1 where a letter says what it is about. A test in Go is
// TestS_4_… or TestG_D1_…; one in TypeScript has the number in its title.
var (
	requirementRow = regexp.MustCompile(`^\| ([A-Z]-[A-Z]?\d+) \|([^|]*)\|$`)
	requirementGo  = regexp.MustCompile(`(?m)^func (Test([A-Z])_([A-Z]?\d+)_\w+)\(`)
	listedTest     = regexp.MustCompile("[a-z0-9/.]+ `[^`]+`")
	titleTS        = regexp.MustCompile("(?m)^\\s*(?:describe|it|test)[^'\"`\\n]*\\(['\"`]([^'\"`\\n]*)['\"`]")
	requirementTS  = regexp.MustCompile(`\b([A-Z])-([A-Z]?\d+)\b`)
)

const (
	shownTitle = "Where each is shown" // ends the heading above a table
	shownLater = "later: "             // begins what a row says whose requirement is not built yet
)

// TestRequirementTables: each numbered requirement names tests that there are, and
// has at least one, unless its row says what it waits for. The table is written with
// -update; a test that it does not name yet is no fault, one without a row is.
func TestRequirementTables(t *testing.T) {
	files := repository(t)
	for spec, r := range requirements {
		tests := requirementTests(files, r.letters, r.folders)
		var out []string
		shown, rows := false, 0
		for line := range strings.SplitSeq(strings.TrimSuffix(string(files[spec]), "\n"), "\n") {
			if strings.HasPrefix(line, "#") {
				shown = strings.HasSuffix(line, shownTitle)
			}
			m := requirementRow.FindStringSubmatch(line)
			if !shown || m == nil {
				out = append(out, line)
				continue
			}
			no, said := m[1], strings.TrimSpace(m[2])
			rows++
			for _, name := range listedTest.FindAllString(line, -1) {
				if !slices.Contains(tests[no], name) && !*update {
					t.Errorf("%s: %s names %s, which isn't there: make gen", spec, no, name)
				}
			}
			list := strings.Join(tests[no], ", ")
			if _, later, ok := strings.Cut(said, shownLater); ok {
				list = strings.TrimPrefix(list+", "+shownLater+later, ", ")
			} else if list == "" {
				t.Errorf("%s: no test is named after %s", spec, no)
			}
			out = append(out, "| "+no+" |"+cell(list)+"|")
			delete(tests, no)
		}
		for no, names := range tests {
			t.Errorf("%s: %s has tests, %s, but no row", spec, no, names)
		}
		if stated := statedRequirements(string(files[spec]), r.letters); rows == 0 || rows < stated {
			t.Errorf("%s: %d of %d requirements have a row", spec, rows, stated)
		}
		if want := []byte(strings.Join(out, "\n") + "\n"); *update && !bytes.Equal(want, files[spec]) {
			if err := os.WriteFile(filepath.Join("..", "..", filepath.FromSlash(spec)), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// statedRequirements counts the numbers that a spec states, in whatever table.
func statedRequirements(spec, letters string) int {
	stated := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^\| ([`+letters+`]-[A-Z]?\d+) \|`).FindAllStringSubmatch(spec, -1) {
		stated[m[1]] = true
	}
	return len(stated)
}

// requirementTests gives the tests of each number.
func requirementTests(files map[string][]byte, letters string, folders []string) map[string][]string {
	found := map[string][]string{}
	add := func(name, letter, number, test string) {
		if strings.Contains(letters, letter) {
			folder := path.Dir(name)
			if folder == "." {
				folder = "root"
			}
			no := letter + "-" + number
			found[no] = append(found[no], folder+" `"+strings.ReplaceAll(test, "|", "/")+"`")
		}
	}
	for name, body := range files {
		if !slices.ContainsFunc(folders, func(f string) bool { return f == "." || in(name, f) }) {
			continue
		}
		switch {
		case strings.HasSuffix(name, "_test.go"):
			for _, m := range requirementGo.FindAllSubmatch(body, -1) {
				add(name, string(m[2]), string(m[3]), string(m[1]))
			}
		case strings.HasSuffix(name, ".test.ts"):
			for _, title := range titleTS.FindAllSubmatch(body, -1) {
				for _, m := range requirementTS.FindAllSubmatch(title[1], -1) {
					add(name, string(m[1]), string(m[2]), string(title[1]))
				}
			}
		}
	}
	for no, list := range found {
		slices.Sort(list)
		found[no] = slices.Compact(list)
	}
	return found
}
