package parley

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"time"

	"github.com/parley-p2p/parley/admin"
	"github.com/parley-p2p/parley/channel/muxws"
	"github.com/parley-p2p/parley/client"
	"github.com/parley-p2p/parley/gateway/consent"
	"github.com/parley-p2p/parley/site"
)

// handler is everything the node answers over HTTP (gateway.md §8):
//
//	/ws                         pages, by WebSocket
//	/parley.js, /parley.d.ts    the client
//	/_parley/…                  status, metrics, dashboard, Go's profiles
//	/_parley/consent            may pages of another site use the node?
//	/v1/<network>/mux           channels of other nodes, where p2p.muxNetwork names it
//	/health, /ready             for supervisors
//	everything else             the site
//
// All but the mux, /health and /ready are behind the access policy, and the site's files
// for those whom http.cors lets read them.
func (n *Node) handler() (http.Handler, error) {
	inner := http.NewServeMux()
	for name, contentType := range map[string]string{"parley.js": "text/javascript; charset=utf-8", "parley.d.ts": "text/plain; charset=utf-8"} {
		file, err := clientFile(name, contentType)
		if err != nil {
			return nil, err
		}
		inner.Handle("GET /"+name, file)
	}
	inner.Handle(admin.Path, n.admin)
	inner.Handle(consent.Path, n.consent.Handler())
	inner.HandleFunc("GET "+admin.Path+"pprof/profile", pprof.Profile)
	inner.HandleFunc("GET "+admin.Path+"pprof/trace", pprof.Trace)
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex"} {
		inner.Handle("GET "+admin.Path+"pprof/"+name, pprof.Handler(name))
	}
	guarded := n.access.Wrap(inner)
	if n.cfg.Site == nil {
		inner.Handle("GET /{$}", http.RedirectHandler(admin.Path, http.StatusSeeOther))
	} else {
		pages, err := n.cfg.Site.Handler(n.cfg.HTTP, n.cfg.Files)
		if err != nil {
			return nil, err
		}
		inner.Handle("/", pages)
		guarded = n.readable(inner, pages, guarded)
	}
	outer := http.NewServeMux()
	outer.Handle("/ws", n.gateway) // asks the policy itself, before the upgrade
	if name := n.cfg.P2P.MuxNetwork; name != "" {
		outer.Handle("GET "+muxws.Path(name), n.muxes) // for nodes, which prove themselves; it refuses pages
	}
	outer.HandleFunc("/health", n.admin.Health)
	outer.HandleFunc("/ready", n.admin.Ready)
	outer.Handle("/", guarded)
	return outer, nil
}

// readable lets the pages that http.cors names read the site's files, and
// nothing else: their requests have another site's Origin and no token.
func (n *Node) readable(inner *http.ServeMux, pages, guarded http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.cfg.HTTP.CORS.Allows(r) && n.access.Knows(r.Host) {
			if _, pattern := inner.Handler(r); pattern == "/" {
				pages.ServeHTTP(w, r)
				return
			}
		}
		guarded.ServeHTTP(w, r)
	})
}

// clientFile serves the client of this very version: a page that is open must
// not keep an old one. The type is ours: what a machine takes a .ts for, or even a
// .js, is its own affair, and a browser runs no script of another type. It is
// compressed once, for who takes that and wants the whole.
func clientFile(name, contentType string) (http.Handler, error) {
	text, err := fs.ReadFile(client.Files(), name)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(text); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	tag := fmt.Sprintf("%x", sha256.Sum256(text))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Add("Vary", "Accept-Encoding")
		if r.Header.Get("Range") != "" || !site.AcceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Etag", `"`+tag+`"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
			return
		}
		h.Set("Etag", `"`+tag+`-gzip"`)
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.Itoa(packed.Len()))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(packed.Bytes()))
	}), nil
}

// url is the node's address for a browser.
func (c Config) url(port int) string {
	scheme, name := "http", c.Server.Listen
	if c.Secure() {
		scheme = "https"
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.IsUnspecified() {
		name = "localhost"
	}
	if len(c.Server.Hosts) > 0 && c.Exposed() {
		name = c.Server.Hosts[0]
	}
	return scheme + "://" + net.JoinHostPort(name, strconv.Itoa(port)) + "/"
}
