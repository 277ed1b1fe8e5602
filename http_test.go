package parley

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
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
