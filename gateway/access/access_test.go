package access_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bearer = "a-bearer-token"

// node is a policy before a handler that says who came in, over real HTTP.
type node struct {
	policy *access.Policy
	url    string
	port   string
	log    *bytes.Buffer
	admit  bool // what comes is a page's socket
}

func newNode(t *testing.T, cfg access.Config) *node {
	t.Helper()
	n := &node{log: &bytes.Buffer{}}
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	n.url, n.port = server.URL, u.Port()
	if cfg.Port, err = strconv.Atoi(n.port); err != nil {
		t.Fatal(err)
	}
	cfg.Bearer = bearer
	cfg.Log = slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if n.policy, err = access.New(cfg); err != nil {
		t.Fatal(err)
	}
	in := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") })
	wrapped := n.policy.Wrap(in)
	handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.admit {
			wrapped.ServeHTTP(w, r)
		} else if _, ok := n.policy.AdmitPage(w, r); ok {
			in(w, r)
		}
	})
	return n
}

// answer is what a request got.
type answer struct {
	status int
	body   string
	header http.Header
}

// ask makes a request. Header values are set in pairs; "Host" sets the Host.
func (n *node) ask(t *testing.T, method, path string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, n.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(body), resp.Header}
}

// launched follows the launch link and gives the cookie, as a Cookie header.
func (n *node) launched(t *testing.T) string {
	t.Helper()
	link := n.policy.LaunchURL(n.url)
	a := n.ask(t, "GET", strings.TrimPrefix(link, n.url))
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/" {
		t.Fatalf("launch link: %d to %q", a.status, a.header.Get("Location"))
	}
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return cookie
}

func (n *node) launchToken() string {
	_, token, _ := strings.Cut(n.policy.LaunchURL(n.url), "token=")
	return token
}

// upgrade is the headers of a WebSocket upgrade.
var upgrade = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}

func with(base []string, more ...string) []string {
	return append(append([]string{}, base...), more...)
}

func TestAbuse01_OriginOfAnotherSite(t *testing.T) {
	n := newNode(t, access.Config{Origins: []string{"https://app.example.org"}})
	cookie := n.launched(t)
	own := "http://localhost:" + n.port
	tests := []struct {
		origin string
		status int
	}{
		{own, 200},
		{"http://127.0.0.1:" + n.port, 200},
		{"http://[::1]:" + n.port, 200},
		{strings.ToUpper(own), 200},
		{"https://app.example.org", 200},
		{"https://evil.example", 403},
		{"null", 403},
		{"", 403},
		{"https://localhost:" + n.port, 403},
		{"http://localhost", 403},
		{"http://localhost:1", 403},
		{own + ".evil.example", 403},
		{own + "/", 403},
		{"http://evil.localhost:" + n.port, 403},
		{"https://app.example.org.evil.example", 403},
		{"https://app.example.org:8443", 403},
		{"http://app.example.org", 403},
		{"file://", 403},
	}
	for _, tt := range tests {
		for _, kind := range [][]string{nil, upgrade} {
			got := n.ask(t, "GET", "/", with(kind, "Origin", tt.origin, "Cookie", cookie)...)
			if got.status != tt.status {
				t.Errorf("origin %q, upgrade %v: %d, want %d", tt.origin, kind != nil, got.status, tt.status)
			}
		}
	}
	if got := n.ask(t, "GET", "/", "Origin", own, "Origin", "https://evil.example", "Cookie", cookie); got.status != 403 {
		t.Errorf("two origins: %d", got.status)
	}
}

