package site

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pages is the site of these tests: in a folder, and as a bundle.
var pages = map[string]string{
	"html/index.html":            "<h1>top</h1>",
	"html/app.js":                strings.Repeat("export const x = 1\n", 200),
	"html/tiny.css":              "a{}",
	"html/LICENSE":               "plain words\n",
	"html/docs/index.html":       "<h1>docs</h1>",
	"html/empty/note.txt":        "n",
	"html/v/release.2":           "an extension that is no type",
	"html/photo.png":             "\x89PNG" + strings.Repeat("\x00\xff", 2000),
	"html/.env":                  "SECRET",
	"html/sub/.git/HEAD":         "SECRET",
	"html/config/inner.js":       "SECRET",
	"html/storage/blocks":        "SECRET",
	"html/ipfs/x":                "SECRET",
	"html/server.key":            "SECRET",
	"html/cert/tls.PEM":          "SECRET",
	"html/sub/config/fine.js":    "fine",
	"html/keys/one":              "SECRET",
	"config/parley.toml":         "SECRET",
	"storage/key":                "SECRET",
	"html/my site/käse & co.txt": "odd name",
}

func folderSite(t *testing.T, files map[string]string) *Site {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), body)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func bundleSite(t *testing.T, files map[string]string) *Site {
	t.Helper()
	m := fstest.MapFS{}
	for name, body := range files {
		m[name] = &fstest.MapFile{Data: []byte(body)}
	}
	s, err := FromFS("demo", m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, name, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, s *Site, head HTTP, files Files) http.Handler {
	t.Helper()
	h, err := s.Handler(head, files)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// get asks h; header has name, value, name, value…
func get(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "http://localhost:10000/", nil)
	before, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = before, query
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPaths(t *testing.T) {
	const navigate = "navigate"
	tests := []struct {
		name, path, mode string
		status           int
		want             string // the body, or a redirect's target
	}{
		{"top", "/", "", 200, pages["html/index.html"]},
		{"index by name", "/index.html", "", 301, "/"},
		{"index by name keeps the query", "/index.html?a=1", "", 301, "/?a=1"},
		{"file", "/tiny.css", "", 200, "a{}"},
		{"file without extension", "/LICENSE", "", 200, "plain words\n"},
		{"odd name", "/my site/käse & co.txt", "", 200, "odd name"},
		{"file with a slash behind", "/tiny.css/", "", 404, ""},
		{"folder without slash", "/docs", "", 301, "/docs/"},
		{"folder", "/docs/", "", 200, pages["html/docs/index.html"]},
		{"folder's index by name", "/docs/index.html", "", 301, "/docs/"},
		{"folder without index falls back, no listing", "/empty/", "", 200, pages["html/index.html"]},
		{"folder without index or slash", "/empty", "", 200, pages["html/index.html"]},
		{"route of the page", "/room/42", "", 200, pages["html/index.html"]},
		{"route with .html", "/about.html", "", 200, pages["html/index.html"]},
		{"missing script", "/missing.js", "", 404, ""},
		{"missing script, navigated to", "/missing.js", navigate, 404, ""},
		{"route with a dot, navigated to", "/adventure/v1.2", navigate, 200, pages["html/index.html"]},
		{"route with a dot, fetched", "/adventure/v1.2", "cors", 404, ""},
		{"existing file with such a name", "/v/release.2", "", 200, pages["html/v/release.2"]},
		{"dots", "/docs/../tiny.css", "", 404, ""},
		{"way out", "/../config/parley.toml", "", 404, ""},
		{"two slashes", "//evil.example/index.html", "", 404, ""},
		{"a dot", "/.", "", 404, ""},
		{"backslash", `/..\config\parley.toml`, "", 404, ""},
		{"NUL", "/tiny.css\x00.html", "", 404, ""},
	}
	for kind, s := range map[string]*Site{"folder": folderSite(t, pages), "bundle": bundleSite(t, pages)} {
		h := serve(t, s, DefaultHTTP(), DefaultFiles())
		for _, tt := range tests {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				res := get(h, "GET", tt.path, "Sec-Fetch-Mode", tt.mode)
				if res.StatusCode != tt.status {
					t.Fatalf("status %d, want %d", res.StatusCode, tt.status)
				}
				got := body(t, res)
				switch tt.status {
				case 200:
					if got != tt.want {
						t.Errorf("body %q, want %q", got, tt.want)
					}
				case 301:
					if loc := res.Header.Get("Location"); loc != tt.want {
						t.Errorf("Location %q, want %q", loc, tt.want)
					}
				}
				if res.Header.Get("Content-Security-Policy") == "" {
					t.Error("no content security policy")
				}
			})
		}
	}
}

