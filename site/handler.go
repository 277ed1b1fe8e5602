package site

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// handler answers a request in this order:
//
//  1. the headers of every page, cross-origin rules, the method
//  2. what is hidden: 404, before anything can fall back
//  3. the index file by its own name, and a folder without its slash: 301
//  4. the file, or a folder's index file
//  5. the fallback for what a page routes by itself, or 404
type handler struct {
	head  HTTP
	files Files
	store *store
}

// ServeHTTP serves GET and HEAD (gateway.md §8).
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.head.Apply(w.Header())
	if h.head.CORS.apply(w, r) {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", h.head.CORS.allow())
		fail(w, http.StatusMethodNotAllowed)
		return
	}
	name, ok := nameOf(r.URL.Path)
	if !ok || hidden(name) {
		fail(w, http.StatusNotFound)
		return
	}
	if path.Base(name) == h.files.IndexFile && !strings.HasSuffix(r.URL.Path, "/") {
		redirect(w, r, path.Dir("/"+name))
		return
	}
	h.serve(w, r, name)
}

// nameOf turns a URL's path into a name inside the site. A path that isn't in
// its plain form ("..", "//") names nothing.
func nameOf(urlPath string) (name string, ok bool) {
	trimmed := strings.TrimSuffix(strings.TrimPrefix(urlPath, "/"), "/")
	if trimmed == "" {
		return ".", urlPath == "/" || urlPath == ""
	}
	return trimmed, strings.HasPrefix(urlPath, "/") && fs.ValidPath(trimmed) && trimmed != "."
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, name string) {
	slash := strings.HasSuffix(r.URL.Path, "/")
	it, err := h.store.open(name)
	switch {
	case err == nil && !slash:
		h.send(w, r, name, it)
		return
	case err == nil: // a file with a slash behind it is not that file
		it.close()
	case errors.Is(err, errFolder):
		index := path.Join(name, h.files.IndexFile)
		it, err := h.store.open(index)
		if err != nil {
			break
		}
		if !slash && name != "." { // relative links need the slash
			it.close()
			redirect(w, r, "/"+name)
			return
		}
		h.send(w, r, index, it)
		return
	}
	if h.fallsBack(name, r) {
		if it, err := h.store.open(h.files.IndexFile); err == nil {
			h.send(w, r, h.files.IndexFile, it)
			return
		}
	}
	fail(w, http.StatusNotFound)
}

// fallsBack reports whether a path without a file is one that the page routes
// by itself: no extension or .html; or the browser goes there, and the
// extension is none that files have ("/adventure/v1.2").
func (h *handler) fallsBack(name string, r *http.Request) bool {
	if !h.files.SPAFallback {
		return false
	}
	ext := strings.ToLower(path.Ext(path.Base(name)))
	if ext == "" || ext == ".html" {
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && typeOf(name) == ""
}

// send writes a file and closes it: conditions, ranges and HEAD are
// http.ServeContent's.
func (h *handler) send(w http.ResponseWriter, r *http.Request, name string, it *item) {
	defer it.close()
	head := w.Header()
	head.Set("Content-Type", it.contentType)
	head.Set("ETag", it.etag)
	if shrinks(it.contentType) {
		head.Add("Vary", "Accept-Encoding")
	}
	if r.Header.Get("Range") == "" && AcceptsGzip(r.Header.Get("Accept-Encoding")) {
		if small := h.store.compressed(name, it); small != nil {
			head.Set("ETag", strings.TrimSuffix(it.etag, `"`)+`-gzip"`)
			head.Set("Content-Encoding", "gzip")
			head.Set("Content-Length", strconv.Itoa(len(small)))
			http.ServeContent(w, r, "", it.modTime, bytes.NewReader(small))
			return
		}
	}
	giveTime(w, it.size)
	http.ServeContent(w, r, "", it.modTime, it.body)
}

// slowest is the rate in bytes a second below which a download is given up.
const slowest = 64 << 10

// giveTime lets a large file take longer than the server's write timeout, which
// is meant for pages.
func giveTime(w http.ResponseWriter, size int64) {
	if size > 15*slowest {
		// An error means that the server has no deadlines: nothing to lengthen.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Duration(size/slowest) * time.Second))
	}
}

// Apply sets the configured headers. The root uses it for the node's own pages
// too.
func (c HTTP) Apply(h http.Header) {
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set("Cache-Control", c.CacheControl)
	if strings.Contains(strings.ToLower(c.CacheControl), "no-cache") {
		h.Set("Pragma", "no-cache")
		h.Set("Expires", "0")
	}
	set("X-Content-Type-Options", c.Security.XContentTypeOptions)
	set("X-Frame-Options", c.Security.XFrameOptions)
	policy := c.Security.ContentSecurityPolicy
	if policy == "" {
		policy = DefaultPolicy
	}
	h.Set("Content-Security-Policy", policy)
}

// apply adds the cross-origin headers and answers a preflight; done reports
// that it did.
func (c CORS) apply(w http.ResponseWriter, r *http.Request) (done bool) {
	if !c.Enabled {
		return false
	}
	head := w.Header()
	if c.AllowOrigin != "*" {
		head.Add("Vary", "Origin")
	}
	if c.AllowOrigin == "*" || c.Allows(r) {
		head.Set("Access-Control-Allow-Origin", c.AllowOrigin)
	}
	if r.Method != http.MethodOptions {
		return false
	}
	if r.Header.Get("Access-Control-Request-Method") != "" && head.Get("Access-Control-Allow-Origin") != "" {
		if len(c.AllowMethods) > 0 {
			head.Set("Access-Control-Allow-Methods", strings.Join(c.AllowMethods, ", "))
		}
		if len(c.AllowHeaders) > 0 {
			head.Set("Access-Control-Allow-Headers", strings.Join(c.AllowHeaders, ", "))
		}
	}
	head.Set("Allow", c.allow())
	w.WriteHeader(http.StatusNoContent)
	return true
}

// Allows reports whether r comes from a page that CORS lets read the site.
func (c CORS) Allows(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return c.Enabled && origin != "" && (c.AllowOrigin == "*" || c.AllowOrigin == origin)
}

func (c CORS) allow() string {
	if c.Enabled {
		return "GET, HEAD, OPTIONS"
	}
	return "GET, HEAD"
}

// AcceptsGzip reads an Accept-Encoding header; gzip with q=0 is a no.
func AcceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(params), " ", ""), "q=")
		if !found {
			return true
		}
		v, err := strconv.ParseFloat(q, 64)
		return err == nil && v > 0
	}
	return false
}

// redirect sends the browser to folder with a slash behind it. The target is
// made from a checked name, so it can't lead to another host.
func redirect(w http.ResponseWriter, r *http.Request, folder string) {
	to := url.URL{Path: strings.TrimSuffix(folder, "/") + "/", RawQuery: r.URL.RawQuery}
	w.Header().Set("Location", to.EscapedPath()+query(to.RawQuery))
	w.WriteHeader(http.StatusMovedPermanently)
}

func query(raw string) string {
	if raw == "" {
		return ""
	}
	return "?" + raw
}

// fail answers without a word of what was asked for.
func fail(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(strconv.Itoa(status) + " " + http.StatusText(status) + "\n"))
}