func TestAbuse02_HostOfAnotherSite(t *testing.T) {
	n := newNode(t, access.Config{})
	cookie := n.launched(t)
	// Even with everything else right: that is what DNS rebinding looks like.
	for _, origin := range []string{"http://localhost:" + n.port, "http://evil.example"} {
		got := n.ask(t, "GET", "/", "Host", "evil.example", "Origin", origin, "Cookie", cookie, "Authorization", "Bearer "+bearer)
		if got.status != http.StatusMisdirectedRequest {
			t.Errorf("origin %s: %d, want 421", origin, got.status)
		}
	}
	if got := n.ask(t, "GET", "/_parley/launch?token="+n.launchToken(), "Host", "evil.example"); got.status != 421 || got.header.Get("Set-Cookie") != "" {
		t.Errorf("launch link by another name: %d %v", got.status, got.header)
	}
}

func TestAbuse03_HostsThatLookAlmostRight(t *testing.T) {
	n := newNode(t, access.Config{Hosts: []string{"Node.example.org", "https://proxy.example.org", "fixed.example.org:8443"}})
	tests := []struct {
		host   string
		status int
	}{
		{"localhost:PORT", 200}, {"LocalHost:PORT", 200}, {"127.0.0.1:PORT", 200}, {"[::1]:PORT", 200},
		{"node.example.org:PORT", 200}, {"node.example.org", 200}, {"proxy.example.org", 200}, {"fixed.example.org:8443", 200},
		{"127.evil.com:PORT", 421}, {"127.0.0.1.evil.com:PORT", 421}, {"localhost.evil.com:PORT", 421}, {"evillocalhost:PORT", 421},
		{"[::ffff:127.0.0.1]:PORT", 421}, {"[0:0:0:0:0:0:0:1]:PORT", 421}, {"127.1:PORT", 421}, {"2130706433:PORT", 421},
		{"localhost.:PORT", 421}, {"node.example.org.", 421}, {"node.example.org.:PORT", 421},
		{"localhost", 421}, {"localhost:1", 421}, {"localhost:0PORT", 421}, {"localhost:PORT0", 421}, {"localhost:", 421},
		{"localhost:PORT:PORT", 421}, {"127.0.0.2:PORT", 421}, {"0.0.0.0:PORT", 421}, {"sub.node.example.org:PORT", 421},
		{"fixed.example.org", 421}, {"fixed.example.org:PORT", 421}, {"user@localhost:PORT", 421},
	}
	for _, tt := range tests {
		host := strings.ReplaceAll(tt.host, "PORT", n.port)
		t.Run(tt.host, func(t *testing.T) {
			got := n.ask(t, "GET", "/", "Host", host, "Authorization", "Bearer "+bearer)
			if got.status != tt.status && !(tt.status == 421 && got.status == 400) { // net/http refuses some itself
				t.Errorf("%d, want %d", got.status, tt.status)
			}
		})
	}
}

func TestAbuse04_ProgramWithoutToken(t *testing.T) {
	n := newNode(t, access.Config{})
	cookie := n.launched(t)
	own := "http://localhost:" + n.port
	tests := []struct {
		name   string
		header []string
		status int
	}{
		{"nothing", nil, 401},
		{"upgrade with nothing", upgrade, 401},
		{"own origin, no token", with(upgrade, "Origin", own), 401},
		{"upgrade with a cookie, but no origin", with(upgrade, "Cookie", cookie), 401},
		{"upgrade with cookie and origin", with(upgrade, "Cookie", cookie, "Origin", own), 200},
		{"upgrade with bearer", with(upgrade, "Authorization", "Bearer "+bearer), 200},
		{"bearer in any case", with(upgrade, "Authorization", "bearer "+bearer), 200},
		{"wrong bearer", with(upgrade, "Authorization", "Bearer "+bearer+"x"), 401},
		{"empty bearer", with(upgrade, "Authorization", "Bearer "), 401},
		{"basic", with(upgrade, "Authorization", "Basic "+bearer), 401},
		{"GET of a page with the cookie", []string{"Cookie", cookie}, 200},
		{"the launch token as cookie", []string{"Cookie", "parley-" + n.port + "=" + n.launchToken()}, 401},
		{"the launch token as bearer", []string{"Authorization", "Bearer " + n.launchToken()}, 401},
		{"another site's script asks with the cookie", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"a link from another site", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := n.ask(t, "GET", "/", tt.header...); got.status != tt.status {
				t.Errorf("%d, want %d: %s", got.status, tt.status, got.body)
			}
		})
	}
	if got := n.ask(t, "POST", "/", "Cookie", cookie); got.status != 401 {
		t.Errorf("POST with a cookie and no origin: %d", got.status)
	}
	if got := n.ask(t, "POST", "/", "Cookie", cookie, "Origin", own); got.status != 200 {
		t.Errorf("POST with cookie and origin: %d", got.status)
	}
}

