package star

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// page is the status page: one file, nothing from elsewhere.
func (srv *Server) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_ = pageTemplate.Execute(w, map[string]any{"Address": srv.askedAddress(r), "Version": srv.opts.Version, "Now": srv.figures()}) // nobody is left to be told
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
	if s.Draining {
		f.State = "closing"
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
