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
// tests that are named after them, and the folders of those tests.
var requirements = map[string][]string{"docs/spec/star.md": {"star", "tests/star"}}

var (
	requirementRow = regexp.MustCompile(`^\| ([A-Z])-(\d+) \|[^|]*\|$`)
	requirementGo  = regexp.MustCompile(`(?m)^func (Test([A-Z])_(\d+)_\w+)\(`)
	listedTest     = regexp.MustCompile("[a-z/]+ `[^`]+`")
	requirementTS  = regexp.MustCompile("(?m)^\\s*(?:describe|it|test)[^'\"`\\n]*\\(['\"`](([A-Z])-(\\d+) [^'\"`\\n]*)['\"`]")
)

const (
	shownTitle = "Where each is shown" // ends the heading above a table
	noneNamed  = "none named so"
)

// TestRequirementTables: each numbered requirement names tests that there are. The
// table is written with -update; a test that it does not name yet is no fault, one
// without a row is.
func TestRequirementTables(t *testing.T) {
	files := repository(t)
	for spec, folders := range requirements {
		tests := requirementTests(files, folders)
		var out []string
		shown := false
		for line := range strings.SplitSeq(strings.TrimSuffix(string(files[spec]), "\n"), "\n") {
			if strings.HasPrefix(line, "#") {
				shown = strings.HasSuffix(line, shownTitle)
			}
			m := requirementRow.FindStringSubmatch(line)
			if !shown || m == nil {
				out = append(out, line)
				continue
			}
			no := m[1] + "-" + m[2]
			for _, name := range listedTest.FindAllString(line, -1) {
				if !slices.Contains(tests[no], name) && !*update {
					t.Errorf("%s: %s names %s, which isn't there: make gen", spec, no, name)
				}
			}
			if len(tests[no]) == 0 {
				tests[no] = []string{noneNamed}
			}
			out = append(out, "| "+no+" |"+cell(strings.Join(tests[no], ", "))+"|")
			delete(tests, no)
		}
		for no, names := range tests {
			t.Errorf("%s: %s has tests, %s, but no row", spec, no, names)
		}
		if want := []byte(strings.Join(out, "\n") + "\n"); *update && !bytes.Equal(want, files[spec]) {
			if err := os.WriteFile(filepath.Join("..", "..", filepath.FromSlash(spec)), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// requirementTests gives the tests of each number.
func requirementTests(files map[string][]byte, folders []string) map[string][]string {
	found := map[string][]string{}
	for name, body := range files {
		if !slices.ContainsFunc(folders, func(f string) bool { return in(name, f) }) {
			continue
		}
		var matches [][][]byte
		switch {
		case strings.HasSuffix(name, "_test.go"):
			matches = requirementGo.FindAllSubmatch(body, -1)
		case strings.HasSuffix(name, ".test.ts"):
			matches = requirementTS.FindAllSubmatch(body, -1)
		}
		for _, m := range matches {
			no := string(m[2]) + "-" + string(m[3])
			found[no] = append(found[no], path.Dir(name)+" `"+strings.ReplaceAll(string(m[1]), "|", "/")+"`")
		}
	}
	for no, list := range found {
		slices.Sort(list)
		found[no] = slices.Compact(list)
	}
	return found
}