func TestAbuse05_TokenInAQueryString(t *testing.T) {
	n := newNode(t, access.Config{})
	good, bad := n.launchToken(), "guessed-token-in-the-query"
	for _, path := range []string{"/?token=" + bearer, "/ws?access_token=" + bearer} {
		if got := n.ask(t, "GET", path); got.status != 401 {
			t.Errorf("%s lets in: %d", path, got.status)
		}
	}
	answers := []answer{
		n.ask(t, "GET", "/_parley/launch?token="+good),
		n.ask(t, "GET", "/_parley/launch?token="+bad),
		n.ask(t, "GET", "/_parley/launch?token="+bad, "Accept", "text/html"),
		n.ask(t, "GET", "/_parley/launch?token="+good, "Host", "evil.example"),
		n.ask(t, "GET", "/_parley/launch?token="+good, "Origin", "https://evil.example"),
		n.ask(t, "POST", "/_parley/launch?token="+good),
		n.ask(t, "GET", "/?token="+bad, "Origin", "https://evil.example"),
	}
	for i, a := range answers {
		seen := a.body + fmt.Sprint(a.header)
		for _, secret := range []string{good, bad, bearer} {
			if strings.Contains(seen, secret) {
				t.Errorf("answer %d shows a token: %s", i, seen)
			}
		}
	}
	if n.log.Len() == 0 {
		t.Error("nothing was logged: this test can't see anything")
	}
	for _, secret := range []string{good, bad, bearer, "token="} {
		if strings.Contains(n.log.String(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	if got := access.Redacted(&url.URL{Path: "/a b", RawQuery: "token=" + good}); got != "/a%20b" {
		t.Errorf("redacted: %s", got)
	}
}

func TestAbuse06_TokenOfAnotherApp(t *testing.T) {
	a, b := newNode(t, access.Config{}), newNode(t, access.Config{})
	cookie := a.launched(t)
	_, value, _ := strings.Cut(cookie, "=")
	for name, header := range map[string][]string{
		"cookie of the other node": {"Cookie", cookie},
		"its value under our name": {"Cookie", "parley-" + b.port + "=" + value},
		"its launch token":         {"Cookie", "parley-" + b.port + "=" + a.launchToken()},
	} {
		if got := b.ask(t, "GET", "/", header...); got.status != 401 {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	if got := b.ask(t, "GET", "/_parley/launch?token="+a.launchToken()); got.status != 401 || got.header.Get("Set-Cookie") != "" {
		t.Errorf("launch with the other's token: %d", got.status)
	}
}

func TestAbuse07_GuessingTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := access.New(access.Config{Port: 10000, Bearer: bearer, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		try := func(addr, token string) (int, http.Header) {
			r := httptest.NewRequest("GET", "http://localhost:10000/ws", nil)
			r.RemoteAddr = addr
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			if _, ok := p.Admit(w, r); ok {
				return 200, nil
			}
			return w.Code, w.Header()
		}
		for i := range 10 {
			if got, _ := try("192.0.2.1:1", "guess"); got != 401 {
				t.Fatalf("guess %d: %d, want 401", i, got)
			}
		}
		got, header := try("192.0.2.1:2", "guess")
		if got != 429 || header.Get("Retry-After") == "" {
			t.Fatalf("eleventh guess: %d %v, want 429 with Retry-After", got, header)
		}
		if got, _ := try("192.0.2.2:1", "guess"); got != 401 {
			t.Errorf("another address: %d, want 401", got)
		}
		if got, _ := try("192.0.2.1:1", bearer); got != 200 {
			t.Errorf("the right token: %d, want 200: guessing must not lock the owner out", got)
		}
		for i := range 10 {
			_, _ = try(netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)}), 1).String(), "guess")
		}
		if got, _ := try("[2001::ff]:1", "guess"); got != 429 {
			t.Errorf("another address of the same 64 bits: %d, want 429", got)
		}
		time.Sleep(time.Minute)
		if got, _ := try("192.0.2.1:1", "guess"); got != 401 {
			t.Errorf("a minute later: %d, want 401", got)
		}
	})
}

