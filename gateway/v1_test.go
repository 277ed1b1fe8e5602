package gateway_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	"github.com/parley-p2p/parley/network"
)

func TestV1_Frames(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.Reserved = []network.Protocol{"/p2p-webapp/1.0.0", "/parley/x"}
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b))
	gatewaytest.RunV1(t, s.URL, s.Header)
	t.Run("without files", func(t *testing.T) { gatewaytest.V1WithoutFiles().Run(t, s.URL, s.Header) })
}

func TestV1_FramesOfFailedSends(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.SendTimeout = 50 * time.Millisecond
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b))
	gatewaytest.V1Unreachable().Run(t, s.URL, s.Header)
}

func TestV1_FramesOverTheLimits(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.Outbox = 1024
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b), gatewaytest.WithConfig(gateway.Config{MaxMessage: 1024}))
	gatewaytest.V1Limits().Run(t, s.URL, s.Header)
}

// TestV1_EveryErrorReply counts the error replies that docs/spec/gateway.md names
// in sections 2 and 6: each is an expected frame of a script, or stands here with
// the test that has it.
func TestV1_EveryErrorReply(t *testing.T) {
	elsewhere := map[string]string{
		`500 "send timed out"`:         "TestV1_SendThatTimesOut, of the whole node",
		`500 "peer closed"`:            "TestG_D12_StopAnswersWhatIsPending",
		`400 "invalid base64 content"`: "files are not in this version", `500 "failed to remove child: file does not exist"`: "files are not in this version",
		`500 "invalid path: must include file/directory name"`: "files are not in this version",
	}
	scripts := append(gatewaytest.V1Scripts(), gatewaytest.V1Unreachable(), gatewaytest.V1Limits())
	var frames strings.Builder
	for _, s := range scripts {
		frames.WriteString(s.Steps)
	}
	replies := errorReplies(t)
	if len(replies) < 20 {
		t.Errorf("the specification names %d error replies only: %q", len(replies), replies)
	}
	for _, reply := range replies {
		if elsewhere[reply] != "" {
			delete(elsewhere, reply)
			continue
		}
		code, text, _ := strings.Cut(reply, " ")
		// upper case words stand for what differs, and so does …
		open := regexp.MustCompile(`\b(M|P|N|ID|T|REASON)\b`).ReplaceAllString(regexp.QuoteMeta(strings.Trim(text, `"`)), `[^"]+`)
		open = strings.ReplaceAll(open, "…", `[^"]+`)
		if !regexp.MustCompile(`"code":` + code + `,"message":"` + open + `"}`).MatchString(frames.String()) {
			t.Errorf("no script expects %s", reply)
		}
	}
	for reply := range elsewhere {
		t.Errorf("the specification does not name %s", reply)
	}
}

// errorReplies gives the error replies of the specification, each once.
func errorReplies(t *testing.T) (list []string) {
	t.Helper()
	spec, err := os.ReadFile("../docs/spec/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	section := ""
	for line := range strings.SplitSeq(string(spec), "\n") {
		if strings.HasPrefix(line, "## ") || strings.HasPrefix(line, "### ") {
			section = strings.Fields(line)[1]
		}
		if !strings.HasPrefix(section, "2.") && !strings.HasPrefix(section, "6.") {
			continue
		}
		found := regexp.MustCompile(`\b(?:400|404|500) "[^"]*"`).FindAllString(line, -1)
		if m := regexp.MustCompile(`^\| ("[^"]+") \|`).FindStringSubmatch(line); section == "2.6" && m != nil {
			found = append(found, "500 "+m[1])
		}
		if section == "2.7" { // two texts behind one code
			found = append(found, `500 "failed to unmarshal peer key: …"`)
		}
		for _, f := range found {
			if !seen[f] {
				seen[f] = true
				list = append(list, f)
			}
		}
	}
	return list
}
