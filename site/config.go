package site

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// HTTP is the [http] section of the configuration: the headers that go with
// every page (gateway.md §9).
type HTTP struct {
	CacheControl string   `toml:"cacheControl"` // with "no-cache" in it, Pragma and Expires say so too
	Security     Security `toml:"security"`
	CORS         CORS     `toml:"cors"`
}

// Security has the headers that keep a page from being misused. An empty value
// leaves its header out, except for the policy, which is then the default one.
type Security struct {
	XContentTypeOptions   string `toml:"xContentTypeOptions"`
	XFrameOptions         string `toml:"xFrameOptions"`
	ContentSecurityPolicy string `toml:"contentSecurityPolicy"`
}

// CORS lets pages of another origin read this site's files. It does not let
// them use the node: that is for websocket.allowedOrigins and the person.
type CORS struct {
	Enabled      bool     `toml:"enabled"`
	AllowOrigin  string   `toml:"allowOrigin"` // one origin, or "*"
	AllowMethods []string `toml:"allowMethods"`
	AllowHeaders []string `toml:"allowHeaders"`
}

// Files is the [files] section of the configuration.
type Files struct {
	IndexFile   string `toml:"indexFile"`   // what a folder shows; a name without slashes
	SPAFallback bool   `toml:"spaFallback"` // unknown paths without an extension show the top index file
}

// DefaultPolicy lets existing pages run as they are, and refuses what they
// hardly need: being framed, a foreign <base>, plug-ins.
const DefaultPolicy = "frame-ancestors 'none'; base-uri 'self'; object-src 'none'"

// DefaultHTTP gives the [http] section without a configuration.
func DefaultHTTP() HTTP {
	return HTTP{
		CacheControl: "no-cache, no-store, must-revalidate", // a page that is being written must not stick
		Security: Security{
			XContentTypeOptions:   "nosniff",
			XFrameOptions:         "DENY",
			ContentSecurityPolicy: DefaultPolicy,
		},
	}
}

// DefaultFiles gives the [files] section without a configuration.
func DefaultFiles() Files { return Files{IndexFile: "index.html", SPAFallback: true} }

// Validate says what can't be served as configured.
func (c HTTP) Validate() error {
	for _, h := range []struct{ key, value string }{
		{"http.cacheControl", c.CacheControl},
		{"http.security.xContentTypeOptions", c.Security.XContentTypeOptions},
		{"http.security.xFrameOptions", c.Security.XFrameOptions},
		{"http.security.contentSecurityPolicy", c.Security.ContentSecurityPolicy},
		{"http.cors.allowMethods", strings.Join(c.CORS.AllowMethods, "")},
		{"http.cors.allowHeaders", strings.Join(c.CORS.AllowHeaders, "")},
	} {
		if strings.ContainsFunc(h.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%s: a header can't hold control characters", h.key)
		}
	}
	if !c.CORS.Enabled || c.CORS.AllowOrigin == "*" {
		return nil
	}
	if c.CORS.AllowOrigin == "" {
		return errors.New(`http.cors.allowOrigin: cors is enabled, so name an origin, or "*"`)
	}
	u, err := url.Parse(c.CORS.AllowOrigin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" {
		return fmt.Errorf("http.cors.allowOrigin: %q is no origin such as https://example.com", c.CORS.AllowOrigin)
	}
	return nil
}

// Validate says what is wrong with the section.
func (c Files) Validate() error {
	if c.IndexFile == "" || path.Base(c.IndexFile) != c.IndexFile || hidden(c.IndexFile) {
		return fmt.Errorf("files.indexFile: %q is no name of a file that may be served", c.IndexFile)
	}
	return nil
}
