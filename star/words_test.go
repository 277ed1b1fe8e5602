package star

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/star/proxy"
)

// §6.6: the words of the spec are those of the code, all of them.
func TestErrorStringsOfTheSpec(t *testing.T) {
	raw, err := os.ReadFile("../docs/spec/star.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(raw), "\n### 6.6 ")
	text, _, ok := strings.Cut(text, "\n## ")
	if !ok {
		t.Fatal("no section 6.6")
	}
	text, _, _ = strings.Cut(text, "\n\nA parley client")
	said := map[string]bool{}
	for _, m := range regexp.MustCompile("`([A-Z][^`]+)`").FindAllStringSubmatch(text, -1) {
		said[m[1]] = true
	}
	ours := map[string]bool{}
	for word := range known {
		ours[word] = true
	}
	for _, r := range []proxy.Reason{proxy.PeerDisconnected, proxy.StreamStalled, proxy.ByteLimit, proxy.TimeLimit, proxy.StreamFailed, proxy.ServerLost, proxy.ShuttingDown} {
		ours[r.Text] = true
	}
	for word := range ours {
		if !said[word] {
			t.Errorf("the spec does not know %q", word)
		}
	}
	for word := range said {
		if !ours[word] {
			t.Errorf("the code does not know %q", word)
		}
	}
}
