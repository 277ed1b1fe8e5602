package house

import (
	"bytes"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	shownTest  = regexp.MustCompile("(?:, |\\| )([a-z0-9/.]+) `([^`]+)`")
	funcOfTest = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)
)

// TestChannelRequirementsAreShown: each test that the table of
// docs/spec/channels.md §19 names is there.
func TestChannelRequirementsAreShown(t *testing.T) {
	files := repository(t)
	there := make(map[string]bool) // "folder name"
	for name, body := range files {
		if strings.HasSuffix(name, "_test.go") {
			for _, m := range funcOfTest.FindAllSubmatch(body, -1) {
				there[path.Dir(name)+" "+string(m[1])] = true
			}
		}
	}
	_, table, ok := strings.Cut(string(files["docs/spec/channels.md"]), "\n## 19. ")
	if !ok {
		t.Fatal("no section 19")
	}
	rows := 0
	for line := range strings.SplitSeq(table, "\n") {
		for _, m := range shownTest.FindAllStringSubmatch(line, -1) {
			rows++
			folder, name := m[1], m[2]
			title := []byte("test('" + name + "'")
			if there[folder+" "+name] || folder == "tests/e2e" && bytes.Contains(files["tests/e2e/channels.test.ts"], title) {
				continue
			}
			t.Errorf("%s has no %s", folder, name)
		}
	}
	if rows < 100 {
		t.Errorf("read %d tests of the table", rows)
	}
}
