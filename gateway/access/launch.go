package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

// LaunchPath is where the launch link leads. Its token is good as long as the
// process runs, so that a person can open a second browser with the link that
// was printed; the cookie that it is exchanged for is another secret.
const LaunchPath = "/_parley/launch"

// LaunchURL is the link to print and to open: base is "http://localhost:10000".
// It holds a secret: it belongs on the person's terminal and in no log. With
// Auth None it is base itself.
func (p *Policy) LaunchURL(base string) string {
	base = strings.TrimSuffix(base, "/")
	if p.cfg.Auth == None {
		return base + "/"
	}
	return base + LaunchPath + "?token=" + p.launch.text
}

// follow exchanges the launch token for the cookie and leads to the page.
func (p *Policy) follow(w http.ResponseWriter, r *http.Request) {
	var v Visitor
	v.Addr = remoteAddr(r)
	switch {
	case !p.hosts[strings.ToLower(r.Host)]:
		p.refuse(w, r, http.StatusMisdirectedRequest, "this name is not one of the node's own; see server.hosts")
		return
	case !readOnly(r):
		w.Header().Set("Allow", "GET, HEAD")
		p.refuse(w, r, http.StatusMethodNotAllowed, "only GET")
		return
	}
	if reason := p.origin(r, &v); reason != "" {
		p.refuse(w, r, http.StatusForbidden, reason)
		return
	}
	if p.cfg.Auth == Link {
		if !p.launch.is(r.URL.Query().Get("token")) {
			if p.count(w, r, v) {
				p.unauthorized(w, r)
			}
			return
		}
		http.SetCookie(w, &http.Cookie{Name: p.cookie, Value: p.session.text, Path: "/",
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: p.cfg.Secure})
	}
	lead(w, r)
}

// lead sends the browser on. A link that was followed from another site is
// answered with a page that goes on by itself: behind a redirect the browser
// would still count the other site as the one that asks, and keep the cookie.
func lead(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		writePage(w, http.StatusOK, onwardPage)
	default:
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

// unauthorized tells a person how to get in, and a program that it has no token.
func (p *Policy) unauthorized(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("WWW-Authenticate", `Bearer realm="parley"`)
	if strings.Contains(r.Header.Get("Accept"), "text/html") && !upgrades(r) {
		writePage(w, http.StatusUnauthorized, wayInPage)
		return
	}
	http.Error(w, "a token is needed: parley token prints one, send it as Authorization: Bearer", http.StatusUnauthorized)
}

func writePage(w http.ResponseWriter, status int, page string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(page))
}

// secure sets what every answer of the policy has.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
}

// The two pages hold no text from outside (G-S10).
const (
	onwardPage = `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">
<title>parley</title><p><a href="/">Go on to the page</a></p></html>
`
	wayInPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>parley: not yet</title>
<meta name="viewport" content="width=device-width">
<style>body{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em}code{background:#8882;padding:.1em .3em}</style>
<h1>This page needs its launch link</h1>
<p>parley runs here, but this browser has not been let in yet.</p>
<ol>
<li>Look at the terminal where parley was started.</li>
<li>Open the address that it printed. It has <code>/_parley/launch</code> in it and is new each time parley starts.</li>
</ol>
<p>Programs send a token instead: <code>parley token</code> prints it.</p></html>
`
)

// secret is a token that is compared in constant time. An empty one matches
// nothing.
type secret struct {
	text string
	sum  [sha256.Size]byte
}

func newSecret() secret {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	return secretOf(base64.RawURLEncoding.EncodeToString(raw))
}

func secretOf(text string) secret { return secret{text: text, sum: sha256.Sum256([]byte(text))} }

// is compares digests, so that neither length nor content shows in time.
func (s secret) is(given string) bool {
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], s.sum[:]) == 1 && s.text != ""
}

// NewToken makes a token for Config.Bearer.
func NewToken() string { return newSecret().text }

// Redacted is a request's URL for logs: without its query, which may hold a
// token (abuse row 5).
func Redacted(u *url.URL) string { return u.EscapedPath() }
