package parley

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/admin"
)

// builtNode makes a node that reaches nobody and is never run.
func builtNode(t *testing.T, options ...func(*Config)) *Node {
	t.Helper()
	cfg := loopbackConfig(t)
	for _, o := range options {
		o(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func ask(n *Node, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Host = "localhost:" + strconv.Itoa(n.port)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	n.server.Handler.ServeHTTP(w, r)
	return w
}

func TestStatusOfANode(t *testing.T) {
	n := builtNode(t)
	token, err := n.data.Token()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]int{ // without and with the token
		"/health": {200, 200}, "/ready": {503, 503},
		"/_parley/": {401, 200}, "/_parley/status.json": {401, 200}, "/_parley/metrics": {401, 200}, "/_parley/none": {401, 404},
		"/": {401, 303}, "/parley.js": {401, 200}, "/parley.d.ts": {401, 200},
	} {
		if got := [2]int{ask(n, path, "").Code, ask(n, path, token).Code}; got != want {
			t.Errorf("%s answers %v, want %v", path, got, want)
		}
	}
	var status admin.Status
	if err := json.Unmarshal(ask(n, "/_parley/status.json", token).Body.Bytes(), &status); err != nil {
		t.Fatal(err)
	}
	var panels []string
	for _, p := range status.Panels {
		panels = append(panels, p.ID)
		if p.Error != "" {
			t.Errorf("panel %s: %s", p.ID, p.Error)
		}
	}
	const want = "process traffic sessions sites peers conversations topics limits drops channels network stars addresses"
	if got := strings.Join(panels, " "); got != want || status.Peer != n.ID().String() || status.Ready {
		t.Errorf("panels %s of %+v", got, status)
	}
	metrics := ask(n, "/_parley/metrics", token).Body.String()
	for _, name := range []string{"parley_info", `parley_pages{what="sessions"} 0`, `parley_limit_max{limit="limits.outbox"}`, `parley_messages_total{what="sent"} 0`,
		`parley_channels{what="open"} 0`, `parley_channel_bytes_total{direction="in",kind="app"} 0`, `parley_limit_max{limit="channel.channels"} 1024`} {
		if !strings.Contains(metrics, name) {
			t.Errorf("no %s in the metrics", name)
		}
	}
}

// TestMetricsAreInTheManual: docs/limits.md lists every metric of ours.
func TestMetricsAreInTheManual(t *testing.T) {
	n := builtNode(t)
	token, err := n.data.Token()
	if err != nil {
		t.Fatal(err)
	}
	manual := readDoc(t, "docs/limits.md")
	for line := range strings.SplitSeq(ask(n, "/_parley/metrics", token).Body.String(), "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE parley_"); ok {
			name = "parley_" + strings.Fields(name)[0]
			if !strings.Contains(manual, "`"+name+"`") {
				t.Errorf("docs/limits.md lacks %s", name)
			}
		}
	}
	for _, l := range n.limits() {
		if !strings.Contains(manual, l.Name) && l.Name != "pageKeys" && l.Name != "topics" {
			t.Errorf("docs/limits.md lacks the limit %s", l.Name)
		}
	}
}

// TestAbuse3_NamesAreComparedWhole: what only looks like the node's own name is
// refused, whatever is asked for.
func TestAbuse3_NamesAreComparedWhole(t *testing.T) {
	n := builtNode(t)
	token, err := n.data.Token()
	if err != nil {
		t.Fatal(err)
	}
	port := ":" + strconv.Itoa(n.port)
	for host, want := range map[string]int{
		"localhost" + port: 200, "LOCALHOST" + port: 200, "127.0.0.1" + port: 200, "[::1]" + port: 200,
		"127.evil.com" + port: 421, "localhost.evil.com" + port: 421, "[::ffff:127.0.0.1]" + port: 421, "localhost." + port: 421,
		"localhost:1": 421, "localhost": 421, "evil.example": 421, "": 421,
	} {
		for _, path := range []string{"/_parley/status.json", "/parley.js", "/ws"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			n.server.Handler.ServeHTTP(w, r)
			if path == "/ws" && want == 200 {
				if w.Code != http.StatusUpgradeRequired {
					t.Errorf("%s from %q: %d", path, host, w.Code)
				}
			} else if w.Code != want {
				t.Errorf("%s from %q: %d, want %d", path, host, w.Code, want)
			}
		}
	}
}
