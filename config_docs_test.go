package parley

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestManualHasEveryKey: each setting has a row in the manual with its default,
// and one that is not used says so.
func TestManualHasEveryKey(t *testing.T) {
	rows := map[string]string{}
	for line := range strings.SplitSeq(readDoc(t, "docs/manual.md"), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			rows[strings.Trim(name, " `")] = strings.Join(cells[2:], "|")
		}
	}
	cfg := DefaultConfig()
	for _, k := range cfg.keys() {
		row, ok := rows[k.name]
		if !ok {
			t.Errorf("%s has no row", k.name)
			continue
		}
		if v := fmt.Sprint(k.value.Interface()); v != "" && v != "[]" && !strings.Contains(row, "`"+v+"`") {
			t.Errorf("%s: the default %s is not in %q", k.name, v, row)
		}
		if _, unused := notUsed[k.name]; unused != strings.Contains(row, "**not used") {
			t.Errorf("%s: that it is not used: program %v, manual %q", k.name, unused, row)
		}
		delete(rows, k.name)
	}
	for name := range notUsed {
		if err := cfg.Set(name, ""); err != nil && strings.Contains(err.Error(), "unknown key") {
			t.Errorf("notUsed names %s, which is no key", name)
		}
	}
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