// TestG_S6_NeverServesKeysOrStorage: what belongs to the node is 404 and never
// the fallback, in folder and bundle alike.
func TestG_S6_NeverServesKeysOrStorage(t *testing.T) {
	paths := []string{
		"/.env", "/.ENV", "/sub/.git/HEAD", "/config/inner.js", "/CONFIG/inner.js", "/config", "/config/", "/config./inner.js",
		"/storage/blocks", "/storage", "/ipfs/x", "/server.key", "/cert/tls.PEM", "/keys/one", "/parley.toml", "/p2p-webapp.toml",
		"/.well-known/x", "/config:stream/inner.js",
	}
	withoutHTML := map[string]string{}
	for name, b := range pages {
		withoutHTML[strings.TrimPrefix(name, "html/")] = b
	}
	withoutHTML["parley.toml"], withoutHTML["p2p-webapp.toml"] = "SECRET", "SECRET"
	sites := map[string]*Site{
		"folder": folderSite(t, pages), "bundle": bundleSite(t, pages),
		"folder without html": folderSite(t, withoutHTML), "bundle without html": bundleSite(t, withoutHTML),
	}
	for kind, s := range sites {
		h := serve(t, s, DefaultHTTP(), DefaultFiles())
		for _, p := range paths {
			if res := get(h, "GET", p, "Sec-Fetch-Mode", "navigate"); res.StatusCode != 404 {
				t.Errorf("%s: %s is %d %q, want 404", kind, p, res.StatusCode, body(t, res))
			}
		}
		if res := get(h, "GET", "/sub/config/fine.js"); res.StatusCode != 200 {
			t.Errorf("%s: a config folder further down is the page's own, got %d", kind, res.StatusCode)
		}
	}
}

func TestLinksLeadNowhereElse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("links need rights there")
		return
	}
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret.txt"), "SECRET")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "index.html"), "top")
	write(t, filepath.Join(dir, "real", "a.txt"), "a")
	write(t, filepath.Join(dir, "config", "parley.toml"), "SECRET")
	write(t, filepath.Join(dir, ".git", "HEAD"), "SECRET")
	for name, target := range map[string]string{
		"ok.txt": "real/a.txt", "okdir": "real", "real/up.txt": "../real/a.txt", "chain.txt": "ok.txt",
		"config.txt": "config/parley.toml", "git.txt": ".git/HEAD", "gitdir": ".git", "tograndpa.txt": "gitdir/HEAD",
		"out.txt": filepath.Join(outside, "secret.txt"), "outdir": outside, "rel.txt": "../" + filepath.Base(outside) + "/secret.txt",
		"loop.txt": "loop.txt", "dangling.txt": "nothing.txt", "abs.txt": filepath.Join(dir, "real", "a.txt"),
	} {
		if err := os.Symlink(target, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := serve(t, s, DefaultHTTP(), DefaultFiles())
	for p, want := range map[string]int{
		"/ok.txt": 200, "/okdir/a.txt": 200, "/real/up.txt": 200, "/chain.txt": 200,
		"/config.txt": 404, "/git.txt": 404, "/gitdir/HEAD.txt": 404, "/tograndpa.txt": 404,
		"/out.txt": 404, "/outdir/secret.txt": 404, "/rel.txt": 404, "/loop.txt": 404, "/dangling.txt": 404, "/abs.txt": 404,
	} {
		if res := get(h, "GET", p); res.StatusCode != want {
			t.Errorf("%s is %d, want %d", p, res.StatusCode, want)
		}
	}
	if _, err := s.FS().Open("outdir/secret.txt"); err == nil {
		t.Error("the node's own view leads outside")
	}
}

func TestHTMLFolderMayBeALink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("links need rights there")
		return
	}
	build := t.TempDir()
	write(t, filepath.Join(build, "index.html"), "built")
	dir := t.TempDir()
	if err := os.Symlink(build, filepath.Join(dir, "html")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := body(t, get(serve(t, s, DefaultHTTP(), DefaultFiles()), "GET", "/")); got != "built" {
		t.Errorf("got %q", got)
	}
}

