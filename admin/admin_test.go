package admin

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(h http.Handler, method, path string) (*http.Response, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	res := w.Result()
	b, _ := io.ReadAll(res.Body)
	return res, string(b)
}

func TestPaths(t *testing.T) {
	a := New(Config{Version: "1.2.3", Site: "demo", Peer: "12D3"})
	tests := []struct {
		method, path string
		status       int
		contentType  string
		part         string
	}{
		{"GET", "/_parley/", 200, "text/html; charset=utf-8", "dashboard.js"},
		{"HEAD", "/_parley/", 200, "text/html; charset=utf-8", ""},
		{"GET", "/_parley/dashboard.js", 200, "text/javascript; charset=utf-8", "status.json"},
		{"GET", "/_parley/dashboard.css", 200, "text/css; charset=utf-8", "prefers-color-scheme: dark"},
		{"GET", "/_parley/status.json", 200, "application/json", `"version":"1.2.3"`},
		{"GET", "/_parley/metrics", 200, "", `parley_info{version="1.2.3"} 1`},
		{"GET", "/_parley/none", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/_parley/assets/", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/_parley/status.json", 404, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			res, body := get(a, tt.method, tt.path)
			if res.StatusCode != tt.status || !strings.Contains(body, tt.part) {
				t.Errorf("%d %.80q", res.StatusCode, body)
			}
			if got := res.Header.Get("Content-Type"); tt.contentType != "" && got != tt.contentType {
				t.Errorf("type %q", got)
			}
			if p := res.Header.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") {
				t.Errorf("policy %q", p)
			}
		})
	}
}

func TestHealthAndReady(t *testing.T) {
	ready := false
	a := New(Config{Ready: func() bool { return ready }})
	health, isReady := http.HandlerFunc(a.Health), http.HandlerFunc(a.Ready)
	if res, _ := get(health, "GET", "/health"); res.StatusCode != 200 {
		t.Errorf("health: %d", res.StatusCode)
	}
	if res, body := get(isReady, "GET", "/ready"); res.StatusCode != 503 || body != "service unavailable\n" {
		t.Errorf("not ready: %d %q", res.StatusCode, body)
	}
	ready = true
	if res, _ := get(isReady, "HEAD", "/ready"); res.StatusCode != 200 {
		t.Errorf("ready: %d", res.StatusCode)
	}
	if res, _ := get(isReady, "POST", "/ready"); res.StatusCode != 405 {
		t.Errorf("POST: %d", res.StatusCode)
	}
}

