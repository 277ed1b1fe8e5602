package star

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// pagePolicy lets the page's own style and script run, which it names by their
// hashes, and nothing else: not even what gets into the page by a fault.
var pagePolicy = "default-src 'none'; style-src " + hashOf("style") + "; script-src " + hashOf("script") +
	"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// hashOf is the hash of the page's only element of this name. Nothing of the
// template is filled in there.
func hashOf(element string) string {
	_, rest, _ := strings.Cut(pageSource, "<"+element+">")
	text, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// carried is a number of bytes for people.
func carried(n int64) string {
	const units = "kMGTP"
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, u := float64(n)/1000, 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	digits := 0
	if v < 9.95 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + units[u:u+1] + "B"
}

// rules says in a few words what a dial may carry.
func (srv *Server) rules() string {
	var say []string
	if srv.opts.OpenJoins {
		say = append(say, "open to any name, without proof")
	}
	l := srv.engine.Limits()
	if l.DialBytes > 0 {
		say = append(say, carried(l.DialBytes)+" a stream")
	}
	if l.DialLife > 0 {
		say = append(say, strings.TrimSuffix(strings.TrimSuffix(l.DialLife.String(), "0s"), "0m")+" at most")
	}
	if rate := srv.limits.SessionRate; rate > 0 {
		say = append(say, carried(int64(rate))+"/s")
	}
	return strings.Join(say, ", ")
}

// page is the status page: one file, nothing from elsewhere.
func (srv *Server) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	now := srv.figures()
	_ = pageTemplate.Execute(w, map[string]any{"Address": srv.askedAddress(r), "Version": srv.opts.Version, "Now": now,
		"Carried": carried(now.Bytes), "Uptime": time.Duration(now.Uptime) * time.Second, "Policy": srv.rules()}) // nobody is left to be told
}

// status is the page's figures, live.
func (srv *Server) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(srv.figures()) // nobody is left to be told
}

// figures say how much, and nothing about whom.
type figures struct {
	Members  int    `json:"members"`
	Sessions int    `json:"sessions"`
	Streams  int    `json:"streams"`
	Dials    int64  `json:"dials"`
	Bytes    int64  `json:"bytes"`
	Refusals int64  `json:"refusals"`
	Uptime   int64  `json:"uptime"` // seconds
	State    string `json:"state"`
}

func (srv *Server) figures() figures {
	s := srv.Stats()
	f := figures{Members: s.Members, Sessions: s.Sessions, Streams: s.Streams.Streams, Dials: s.Dials, Bytes: s.Streams.Bytes,
		Refusals: s.Refusals, Uptime: int64(s.Uptime / time.Second), State: "open"}
	switch r := srv.opts.Registry; {
	case s.Draining:
		f.State = "closing"
	case r != nil && !r.Ready(): // it takes no joins
		f.State = "alone"
	}
	return f
}

// askedAddress is the multiaddr of the star under the name that it was asked by.
func (srv *Server) askedAddress(r *http.Request) string {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = strings.Trim(r.Host, "[]"), ""
	}
	tls := r.TLS != nil || srv.certs != nil
	if within(srv.opts.TrustedProxies, peerAddr(r)) && r.Header.Get("X-Forwarded-Proto") == "https" {
		tls = true
	}
	kind, ws, usual := "dns4", "ws", "80"
	if addr, err := netip.ParseAddr(host); err == nil {
		kind = "ip4"
		if addr.Is6() {
			kind = "ip6"
		}
	}
	if tls {
		ws, usual = "wss", "443"
	}
	if port == "" {
		port = usual
	}
	return "/" + kind + "/" + host + "/tcp/" + port + "/" + ws + "/p2p-websocket-star"
}

func peerAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