func TestConditionsRangesAndGzip(t *testing.T) {
	for kind, s := range map[string]*Site{"folder": folderSite(t, pages), "bundle": bundleSite(t, pages)} {
		t.Run(kind, func(t *testing.T) {
			h := serve(t, s, DefaultHTTP(), DefaultFiles())
			plain := get(h, "GET", "/app.js")
			etag := plain.Header.Get("ETag")
			if plain.StatusCode != 200 || !strings.HasPrefix(etag, `"`) || body(t, plain) != pages["html/app.js"] {
				t.Fatalf("plain: %d %s", plain.StatusCode, etag)
			}
			if kind == "folder" && plain.Header.Get("Last-Modified") == "" {
				t.Error("no Last-Modified")
			}
			if res := get(h, "GET", "/app.js", "If-None-Match", etag); res.StatusCode != 304 || body(t, res) != "" {
				t.Errorf("same ETag: %d", res.StatusCode)
			}
			part := get(h, "GET", "/app.js", "Range", "bytes=0-5", "Accept-Encoding", "gzip")
			if part.StatusCode != 206 || body(t, part) != "export" {
				t.Errorf("range: %d", part.StatusCode)
			}
			if res := get(h, "GET", "/app.js", "Range", "bytes=999999-"); res.StatusCode != 416 {
				t.Errorf("range behind the end: %d", res.StatusCode)
			}
			for range 2 { // made, then kept
				small := get(h, "GET", "/app.js", "Accept-Encoding", "br, gzip;q=0.5")
				if small.Header.Get("Content-Encoding") != "gzip" || small.Header.Get("Vary") != "Accept-Encoding" {
					t.Fatalf("not compressed: %v", small.Header)
				}
				if small.Header.Get("ETag") == etag {
					t.Error("compressed and plain share an ETag")
				}
				zr, err := gzip.NewReader(small.Body)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(zr); err != nil || string(b) != pages["html/app.js"] {
					t.Errorf("unpacked %d bytes, %v", len(b), err)
				}
			}
			for what, res := range map[string]*http.Response{
				"refused by q":  get(h, "GET", "/app.js", "Accept-Encoding", "gzip;q=0"),
				"another":       get(h, "GET", "/app.js", "Accept-Encoding", "br"),
				"too small":     get(h, "GET", "/tiny.css", "Accept-Encoding", "gzip"),
				"a picture":     get(h, "GET", "/photo.png", "Accept-Encoding", "gzip"),
				"other letters": get(h, "GET", "/app.js", "Accept-Encoding", "gzipped"),
			} {
				if res.Header.Get("Content-Encoding") != "" {
					t.Errorf("%s: compressed", what)
				}
			}
		})
	}
}

func TestTypes(t *testing.T) {
	h := serve(t, bundleSite(t, map[string]string{
		"index.html": "x", "a.js": "x", "a.mjs": "x", "a.wasm": "x", "a.webmanifest": "{}", "a.ts": "x", "README": "words", "b.zzz9": "\x00\x01",
	}), DefaultHTTP(), DefaultFiles())
	for p, want := range map[string]string{
		"/": "text/html; charset=utf-8", "/a.js": "text/javascript; charset=utf-8", "/a.mjs": "text/javascript; charset=utf-8",
		"/a.wasm": "application/wasm", "/a.webmanifest": "application/manifest+json", "/a.ts": "text/plain; charset=utf-8",
		"/README": "text/plain; charset=utf-8", "/b.zzz9": "application/octet-stream",
	} {
		if got := get(h, "GET", p).Header.Get("Content-Type"); got != want {
			t.Errorf("%s is %q, want %q", p, got, want)
		}
	}
}

