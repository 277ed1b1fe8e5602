package parley

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/parley-p2p/parley/client"
)

// TestCORSLetsReadTheSiteAlone: what http.cors allows is reading the site's
// files; the node itself keeps asking for its own Origin and a token.
func TestCORSLetsReadTheSiteAlone(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"index.html": "top", "data.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	site, err := OpenSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	const friend, stranger = "https://friend.example", "https://stranger.example"
	n := builtNode(t, func(c *Config) {
		c.Site = site
		c.HTTP.CORS.Enabled, c.HTTP.CORS.AllowOrigin = true, friend
		c.HTTP.CORS.AllowMethods = []string{"GET"}
	})
	own := "localhost:" + strconv.Itoa(n.port)
	tests := []struct {
		name, method, path, host, origin string
		want                             int
	}{
		{"a file", "GET", "/data.json", own, friend, 200},
		{"preflight", "OPTIONS", "/data.json", own, friend, 204},
		{"not to write", "POST", "/data.json", own, friend, 405},
		{"a stranger", "GET", "/data.json", own, stranger, 403},
		{"a stranger's preflight", "OPTIONS", "/data.json", own, stranger, 403},
		{"nobody", "GET", "/data.json", own, "", 401},
		{"another name of this machine", "GET", "/data.json", "evil.example", friend, 421},
		{"the node's status", "GET", "/_parley/status.json", own, friend, 403},
		{"the launch link", "GET", "/_parley/launch", own, friend, 403},
		{"the client", "GET", "/parley.js", own, friend, 403},
		{"the socket", "GET", "/ws", own, friend, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, nil)
			r.Host = tt.host
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			if tt.method == http.MethodOptions {
				r.Header.Set("Access-Control-Request-Method", "GET")
			}
			w := httptest.NewRecorder()
			n.server.Handler.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%d, want %d: %s", w.Code, tt.want, w.Body)
			}
			allowed := w.Header().Get("Access-Control-Allow-Origin") == friend
			if allowed != (tt.want < 300 || tt.want == 405) {
				t.Errorf("allowed origin %q", w.Header().Get("Access-Control-Allow-Origin"))
			}
		})
	}
}

// TestClientIsServed: every gateway answers with its own client, as a script that
// browsers run whatever the machine takes its ending for, and never with a file
// of the site; compressed for who takes that.
func TestClientIsServed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"index.html", "parley.js", "parley.d.ts"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("the site's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	site, err := OpenSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	for name, n := range map[string]*Node{"a site": builtNode(t, func(c *Config) { c.Site = site }), "no site": builtNode(t, func(*Config) {})} {
		token, err := n.data.Token()
		if err != nil {
			t.Fatal(err)
		}
		get := func(path, header, value string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = "localhost:" + strconv.Itoa(n.port)
			r.Header = http.Header{"Authorization": {"Bearer " + token}, "Accept-Encoding": {"br, gzip"}}
			r.Header.Set(header, value)
			w := httptest.NewRecorder()
			n.server.Handler.ServeHTTP(w, r)
			return w
		}
		for path, contentType := range map[string]string{"parley.js": "text/javascript; charset=utf-8", "parley.d.ts": "text/plain; charset=utf-8"} {
			want, err := fs.ReadFile(client.Files(), path)
			if err != nil {
				t.Fatal(err)
			}
			plain, packed := get("/"+path, "Accept-Encoding", "gzip;q=0"), get("/"+path, "Accept", "*/*")
			unpacked, err := gzip.NewReader(bytes.NewReader(packed.Body.Bytes()))
			if err != nil {
				t.Fatalf("%s, %s: %v %v", name, path, err, packed.Header())
			}
			if text, err := io.ReadAll(unpacked); err != nil || !bytes.Equal(text, want) || packed.Body.Len() > len(want)/2 {
				t.Errorf("%s, %s: %d bytes for %d, %v", name, path, packed.Body.Len(), len(want), err)
			}
			if plain.Body.String() != string(want) || plain.Header().Get("Content-Encoding") != "" || packed.Header().Get("Content-Encoding") != "gzip" {
				t.Errorf("%s, %s: %v and %v", name, path, plain.Header(), packed.Header())
			}
			tag, tagPacked := plain.Header().Get("Etag"), packed.Header().Get("Etag")
			if tag == tagPacked {
				t.Errorf("%s, %s: one tag for two bodies", name, path)
			}
			for _, w := range []*httptest.ResponseRecorder{plain, packed} {
				if w.Code != 200 || w.Header().Get("Content-Type") != contentType || w.Header().Get("Vary") != "Accept-Encoding" {
					t.Errorf("%s, %s: %d %v", name, path, w.Code, w.Header())
				}
			}
			if again := get("/"+path, "If-None-Match", tagPacked); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
				t.Errorf("%s, %s: %d for the one that the browser has", name, path, again.Code)
			}
			if again := get("/"+path, "If-None-Match", tag); again.Code != 200 {
				t.Errorf("%s, %s: %d for the tag of the other body", name, path, again.Code)
			}
			if part := get("/"+path, "Range", "bytes=1-9"); part.Code != http.StatusPartialContent || part.Body.String() != string(want[1:10]) || part.Header().Get("Etag") != tag {
				t.Errorf("%s, %s: %d %v %q for a part", name, path, part.Code, part.Header(), part.Body)
			}
		}
	}
}
