package star_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/socketio"
)

// metricKinds are the metrics of star.md §9.3: name, kind, labels. All are there
// once something was counted; those without labels from the start.
var metricKinds = []struct{ name, kind, labels string }{
	// The reference's.
	{"rendezvous_peers", "gauge", ""},
	{"rendezvous_joins_total", "counter", ""}, {"rendezvous_joins_total_success", "counter", ""}, {"rendezvous_joins_total_failure", "counter", ""},
	{"rendezvous_dials_total", "counter", ""}, {"rendezvous_dials_total_success", "counter", ""}, {"rendezvous_dials_total_failure", "counter", ""},
	{"http_request_duration_milliseconds", "summary", "cardinality method path quantile status"},
	{"http_request_buckets_milliseconds", "histogram", "cardinality le method path status"},
	{"process_cpu_seconds_total", "counter", ""}, {"process_resident_memory_bytes", "gauge", ""}, {"process_open_fds", "gauge", ""},
	{"process_start_time_seconds", "gauge", ""},
	// Ours.
	{"go_goroutines", "gauge", ""},
	{"parley_star_sessions", "gauge", "transport"}, {"parley_star_streams", "gauge", ""}, {"parley_star_queue_bytes", "gauge", ""},
	{"parley_star_paused_senders", "gauge", ""},
	{"parley_star_stream_bytes_total", "counter", ""}, {"parley_star_stream_resets_total", "counter", "reason"},
	{"parley_star_announcements_total", "counter", "kind"}, {"parley_star_limit_hits_total", "counter", "limit"},
	{"parley_star_refused_total", "counter", "event reason"}, {"parley_star_dropped_total", "counter", "what"},
	{"parley_star_verify_seconds", "histogram", "le type"}, {"parley_star_dial_seconds", "histogram", "le"},
}

// labelsOf gives the labels that the samples of a metric have.
func labelsOf(text, name string) string {
	var labels []string
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:_bucket|_sum|_count)?\{(.*)\} `).FindAllStringSubmatch(text, -1) {
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[1], -1) {
			if !slices.Contains(labels, l[1]) {
				labels = append(labels, l[1])
			}
		}
	}
	slices.Sort(labels)
	return strings.Join(labels, " ")
}

// §9.3: every metric of the reference and of ours is there, of its kind and with its
// labels, and none holds an address, an id or an IP.
func TestMetricNames(t *testing.T) {
	bubble(t, star.Options{Drain: -1, Refresh: 0}, func(t *testing.T, w *world) {
		for _, m := range metricKinds {
			if m.labels == "" && !strings.Contains(w.star.Metrics(), "\n# TYPE "+m.name+" "+m.kind+"\n") {
				t.Errorf("%s is not there from the start", m.name)
			}
		}
		text := busy(t, w)
		for _, m := range metricKinds {
			if !strings.Contains(text, "\n# TYPE "+m.name+" "+m.kind+"\n") {
				t.Errorf("no %s %s", m.kind, m.name)
			}
			if got := labelsOf(text, m.name); got != m.labels {
				t.Errorf("%s has the labels %q, want %q", m.name, got, m.labels)
			}
		}
		for _, who := range w.file.Identities {
			if strings.Contains(text, who.PeerID) || strings.Contains(text, "star.test") {
				t.Error("a metric names somebody")
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE ((?:rendezvous|parley)_\w+) `).FindAllStringSubmatch(text, -1) {
			if !slices.ContainsFunc(metricKinds, func(k struct{ name, kind, labels string }) bool { return k.name == m[1] }) {
				t.Errorf("%s is in no list", m[1])
			}
		}
	})
}

// busy does a little of everything and gives the metrics.
func busy(t *testing.T, w *world) string {
	a, b := w.file.Identities[0], w.file.OfType(t, "Ed25519")
	p, q := w.connect(socketio.DialOptions{}), w.connect(extended)
	p.prove(strict(a.PeerID), a)
	q.prove(strict(b.PeerID), b)
	p.call("ss-join", "nope", "")
	p.dial(strict(a.PeerID), strict(b.PeerID), "d")
	p.chunk("d.dialer", []byte("x"))
	p.chunk("none.dialer", []byte("x"))
	q.received("d.dialer", 1)
	q.stop()
	p.wait(`["socket.io-pull-stream.error.d.listener"`)
	get(t, w, "/")
	synctest.Wait()
	return w.star.Metrics()
}

// docs/limits.md names every metric and every limit that is counted, by its name.
func TestLimitsAreInTheDocs(t *testing.T) {
	raw, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(raw), "\n## Star\n")
	text, _, ok := strings.Cut(text, "\n## ")
	if !ok {
		t.Fatal("no section on stars")
	}
	limits, metrics, _ := strings.Cut(text, "| metric of a star |")
	srv, err := star.NewHandler(open)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`parley_star_limit_hits_total\{limit="([^"]+)"\}`).FindAllStringSubmatch(srv.Metrics(), -1) {
		counted := false
		for line := range strings.Lines(limits) {
			cells := strings.Split(line, "|")
			counted = counted || len(cells) == 6 && strings.Contains(cells[4], "`"+m[1]+"`")
		}
		if !counted {
			t.Errorf("no line of limits is counted as %s", m[1])
		}
	}
	for _, m := range metricKinds {
		name, _, _ := strings.Cut(strings.Replace(m.name, "_success", "_total", 1), "_total_")
		if strings.HasPrefix(m.name, "process_") || strings.HasPrefix(m.name, "go_") {
			continue
		}
		for _, of := range []string{"joins", "dials"} {
			if strings.HasPrefix(name, "rendezvous_"+of) {
				name = "rendezvous_joins_total"
			}
		}
		if !strings.Contains(metrics, "`"+name+"`") {
			t.Errorf("no line about %s", name)
		}
	}
}