func TestMethods(t *testing.T) {
	h := serve(t, bundleSite(t, pages), DefaultHTTP(), DefaultFiles())
	res := get(h, "HEAD", "/tiny.css")
	if res.StatusCode != 200 || body(t, res) != "" || res.Header.Get("Content-Length") != "3" {
		t.Errorf("HEAD: %d %v", res.StatusCode, res.Header)
	}
	for _, m := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"} {
		if res := get(h, m, "/"); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", m, res.StatusCode, res.Header.Get("Allow"))
		}
	}
}

func TestCORS(t *testing.T) {
	head := DefaultHTTP()
	head.CORS = CORS{Enabled: true, AllowOrigin: "https://a.example", AllowMethods: []string{"GET"}, AllowHeaders: []string{"X-A"}}
	h := serve(t, bundleSite(t, pages), head, DefaultFiles())
	res := get(h, "GET", "/tiny.css", "Origin", "https://a.example")
	if res.Header.Get("Access-Control-Allow-Origin") != "https://a.example" {
		t.Errorf("allowed origin: %v", res.Header)
	}
	if res := get(h, "GET", "/tiny.css", "Origin", "https://a.example.evil"); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("other origin: %v", res.Header)
	}
	res = get(h, "OPTIONS", "/tiny.css", "Origin", "https://a.example", "Access-Control-Request-Method", "GET")
	if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Methods") != "GET" || res.Header.Get("Access-Control-Allow-Headers") != "X-A" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	res = get(h, "OPTIONS", "/tiny.css", "Origin", "https://b.example", "Access-Control-Request-Method", "GET")
	if res.Header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("preflight of another: %v", res.Header)
	}
	head.CORS.AllowOrigin = "*"
	h = serve(t, bundleSite(t, pages), head, DefaultFiles())
	if res := get(h, "GET", "/tiny.css"); res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("any origin: %v", res.Header)
	}
}

// TestG_S11_PolicyByDefault: a content security policy is sent with pages and
// errors, and a configured one replaces it.
func TestG_S11_PolicyByDefault(t *testing.T) {
	own := DefaultHTTP()
	own.Security.ContentSecurityPolicy = "default-src 'self'"
	own.CacheControl = "public, max-age=60"
	emptied := DefaultHTTP()
	emptied.Security = Security{}
	tests := []struct {
		name   string
		head   HTTP
		path   string
		policy string
		cache  string
		pragma string
		frame  string
	}{
		{"default", DefaultHTTP(), "/", DefaultPolicy, "no-cache, no-store, must-revalidate", "no-cache", "DENY"},
		{"default on an error", DefaultHTTP(), "/missing.js", DefaultPolicy, "no-cache, no-store, must-revalidate", "no-cache", "DENY"},
		{"configured", own, "/", "default-src 'self'", "public, max-age=60", "", "DENY"},
		{"emptied", emptied, "/", DefaultPolicy, "no-cache, no-store, must-revalidate", "no-cache", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := get(serve(t, bundleSite(t, pages), tt.head, DefaultFiles()), "GET", tt.path)
			got := []string{
				res.Header.Get("Content-Security-Policy"), res.Header.Get("Cache-Control"),
				res.Header.Get("Pragma"), res.Header.Get("X-Frame-Options"),
			}
			want := []string{tt.policy, tt.cache, tt.pragma, tt.frame}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("got %q, want %q", got[i], want[i])
				}
			}
		})
	}
}