func TestAbuse08_WhatMustNotStart(t *testing.T) {
	tests := []struct {
		name string
		cfg  access.Config
		code identity.Code
	}{
		{"loopback, link", access.Config{}, ""},
		{"loopback, none", access.Config{Auth: access.None}, ""},
		{"loopback, any origin", access.Config{Anywhere: true}, ""},
		{"exposed with TLS and tokens", access.Config{Exposed: true, Secure: true}, ""},
		{"exposed without TLS", access.Config{Exposed: true}, identity.CodeForbidden},
		{"exposed without tokens", access.Config{Exposed: true, Secure: true, Auth: access.None}, identity.CodeForbidden},
		{"exposed to any origin", access.Config{Exposed: true, Secure: true, Anywhere: true}, identity.CodeForbidden},
		{"unknown auth", access.Config{Auth: "maybe"}, identity.CodeMalformed},
		{"an origin without scheme", access.Config{Origins: []string{"app.example.org"}}, identity.CodeMalformed},
		{"an origin with a path", access.Config{Origins: []string{"https://app.example.org/"}}, identity.CodeMalformed},
		{"any origin as a pattern", access.Config{Origins: []string{"https://*"}}, identity.CodeMalformed},
		{"null as an origin", access.Config{Origins: []string{"null"}}, identity.CodeMalformed},
		{"a host with a trailing dot", access.Config{Hosts: []string{"node.example.org."}}, identity.CodeMalformed},
		{"a host with a path", access.Config{Hosts: []string{"node.example.org/x"}}, identity.CodeMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Log = slog.New(slog.DiscardHandler)
			if _, err := access.New(tt.cfg); identity.CodeOf(err) != tt.code {
				t.Errorf("%v, want code %q", err, tt.code)
			}
		})
	}
}

func TestG_S1_AllThreeAreAsked(t *testing.T) {
	n := newNode(t, access.Config{})
	own := []string{"Origin", "http://localhost:" + n.port, "Authorization", "Bearer " + bearer, "Host", "localhost:" + n.port}
	if got := n.ask(t, "GET", "/ws", with(upgrade, own...)...); got.status != 200 {
		t.Fatalf("all right: %d", got.status)
	}
	for i, wrong := range []string{"http://evil.example", "Bearer no", "evil.example"} {
		header := with(upgrade, own...)
		header[len(upgrade)+2*i+1] = wrong
		if got, want := n.ask(t, "GET", "/ws", header...), []int{403, 401, 421}[i]; got.status != want {
			t.Errorf("%s wrong: %d, want %d", own[2*i], got.status, want)
		}
	}
}

func TestLaunch_CookieIsStrict(t *testing.T) {
	n := newNode(t, access.Config{})
	path := "/_parley/launch?token=" + n.launchToken()
	for range 2 { // the printed link works for a second browser too
		a := n.ask(t, "GET", path)
		set := a.header.Get("Set-Cookie")
		for _, want := range []string{"parley-" + n.port + "=", "HttpOnly", "SameSite=Strict", "Path=/"} {
			if !strings.Contains(set, want) {
				t.Errorf("cookie %q lacks %s", set, want)
			}
		}
		if strings.Contains(set, n.launchToken()) || strings.Contains(set, "Domain") {
			t.Errorf("cookie %q", set)
		}
		if a.header.Get("Referrer-Policy") != "no-referrer" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers %v", a.header)
		}
	}
	if a := n.ask(t, "GET", path, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"); a.status != 200 ||
		a.header.Get("Set-Cookie") == "" || !strings.Contains(a.body, `content="0;url=/"`) {
		t.Errorf("from another site: %d %s", a.status, a.body)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Jar: jar}).Get(n.policy.LaunchURL(n.url))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != "in" {
		t.Errorf("a browser that follows the link: %d %s", resp.StatusCode, body)
	}
}

