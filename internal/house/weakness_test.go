package house

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Requirements of gateway.md §12 that are about the code itself.

// TestG_R1_AllRunsUnderTheRaceDetector: what CI runs is every package's tests with
// -race, and no test is left out of that.
func TestG_R1_AllRunsUnderTheRaceDetector(t *testing.T) {
	files := repository(t)
	if ci := files[".ci/run"]; !regexp.MustCompile(`(?m)^make test$`).Match(ci) {
		t.Errorf(".ci/run doesn't run make test: %s", ci)
	}
	makefile := string(files["Makefile"])
	for _, line := range []string{`^test: .*\btest-go\b`, `^\tgo test -race\b.* \./\.\.\.$`} {
		if !regexp.MustCompile(`(?m)` + line).MatchString(makefile) {
			t.Errorf("the Makefile has no line %s", line)
		}
	}
	without := regexp.MustCompile(`(?m)^//go:build .*!race`)
	for name, body := range files {
		if strings.HasSuffix(name, "_test.go") && without.Match(body) && bytes.Contains(body, []byte("\nfunc Test")) {
			t.Errorf("%s has tests that don't run with -race", name)
		}
	}
}

// TestG_R13_NothingPrints: packages log with slog, which says level and component;
// only programs write to the terminal, and only what they are asked for.
func TestG_R13_NothingPrints(t *testing.T) {
	programs := []string{"cmd", "bench", "internal", "star/internal", "star/cluster/natsservertest", "tests", "client", "web"}
	prints := regexp.MustCompile(`(?m)^[^/\n]*\b(fmt\.Print(f|ln)?\(|println?\(|os\.Std(out|err)\b)|^\s+"log"$`)
	for name, body := range repository(t) {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") ||
			slices.ContainsFunc(programs, func(f string) bool { return in(name, f) }) {
			continue
		}
		if found := prints.Find(body); found != nil {
			t.Errorf("%s prints: %q", name, found)
		}
	}
}
