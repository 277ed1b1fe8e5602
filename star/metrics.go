package star

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/parley-p2p/parley/star/socketio"
)

// metrics are those of star.md §9.3, of one server. No label holds an address, an
// id or an IP.
type metrics struct {
	registry *prometheus.Registry

	joins, joinsGood, joinsBad prometheus.Counter
	dials, dialsGood, dialsBad prometheus.Counter

	requests *prometheus.SummaryVec
	buckets  *prometheus.HistogramVec

	resets, announced, limits, refusals, dropped *prometheus.CounterVec
	verifies                                     *prometheus.HistogramVec
	answers                                      prometheus.Histogram

	// For the status page.
	dialCount, refusalCount atomic.Int64
}

func newMetrics(srv *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	f := factory{m.registry}
	m.joins = f.counter("rendezvous_joins_total", "All joins since the server started.")
	m.joinsGood = f.counter("rendezvous_joins_total_success", "Joins that succeeded.")
	m.joinsBad = f.counter("rendezvous_joins_total_failure", "Joins that failed.")
	m.dials = f.counter("rendezvous_dials_total", "All dials since the server started.")
	m.dialsGood = f.counter("rendezvous_dials_total_success", "Dials that succeeded.")
	m.dialsBad = f.counter("rendezvous_dials_total_failure", "Dials that failed.")
	f.gauge("rendezvous_peers", "Peers online now, at this server.", func() float64 { return float64(srv.roster.here()) })

	labels := []string{"method", "path", "cardinality", "status"}
	m.requests = prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "http_request_duration_milliseconds", Help: "Request duration in milliseconds.",
		Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}}, labels)
	m.buckets = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_buckets_milliseconds", Help: "Request duration buckets in milliseconds.",
		Buckets: []float64{500, 2000}}, labels)
	m.registry.MustRegister(m.requests, m.buckets, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.resets = f.vector("parley_star_stream_resets_total", "Streams that the server ended.", "reason")
	m.announced = f.vector("parley_star_announcements_total", "Announcements sent.", "kind")
	m.limits = f.vector("parley_star_limit_hits_total", "How often a limit was met.", "limit")
	for _, name := range limitNames {
		m.limits.WithLabelValues(name) // all are there from the start
	}
	m.refusals = f.vector("parley_star_refused_total", "Events answered with an error.", "event", "reason")
	m.dropped = f.vector("parley_star_dropped_total", "Events of streams that don't exist, or that can't be read.", "what")
	m.verifies = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "parley_star_verify_seconds", Help: "Checking a signature.",
		Buckets: prometheus.ExponentialBuckets(20e-6, 4, 8)}, []string{"type"})
	m.answers = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_star_dial_seconds", Help: "From a dial to its answer.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 4, 8)})
	m.registry.MustRegister(m.verifies, m.answers)
	m.gauges(srv, f)
	return m
}

func (m *metrics) gauges(srv *Server, f factory) {
	sessions := prometheus.NewDesc("parley_star_sessions", "Sessions now.", []string{"transport"}, nil)
	m.registry.MustRegister(collector{sessions, func(ch chan<- prometheus.Metric) {
		n := map[socketio.Transport]int{socketio.Polling: 0, socketio.WebSocket: 0}
		for _, s := range srv.sio.Sockets() {
			n[s.Transport()]++
		}
		for transport, count := range n {
			ch <- prometheus.MustNewConstMetric(sessions, prometheus.GaugeValue, float64(count), string(transport))
		}
	}})
	f.gauge("parley_star_streams", "Streams now.", func() float64 { return float64(srv.engine.Stats().Streams) })
	f.gauge("parley_star_queue_bytes", "Bytes held for readers.", func() float64 { return float64(srv.engine.Stats().Held) })
	f.gauge("parley_star_paused_senders", "Senders that are not read.", func() float64 { return float64(srv.engine.Stats().Paused) })
	f.counterFunc("parley_star_stream_bytes_total", "Bytes carried.", func() float64 { return float64(srv.engine.Stats().Bytes) })
	r := srv.opts.Registry
	if r == nil {
		return
	}
	f.gauge("parley_star_lease_valid", "1 while the cluster holds this server for alive.", func() float64 {
		if r.Ready() {
			return 1
		}
		return 0
	})
	f.counterFunc("parley_star_cluster_bytes_total", "Bytes of streams to and from other servers.", func() float64 { return float64(r.Bytes()) })
}

// factory registers metrics as it makes them.
type factory struct{ r *prometheus.Registry }

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	f.r.MustRegister(c)
	return c
}

func (f factory) vector(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.r.MustRegister(c)
	return c
}

func (f factory) gauge(name, help string, value func() float64) {
	f.r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func (f factory) counterFunc(name, help string, value func() float64) {
	f.r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
}

// collector is a metric made when it is asked for.
type collector struct {
	desc    *prometheus.Desc
	collect func(chan<- prometheus.Metric)
}

func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c collector) Collect(ch chan<- prometheus.Metric) { c.collect(ch) }

// joinStarted counts a join when its challenge is given out, as the reference
// does.
func (m *metrics) joinStarted() { m.joins.Inc() }

func (m *metrics) join(good bool) {
	if good {
		m.joinsGood.Inc()
	} else {
		m.joinsBad.Inc()
		m.joins.Inc()
	}
}

func (m *metrics) dial(good bool) {
	m.dials.Inc()
	m.dialCount.Add(1)
	if good {
		m.dialsGood.Inc()
	} else {
		m.dialsBad.Inc()
	}
}

func (m *metrics) limit(name string)           { m.limits.WithLabelValues(name).Inc() }
func (m *metrics) reset(reason string)         { m.resets.WithLabelValues(reason).Inc() }
func (m *metrics) drop(what string)            { m.dropped.WithLabelValues(what).Inc() }
func (m *metrics) announce(kind string, n int) { m.announced.WithLabelValues(kind).Add(float64(n)) }

func (m *metrics) verified(kind string, took time.Duration) {
	m.verifies.WithLabelValues(kind).Observe(took.Seconds())
}

func (m *metrics) answered(took time.Duration, _ bool) { m.answers.Observe(took.Seconds()) }

// refused counts an answer; what a callee said itself is one reason.
func (m *metrics) refused(event, say string) {
	m.refusalCount.Add(1)
	if !known[say] {
		say = "refused by the callee"
	}
	if event != eventJoin && event != eventDial && event != eventLeave {
		event = "other"
	}
	m.refusals.WithLabelValues(event, say).Inc()
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// observed measures requests with the reference's names and labels.
func (m *metrics) observed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, rec := time.Now(), &recorder{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(rec, r)
		path, cardinality := "other", "one"
		switch {
		case r.URL.Path == "/" || r.URL.Path == "/metrics":
			path = r.URL.Path
		case strings.HasPrefix(r.URL.Path, "/socket.io"):
			path = "/socket.io/"
		}
		if strings.HasSuffix(path, "/") {
			cardinality = "many"
		}
		method := r.Method
		if method != http.MethodGet && method != http.MethodPost && method != http.MethodOptions {
			method = "other"
		}
		labels := []string{strings.ToLower(method), path, cardinality, strconv.Itoa(rec.status)}
		ms := float64(time.Since(start).Milliseconds())
		m.requests.WithLabelValues(labels...).Observe(ms)
		m.buckets.WithLabelValues(labels...).Observe(ms)
	})
}

// recorder remembers a response's status.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Hijack notes that the connection became another protocol's.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.status = http.StatusSwitchingProtocols
	}
	return nc, rw, err
}

// Unwrap lets a response controller reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