func panelOf(t *testing.T, a *Admin, id string) PanelState {
	t.Helper()
	_, body := get(a, "GET", "/_parley/status.json")
	var s Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Panels {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("no panel %s in %s", id, body)
	return PanelState{}
}

func TestPanels(t *testing.T) {
	a := New(Config{})
	a.Add(SessionsPanel(func() []Session {
		return []Session{{ID: "calm"}, {ID: "busy", Connected: true, Queued: 5, Since: time.UnixMilli(1000)}}
	}))
	a.Add(PeersPanel(func() []Peer { return []Peer{{ID: "b"}, {ID: "a", Path: "relay", RTT: 5 * time.Millisecond}} }))
	a.Add(TopicsPanel(func() []Topic { return nil }))
	a.Add(ConversationsPanel(func() []Conversation {
		return []Conversation{{From: "x", Queued: 1}, {From: "y", Queued: 2}}
	}))
	a.Add(LimitsPanel(func() []Limit {
		return []Limit{{Name: "calm", Current: 1, Max: 4}, {Name: "full", Unit: Bytes, Current: 3 << 20, Max: 4 << 20}, {Name: "unknown", Current: math.NaN(), Max: 4}}
	}))
	a.Add(DropsPanel(func() []Drop { return []Drop{{"frame", "too long", 0}, {"publication", "page too slow", 3}} }))
	a.Add(AddressesPanel(func() []string { return []string{"127.0.0.1:1"} }, func() []string { return []string{"/ip4/1.2.3.4/tcp/1"} },
		func() []Fact { return []Fact{{Name: "router", Value: "none"}} }))
	tests := []struct {
		id   string
		rows int
		cell any // the first row's first cell
	}{
		{"sessions", 2, "busy"},
		{"peers", 2, "a"},
		{"topics", 0, nil},
		{"conversations", 2, "y"},
		{"limits", 3, "full"},
		{"drops", 1, "publication"},
		{"addresses", 2, "pages"},
	}
	for _, tt := range tests {
		p := panelOf(t, a, tt.id)
		if p.Table == nil || len(p.Table.Rows) != tt.rows {
			t.Errorf("%s: %+v", tt.id, p.Table)
			continue
		}
		for _, row := range p.Table.Rows {
			if len(row) != len(p.Table.Columns) {
				t.Errorf("%s: %d cells under %d heads", tt.id, len(row), len(p.Table.Columns))
			}
		}
		if tt.rows > 0 && p.Table.Rows[0][0] != tt.cell {
			t.Errorf("%s: first is %v", tt.id, p.Table.Rows[0])
		}
	}
	if row := panelOf(t, a, "limits").Table.Rows[0]; row[1] != 0.75 || row[2] != "3 MiB" || row[3] != "4 MiB" {
		t.Errorf("limit row %v", row)
	}
	if f := panelOf(t, a, "addresses").Facts; len(f) != 1 || f[0].Value != "none" {
		t.Errorf("addresses: %+v", f)
	}
	if f := panelOf(t, a, "process").Facts; len(f) != 3 || f[0].Unit != Seconds {
		t.Errorf("process facts %v", f)
	}
}

func TestAddReplacesTheSame(t *testing.T) {
	a := New(Config{})
	for _, text := range []string{"old", "new"} {
		a.Add(Panel{ID: "x", Show: func() Section { return Section{Facts: []Fact{{Name: "f", Value: text}}} }})
	}
	if n := len(a.Status().Panels); n != 2 {
		t.Errorf("%d panels", n)
	}
	if got := panelOf(t, a, "x").Facts[0].Value; got != "new" {
		t.Errorf("got %v", got)
	}
}

func TestOneBrokenPanelIsOneBrokenPanel(t *testing.T) {
	a := New(Config{})
	a.Add(Panel{ID: "broken", Show: func() Section { panic("secret detail") }})
	a.Add(Panel{ID: "fine", Show: func() Section { return Section{Facts: []Fact{{Name: "f", Value: 1}}} }})
	if p := panelOf(t, a, "broken"); p.Error == "" || strings.Contains(p.Error, "secret") {
		t.Errorf("got %q", p.Error)
	}
	if p := panelOf(t, a, "fine"); len(p.Facts) != 1 {
		t.Errorf("got %+v", p)
	}
}

// TestG_S10_NoHTMLFromTheNetwork: status.json keeps names as data without what
// could mislead, and the page has no way to read them as HTML.
func TestG_S10_NoHTMLFromTheNetwork(t *testing.T) {
	a := New(Config{})
	hostile := []string{
		"<img src=x onerror=alert(1)>", "\x1b[2J\x07", "a\u202eb", "\xff\xfe", strings.Repeat("ä", 10_000), "line\nbreak", "</script><script>",
	}
	a.Add(TopicsPanel(func() []Topic {
		var list []Topic
		for _, h := range hostile {
			list = append(list, Topic{Name: h})
		}
		return list
	}))
	_, body := get(a, "GET", "/_parley/status.json")
	if strings.ContainsAny(body, "<>") { // encoding/json escapes them too
		t.Error("HTML as it came")
	}
	for _, row := range panelOf(t, a, "topics").Table.Rows {
		name, _ := row[0].(string)
		if strings.ContainsAny(name, "\x00\x07\x1b\n\u202e") || utf8.RuneCountInString(name) > maxText+1 {
			t.Errorf("name %.60q is not clean", name)
		}
	}
	script, err := assets.ReadFile("assets/dashboard.js")
	if err != nil {
		t.Fatal(err)
	}
	page, err := assets.ReadFile("assets/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, danger := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser", "createContextualFragment", "setHTML"} {
		if strings.Contains(string(script), danger) {
			t.Errorf("the page uses %s", danger)
		}
	}
	for _, inline := range []string{"<script>", "<style", " style=", " onclick", " onload", "http://", "https://"} {
		if strings.Contains(strings.ReplaceAll(string(page), "xmlns='http://www.w3.org/2000/svg'", ""), inline) {
			t.Errorf("the page has %s in it", inline)
		}
	}
}

func TestOnlyTheFirstRowsAreTold(t *testing.T) {
	a := New(Config{})
	a.Add(PeersPanel(func() []Peer { return make([]Peer, MaxRows+5) }))
	if p := panelOf(t, a, "peers"); len(p.Table.Rows) != MaxRows || p.Table.More != 5 {
		t.Errorf("%d rows and %d more", len(p.Table.Rows), p.Table.More)
	}
}

func TestValuesBecomeJSON(t *testing.T) {
	tests := []struct {
		name string
		in   any
		want any
	}{
		{"duration", 1500 * time.Millisecond, 1.5},
		{"time", time.UnixMilli(7), int64(7)},
		{"no time", time.Time{}, nil},
		{"no number", math.NaN(), nil},
		{"endless", math.Inf(1), nil},
		{"number", 7, 7},
		{"other", errors.New("x\ny"), "x\uFFFDy"},
	}
	for _, tt := range tests {
		if got := plain(tt.in); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	a := New(Config{Registry: prometheus.NewRegistry()})
	err := errors.Join(
		a.Gauges("parley_sessions", "Pages.", []string{"socket"}, func() []Sample { return []Sample{{[]string{"connected"}, 3}} }),
		a.Limits(func() []Limit {
			return []Limit{{Name: "limits.outbox", Current: 10, Max: 16, Refused: 2}, {Name: "unknown", Current: math.NaN(), Max: 1}}
		}),
		a.Drops(func() []Drop { return []Drop{{"publication", "page too slow", 4}} }),
	)
	if err != nil {
		t.Fatal(err)
	}
	_, body := get(a, "GET", "/_parley/metrics")
	for _, line := range []string{
		`parley_sessions{socket="connected"} 3`, `parley_limit_used{limit="limits.outbox"} 10`, `parley_limit_max{limit="limits.outbox"} 16`,
		`parley_limit_refused_total{limit="limits.outbox"} 2`, `parley_dropped_total{reason="page too slow",what="publication"} 4`, "go_goroutines",
	} {
		if !strings.Contains(body, line+"\n") && !strings.Contains(body, line+" ") {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(body, `parley_limit_used{limit="unknown"}`) {
		t.Error("a use that isn't known is told")
	}
	if err := a.Gauges("parley_sessions", "Again.", nil, nil); err == nil {
		t.Error("one name, two metrics")
	}
}

// TestWrongSampleIsAFault: a sample with other labels fails its own metric.
func TestWrongSampleIsAFault(t *testing.T) {
	a := New(Config{})
	if err := a.Gauges("parley_wrong", "x", []string{"a"}, func() []Sample { return []Sample{{nil, 1}} }); err != nil {
		t.Fatal(err)
	}
	if _, body := get(a, "GET", "/_parley/metrics"); !strings.Contains(body, "go_goroutines") {
		t.Error("one wrong metric hides the others")
	}
}

func TestTwoInstancesShareNothing(t *testing.T) {
	one, two := New(Config{Version: "one"}), New(Config{Version: "two"})
	if _, body := get(two, "GET", "/_parley/metrics"); strings.Contains(body, `version="one"`) {
		t.Error("a registry is shared")
	}
	if one.Status().Version != "one" {
		t.Error("mixed up")
	}
}
