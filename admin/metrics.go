package admin

import (
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Sample is one value of a metric, with a value for each of its labels. Labels
// must come from a small fixed set: never a peer, a topic or a page.
type Sample struct {
	Labels []string
	Value  float64
}

// Gauges registers a metric that goes up and down. read is asked at every
// scrape and must not wait for the network.
func (a *Admin) Gauges(name, help string, labels []string, read func() []Sample) error {
	return a.register(name, help, labels, prometheus.GaugeValue, read)
}

// Counters registers a metric that only grows. See Gauges.
func (a *Admin) Counters(name, help string, labels []string, read func() []Sample) error {
	return a.register(name, help, labels, prometheus.CounterValue, read)
}

// Limits registers the three metrics that every limit has.
func (a *Admin) Limits(read func() []Limit) error {
	each := func(value func(Limit) float64) func() []Sample {
		return func() []Sample {
			var out []Sample
			for _, l := range read() {
				if v := value(l); !math.IsNaN(v) {
					out = append(out, Sample{[]string{l.Name}, v})
				}
			}
			return out
		}
	}
	label := []string{"limit"}
	if err := a.Gauges("parley_limit_used", "What is used of a limit now.", label, each(func(l Limit) float64 { return l.Current })); err != nil {
		return err
	}
	if err := a.Gauges("parley_limit_max", "The limit itself.", label, each(func(l Limit) float64 { return l.Max })); err != nil {
		return err
	}
	return a.Counters("parley_limit_refused_total", "How often a limit said no.", label, each(func(l Limit) float64 { return float64(l.Refused) }))
}

// Drops registers the metric of what was lost on purpose.
func (a *Admin) Drops(read func() []Drop) error {
	return a.Counters("parley_dropped_total", "What was dropped, by reason.", []string{"what", "reason"}, func() []Sample {
		var out []Sample
		for _, d := range read() {
			out = append(out, Sample{[]string{d.What, d.Reason}, float64(d.Count)})
		}
		return out
	})
}

func (a *Admin) register(name, help string, labels []string, kind prometheus.ValueType, read func() []Sample) error {
	c := &collector{desc: prometheus.NewDesc(name, help, labels, nil), kind: kind, read: read}
	if err := a.cfg.Registry.Register(c); err != nil {
		return fmt.Errorf("register metric %s: %w", name, err)
	}
	return nil
}

// collector asks a function at every scrape, so that no part keeps a metric.
type collector struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func() []Sample
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect is prometheus.Collector's.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.read() {
		m, err := prometheus.NewConstMetric(c.desc, c.kind, s.Value, s.Labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(c.desc, err)
		}
		ch <- m
	}
}

func (a *Admin) registerProcess() {
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "parley_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": a.cfg.Version},
	}, func() float64 { return 1 })
	for _, c := range []prometheus.Collector{info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		// A registry that was given may have them already.
		if err := a.cfg.Registry.Register(c); err != nil {
			a.cfg.Log.Debug("metric is there already", "component", "admin", "err", err)
		}
	}
}

// maxScrapes is how many scrapes run at once; more are answered 503.
const maxScrapes = 4

func (a *Admin) metrics() http.Handler {
	return promhttp.HandlerFor(a.cfg.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	})
}

// amount writes a number with its unit, for a column that mixes units.
func amount(v float64, unit Unit) string {
	if math.IsNaN(v) {
		return ""
	}
	if unit != Bytes {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	for _, u := range []struct {
		size float64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if v >= u.size {
			return strconv.FormatFloat(math.Round(v/u.size*10)/10, 'f', -1, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(v, 'f', -1, 64) + " B"
}
