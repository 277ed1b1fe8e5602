package admin

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Path is where the Admin handler belongs.
const Path = "/_parley/"

// Config says what an Admin tells about its node. The zero value is usable.
type Config struct {
	Version string
	Site    string // the name of what is served; "" for a node without a site
	Peer    string // the node's id

	// Ready reports whether the node takes pages and peers; nil is always. It
	// must not block.
	Ready func() bool
	// Registry takes the metrics; nil makes one. There is no global one.
	Registry *prometheus.Registry
	// Log takes faults of panels; nil for nothing.
	Log *slog.Logger
}

// Admin serves /_parley/. It is safe for several goroutines.
type Admin struct {
	cfg     Config
	started time.Time
	mux     *http.ServeMux

	mu     sync.Mutex
	panels []Panel
}

//go:embed assets
var assets embed.FS

// New makes an Admin with one panel, that of the process. More come by Add.
func New(cfg Config) *Admin {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	a := &Admin{cfg: cfg, started: time.Now(), mux: http.NewServeMux()}
	a.mux.HandleFunc("GET "+Path+"{$}", a.page("index.html", "text/html; charset=utf-8"))
	a.mux.HandleFunc("GET "+Path+"dashboard.js", a.page("dashboard.js", "text/javascript; charset=utf-8"))
	a.mux.HandleFunc("GET "+Path+"dashboard.css", a.page("dashboard.css", "text/css; charset=utf-8"))
	a.mux.HandleFunc("GET "+Path+"status.json", a.status)
	a.mux.Handle("GET "+Path+"metrics", a.metrics())
	a.mux.HandleFunc(Path, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusNotFound) })
	a.registerProcess()
	a.Add(a.processPanel())
	return a
}

// ServeHTTP serves everything below /_parley/.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	// Everything of the page comes from here; nothing runs that isn't a file.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	a.mux.ServeHTTP(w, r)
}

// Add puts a panel behind those that are there; one with the same ID is
// replaced.
func (a *Admin) Add(p Panel) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.panels {
		if a.panels[i].ID == p.ID {
			a.panels[i] = p
			return
		}
	}
	a.panels = append(a.panels, p)
}

// Health answers 200 while the process runs.
func (a *Admin) Health(w http.ResponseWriter, r *http.Request) { check(w, r, true) }

// Ready answers 200 while the node takes pages and peers, 503 otherwise.
func (a *Admin) Ready(w http.ResponseWriter, r *http.Request) {
	check(w, r, a.cfg.Ready == nil || a.cfg.Ready())
}

func check(w http.ResponseWriter, r *http.Request, good bool) {
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed)
	case good:
		answer(w, http.StatusOK)
	default:
		answer(w, http.StatusServiceUnavailable)
	}
}

func answer(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(strings.ToLower(http.StatusText(code)) + "\n"))
}

func (a *Admin) page(name, contentType string) http.HandlerFunc {
	body, err := fs.ReadFile(assets, "assets/"+name)
	return func(w http.ResponseWriter, _ *http.Request) {
		if err != nil { // can't be: it is embedded, and a test serves it
			answer(w, http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body)
	}
}

// Status is the document at status.json.
type Status struct {
	Version string       `json:"version"`
	Site    string       `json:"site"`
	Peer    string       `json:"peer"`
	Ready   bool         `json:"ready"`
	Uptime  float64      `json:"uptime"` // seconds
	Panels  []PanelState `json:"panels"`
}

// PanelState is a panel as it is now.
type PanelState struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Help  string `json:"help,omitempty"`
	Error string `json:"error,omitempty"` // the panel itself failed
	Section
}

// Status collects what all panels show.
func (a *Admin) Status() Status {
	a.mu.Lock()
	panels := append([]Panel{}, a.panels...)
	a.mu.Unlock()
	s := Status{
		Version: clean(a.cfg.Version), Site: clean(a.cfg.Site), Peer: clean(a.cfg.Peer),
		Ready: a.cfg.Ready == nil || a.cfg.Ready(), Uptime: time.Since(a.started).Seconds(),
	}
	for _, p := range panels {
		s.Panels = append(s.Panels, a.show(p))
	}
	return s
}

// show asks one panel. Its failure is its own.
func (a *Admin) show(p Panel) (state PanelState) {
	state = PanelState{ID: p.ID, Title: p.Title, Help: p.Help}
	defer func() {
		if fault := recover(); fault != nil {
			a.cfg.Log.Error("panel failed", "component", "admin", "panel", p.ID, "fault", fmt.Sprint(fault))
			state.Section, state.Error = Section{}, "this panel failed; the log says how"
		}
	}()
	state.Section = p.Show().plain()
	return state
}

func (a *Admin) status(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(a.Status())
	if err != nil {
		a.cfg.Log.Error("status can't be written", "component", "admin", "err", err)
		answer(w, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}