func TestFallbackAndIndexAsConfigured(t *testing.T) {
	s := bundleSite(t, map[string]string{"app.html": "app", "sub/app.html": "sub"})
	h := serve(t, s, DefaultHTTP(), Files{IndexFile: "app.html", SPAFallback: false})
	for p, want := range map[string]int{"/": 200, "/sub/": 200, "/room": 404, "/index.html": 404} {
		if res := get(h, "GET", p); res.StatusCode != want {
			t.Errorf("%s is %d, want %d", p, res.StatusCode, want)
		}
	}
	if res := get(h, "GET", "/app.html"); res.StatusCode != 301 || res.Header.Get("Location") != "/" {
		t.Errorf("/app.html: %d", res.StatusCode)
	}
}

func TestValidate(t *testing.T) {
	with := func(change func(*HTTP)) HTTP {
		h := DefaultHTTP()
		change(&h)
		return h
	}
	tests := []struct {
		name string
		err  error
		ok   bool
	}{
		{"defaults", DefaultHTTP().Validate(), true},
		{"cors without origin", with(func(h *HTTP) { h.CORS.Enabled = true }).Validate(), false},
		{"cors with a path", with(func(h *HTTP) { h.CORS.Enabled, h.CORS.AllowOrigin = true, "https://a.example/x" }).Validate(), false},
		{"cors for all", with(func(h *HTTP) { h.CORS.Enabled, h.CORS.AllowOrigin = true, "*" }).Validate(), true},
		{"line break in a header", with(func(h *HTTP) { h.CacheControl = "a\r\nb" }).Validate(), false},
		{"default files", DefaultFiles().Validate(), true},
		{"index with a folder", Files{IndexFile: "a/b.html"}.Validate(), false},
		{"index hidden", Files{IndexFile: ".env"}.Validate(), false},
		{"no index", Files{}.Validate(), false},
	}
	for _, tt := range tests {
		if (tt.err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
}

func TestBundleIsReadOnce(t *testing.T) {
	files := &counted{FS: fstest.MapFS{"index.html": {Data: []byte("x")}}}
	s, err := FromFS("demo", files)
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, s, DefaultHTTP(), DefaultFiles())
	for range 3 {
		if res := get(h, "GET", "/"); res.StatusCode != 200 {
			t.Fatal(res.StatusCode)
		}
	}
	if files.reads != 1 {
		t.Errorf("read %d times", files.reads)
	}
}

type counted struct {
	fs.FS
	reads int
}

func (c *counted) Open(name string) (fs.File, error) {
	if name == "index.html" {
		c.reads++
	}
	return c.FS.Open(name)
}

func TestCacheHasABound(t *testing.T) {
	s := newStore(fstest.MapFS{}, true)
	block := make([]byte, cacheSize/8)
	for i := range 20 {
		s.keep(string(rune('a'+i)), block, "x")
		if s.bytes > cacheSize {
			t.Fatalf("%d bytes kept, limit %d", s.bytes, cacheSize)
		}
	}
	s.keep("huge", make([]byte, cacheSize/2), "x")
	if _, _, ok := s.known("huge"); ok {
		t.Error("one file took most of the cache")
	}
}

func TestOpenSaysWhy(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"/", "/a/../b", "//x", "/config/x", "/.git", "/%2e%2e/", `\..\`, "/CON"} {
		f.Add(p)
	}
	files := fstest.MapFS{"config/s": {Data: []byte("SECRET")}, ".s": {Data: []byte("SECRET")}, "index.html": {Data: []byte("x")}, "s.key": {Data: []byte("SECRET")}}
	s, err := FromFS("fuzz", files)
	if err != nil {
		f.Fatal(err)
	}
	h, err := s.Handler(DefaultHTTP(), DefaultFiles())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p string) {
		res := get(h, "GET", p)
		if strings.Contains(body(t, res), "SECRET") {
			t.Errorf("%q gave a secret away", p)
		}
		if loc := res.Header.Get("Location"); strings.HasPrefix(loc, "//") || strings.HasPrefix(loc, "/\\") {
			t.Errorf("%q leads to %q", p, loc)
		}
	})
}