// What a browser is opened with is seen by every user of the machine: it is worth
// nothing once it was followed, or after a while.
func TestLaunch_OpenedLinkIsGoodOnce(t *testing.T) {
	n := newNode(t, access.Config{})
	path := strings.TrimPrefix(n.policy.OpenURL(n.url+"/"), n.url)
	if strings.Contains(path, n.launchToken()) {
		t.Fatal("the printed link is shown")
	}
	if a := n.ask(t, "HEAD", path); a.status != 401 {
		t.Errorf("a look at the link: %d", a.status)
	}
	if a := n.ask(t, "GET", path, "Host", "evil.example"); a.status != 421 {
		t.Errorf("by another name: %d", a.status)
	}
	if a := n.ask(t, "GET", path); a.status != 303 || a.header.Get("Set-Cookie") == "" {
		t.Errorf("followed: %d", a.status)
	}
	if a := n.ask(t, "GET", path); a.status != 401 || a.header.Get("Set-Cookie") != "" {
		t.Errorf("followed again: %d", a.status)
	}
	synctest.Test(t, func(t *testing.T) {
		p, err := access.New(access.Config{Port: 10000, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		follow := func(link string) int {
			w := httptest.NewRecorder()
			p.Wrap(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", link, nil))
			return w.Code
		}
		one, other := p.OpenURL("http://localhost:10000"), p.OpenURL("http://localhost:10000")
		time.Sleep(time.Minute)
		if got := follow(one); got != 303 {
			t.Errorf("after a minute: %d", got)
		}
		time.Sleep(time.Minute)
		if got := follow(other); got != 401 {
			t.Errorf("after two: %d", got)
		}
	})
	none := newNode(t, access.Config{Auth: access.None})
	if got := none.policy.OpenURL(none.url); got != none.url+"/" {
		t.Errorf("without tokens: %s", got)
	}
}

func TestLaunch_PersonsAndProgramsAreTold(t *testing.T) {
	n := newNode(t, access.Config{})
	person := n.ask(t, "GET", "/", "Accept", "text/html,application/xhtml+xml")
	if person.status != 401 || !strings.Contains(person.body, "launch link") || !strings.HasPrefix(person.header.Get("Content-Type"), "text/html") ||
		!strings.Contains(person.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("a person gets %d %v %s", person.status, person.header, person.body)
	}
	program := n.ask(t, "GET", "/", "Accept", "*/*")
	if program.status != 401 || !strings.Contains(program.body, "parley token") || strings.Contains(program.body, "<") {
		t.Errorf("a program gets %d %s", program.status, program.body)
	}
}

func TestLaunch_WithoutAuth(t *testing.T) {
	n := newNode(t, access.Config{Auth: access.None})
	if got := n.policy.LaunchURL(n.url + "/"); got != n.url+"/" {
		t.Errorf("link %s", got)
	}
	if got := n.ask(t, "GET", "/"); got.status != 200 {
		t.Errorf("page: %d", got.status)
	}
	if got := n.ask(t, "GET", "/", "Origin", "https://evil.example"); got.status != 403 {
		t.Errorf("another origin: %d", got.status)
	}
	if got := n.ask(t, "GET", "/_parley/launch"); got.status != 303 || got.header.Get("Set-Cookie") != "" {
		t.Errorf("launch: %d %v", got.status, got.header)
	}
}
