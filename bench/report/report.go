// Package report writes what the benchmarks print into docs/benchmarks.md, where
// each has a section of its own:
//
//	<!-- name -->
//	what was measured
//	<!-- /name -->
package report

import (
	"fmt"
	"os"
	"strings"
)

// Rewrite replaces what stands between the marks of section name in the file at
// path by text, which ends with a line break. It is an error where the marks are
// missing; the file is left alone then.
func Rewrite(path, name, text string) error {
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
