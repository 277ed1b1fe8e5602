package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// LaunchPath is where the launch link leads. The printed link's token is good as
// long as the process runs, so that a person can open a second browser with it;
// one that is opened is good once. The cookie that they are exchanged for is
// another secret.
const LaunchPath = "/_parley/launch"

// onceFor is how long a link that was opened may be followed.
const onceFor = 2 * time.Minute

// once holds the tokens of links that were opened and not yet followed.
type once struct {
	mu   sync.Mutex
	open map[string]time.Time // by token: until when
}

// OpenURL is the link to open a browser with. It lets in once, and soon: the
// command that opens a browser, and the browser's own, show their arguments to
// every user of the machine. With Auth None it is base itself.
func (p *Policy) OpenURL(base string) string {
	if p.cfg.Auth == None {
		return p.LaunchURL(base)
	}
	token := NewToken()
	p.once.mu.Lock()
	defer p.once.mu.Unlock()
	if p.once.open == nil {
		p.once.open = make(map[string]time.Time)
	}
	p.once.open[token] = time.Now().Add(onceFor)
	return strings.TrimSuffix(base, "/") + LaunchPath + "?token=" + token
}

// use takes a token that is good once. Looking it up tells nothing by its time: a
// map compares keys only where the hashes of the whole are the same.
func (o *once) use(token string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	until, ok := o.open[token]
	delete(o.open, token)
	return ok && time.Now().Before(until)
}

// LaunchURL is the link to print: base is "http://localhost:10000".
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
		if token := r.URL.Query().Get("token"); !p.launch.is(token) && !(r.Method == http.MethodGet && p.once.use(token)) {
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
		writePage(w, http.StatusOK, strings.ReplaceAll(onwardPage, "TO", "/"))
	default:
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

// onward marks an address that a browser was led to once.
const onward = "onward"

// sentFromElsewhere reports whether another site's page opened this window of the
// person's browser: then the cookie was kept back, and the same address must be
// asked for once more, from here.
func (p *Policy) sentFromElsewhere(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Method == http.MethodGet && p.Knows(r.Host) && !r.URL.Query().Has(onward) &&
		(site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}

// again leads the browser to the same address, as the node's own page.
func again(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	q.Set(onward, "1")
	secure(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	to := html.EscapeString(r.URL.EscapedPath() + "?" + q.Encode())
	writePage(w, http.StatusOK, strings.ReplaceAll(onwardPage, "TO", to))
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

// The two pages hold no text from outside but the escaped address (G-S10).
const (
	onwardPage = `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=TO">
<title>parley</title><style>:root{color-scheme:light dark}</style><p><a href="TO">Go on to the page</a></p></html>
`
	wayInPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>parley: not yet</title>
<meta name="viewport" content="width=device-width">
<style>:root{color-scheme:light dark}body{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em}code{background:#8882;padding:.1em .3em}</style>
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
