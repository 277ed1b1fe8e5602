// Package access decides who may talk to a node over HTTP: Host, Origin and
// token, all three, before any state is made (gateway.md §2.8).
//
//	policy, err := access.New(access.Config{Port: 10000, Auth: access.Link, …})
//	http.Handle("/", policy.Wrap(site))      every endpoint that acts
//	fmt.Println(policy.LaunchURL(base))      the way in for a person
//
//	             Host       Origin               token
//	request ──▶ ours? ──▶ ours or listed? ──▶ cookie or bearer? ──▶ handler
//	             421        403                  401, 429
//
// Host alone doesn't stop other pages of the browser, Origin alone doesn't stop
// DNS rebinding, and neither stops programs.
package access

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/consent"
	"github.com/parley-p2p/parley/identity"
)

// Mode says how a visitor proves that it may come in.
type Mode string

// The modes.
const (
	Link Mode = "link" // a cookie from the launch link, or a bearer token; the default
	None Mode = "none" // nothing; only on loopback
)

// Config says what a Policy allows. The zero value of a field is the safe one.
type Config struct {
	Port     int      // the port that is bound
	Exposed  bool     // something other than loopback is listened on
	Secure   bool     // the node itself serves TLS
	Hosts    []string // further names of the node: "node.example.org", "node.example.org:8443", or with "https://" in front where a proxy adds TLS
	Origins  []string // further origins whose pages may connect: "https://app.example.org"
	Anywhere bool     // don't compare origins; only on loopback

	Auth   Mode   // Link when empty
	Bearer string // what programs send; empty: no program gets in
	Grants Grants // what pages of other sites were allowed; nil: nothing

	Log *slog.Logger // nil: nothing is logged
}

// Grants says what a person allowed the pages of other sites.
type Grants interface {
	// Scope is what a page of an origin may use with its token.
	Scope(origin, token string) (consent.Scope, bool)
	// Refused is told of a page's origin that tried to connect and may not.
	Refused(origin string)
}

// GrantPrefix begins the subprotocol that carries a grant's token: a page can
// send no header of its own, and a URL would be logged (abuse row 5).
const GrantPrefix = "parley.grant."

// Policy is the rule for one node. It is safe for several goroutines.
type Policy struct {
	cfg     Config
	hosts   map[string]bool // allowed Host headers, lower case
	origins map[string]bool // origin → is the node's own
	cookie  string          // its name
	launch  secret
	once    once   // links that were opened
	session secret // the cookie's value; new each launch
	bearer  secret
	refused *flow.Buckets[netip.Addr]
}

// Ten refused tokens in a minute are a mistake; more are an attack.
const (
	refusedPerMinute = 10
	refusedAddresses = 4096 // addresses remembered at once
)

// New makes the policy of one launch, with fresh secrets. It fails for what must
// not be started: anything but loopback without TLS and tokens (abuse row 8).
func New(cfg Config) (*Policy, error) {
	if cfg.Auth == "" {
		cfg.Auth = Link
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("component", "access")
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p := &Policy{
		cfg: cfg, cookie: "parley-" + strconv.Itoa(cfg.Port),
		launch: newSecret(), session: newSecret(), bearer: secretOf(cfg.Bearer),
		refused: flow.NewBuckets[netip.Addr](refusedPerMinute/60.0, refusedPerMinute, refusedAddresses),
	}
	return p, p.fillNames()
}

func (cfg Config) check() error {
	switch {
	case cfg.Auth != Link && cfg.Auth != None:
		return identity.Errorf(identity.CodeMalformed, "auth is %q, not \"link\" or \"none\"", cfg.Auth)
	case cfg.Exposed && cfg.Auth == None:
		return identity.Errorf(identity.CodeForbidden, "--auth none is for loopback alone")
	case cfg.Exposed && !cfg.Secure:
		return identity.Errorf(identity.CodeForbidden, "listening on anything but loopback needs TLS: tokens would be readable on the way")
	case cfg.Exposed && cfg.Anywhere:
		return identity.Errorf(identity.CodeForbidden, "websocket.checkOrigin = false is for loopback alone")
	}
	return nil
}

// fillNames makes the two lists that requests are compared with, as whole strings.
func (p *Policy) fillNames() error {
	p.hosts, p.origins = map[string]bool{}, map[string]bool{}
	scheme := "http"
	if p.cfg.Secure {
		scheme = "https"
	}
	for _, name := range []string{"localhost", "127.0.0.1", "[::1]"} {
		p.addHost(scheme, name)
	}
	for _, entry := range p.cfg.Hosts {
		s, name, found := strings.Cut(strings.ToLower(entry), "://")
		if !found {
			s, name = scheme, s
		}
		if !validHost(name) || (s != "http" && s != "https") {
			return identity.Errorf(identity.CodeMalformed, "server.hosts: %q is not a host name", entry)
		}
		p.addHost(s, name)
	}
	for _, entry := range p.cfg.Origins {
		s, name, found := strings.Cut(strings.ToLower(entry), "://")
		if !found || s == "" || !validHost(name) {
			return identity.Errorf(identity.CodeMalformed, "websocket.allowedOrigins: %q is not scheme://host", entry)
		}
		if key := s + "://" + name; !p.origins[key] {
			p.origins[key] = false
		}
	}
	return nil
}

// addHost allows a name with the bound port, with its scheme's default port left
// out where that is the bound one or a proxy's, or just as it is when it names a
// port itself.
func (p *Policy) addHost(scheme, name string) {
	withPort := hasPort(name)
	if !withPort {
		full := name + ":" + strconv.Itoa(p.cfg.Port)
		p.hosts[full], p.origins[scheme+"://"+full] = true, true
	}
	local := name == "localhost" || name == "127.0.0.1" || name == "[::1]"
	if withPort || !local || p.cfg.Port == defaultPort(scheme) {
		p.hosts[name], p.origins[scheme+"://"+name] = true, true
	}
}

func defaultPort(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}

func hasPort(name string) bool {
	return strings.LastIndexByte(name, ':') > strings.LastIndexByte(name, ']')
}

func validHost(name string) bool {
	return name != "" && !strings.HasSuffix(name, ".") && !strings.ContainsAny(name, "/?#@\\ \t\"'<>*")
}

// Visitor is who made a request that was let in.
type Visitor struct {
	Addr    netip.Addr     // of the connection
	Origin  string         // of the page, lower case; empty for a program
	Foreign bool           // Origin isn't one of the node's own
	Scope   *consent.Scope // all that a page with a grant may use; nil: anything
}

// Knows reports whether a request's Host is one of the node's own names.
func (p *Policy) Knows(host string) bool { return p.hosts[strings.ToLower(host)] }

// Admit checks a request. Where it is refused the answer has been written and ok
// is false. No secret reaches an answer or a log.
func (p *Policy) Admit(w http.ResponseWriter, r *http.Request) (v Visitor, ok bool) {
	v.Addr = remoteAddr(r)
	if !p.Knows(r.Host) {
		p.refuse(w, r, http.StatusMisdirectedRequest, "this name is not one of the node's own; see server.hosts")
		return v, false
	}
	if reason := p.origin(r, &v); reason != "" {
		p.refuse(w, r, http.StatusForbidden, reason)
		return v, false
	}
	return v, p.token(w, r, v)
}

// AdmitPage checks an upgrade of a page: as Admit, but a page of another site may
// come in with the grant of a person, for that origin alone. Then Visitor.Scope
// says what it may use. The three checks are the same: Host, an Origin that
// somebody listed, a token that is its own.
func (p *Policy) AdmitPage(w http.ResponseWriter, r *http.Request) (v Visitor, ok bool) {
	token, given := grantOf(r)
	if p.cfg.Grants == nil || !p.Knows(r.Host) || len(r.Header.Values("Origin")) != 1 {
		return p.Admit(w, r)
	}
	v = Visitor{Addr: remoteAddr(r), Origin: strings.ToLower(r.Header.Get("Origin")), Foreign: true}
	own, listed := p.origins[v.Origin]
	switch {
	case own || listed && !given || v.Origin == "null":
		return p.Admit(w, r)
	case !given:
		if !p.cfg.Anywhere && upgrades(r) {
			p.cfg.Grants.Refused(v.Origin)
		}
		return p.Admit(w, r)
	}
	if scope, granted := p.cfg.Grants.Scope(v.Origin, token); granted {
		v.Scope = &scope
		return v, true
	}
	if listed || p.cfg.Anywhere { // it may have another way in
		return p.Admit(w, r)
	}
	p.cfg.Grants.Refused(v.Origin)
	if p.count(w, r, v) {
		p.refuse(w, r, http.StatusForbidden, "the person did not allow this page, or not any more; ask again")
	}
	return v, false
}

// grantOf finds the token that a page sends among its subprotocols.
func grantOf(r *http.Request) (string, bool) {
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(header, ",") {
			if token, found := strings.CutPrefix(strings.TrimSpace(name), GrantPrefix); found {
				return token, true
			}
		}
	}
	return "", false
}

// origin checks who asks, as far as a browser tells; the reason is empty when it
// may.
func (p *Policy) origin(r *http.Request, v *Visitor) (reason string) {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		// Browsers leave it out for plain GETs, but say there whether another site
		// asks. A navigation from elsewhere is how people follow links.
		switch r.Header.Get("Sec-Fetch-Site") {
		case "cross-site", "same-site":
			if r.Header.Get("Sec-Fetch-Mode") != "navigate" {
				return "another site's page may not ask this"
			}
		}
		return ""
	}
	v.Origin = strings.ToLower(origins[0])
	own, listed := p.origins[v.Origin]
	v.Foreign = !own
	if len(origins) > 1 || v.Origin == "null" || (!listed && !p.cfg.Anywhere) {
		return "pages of this origin may not connect; see websocket.allowedOrigins"
	}
	return ""
}

// token checks the third: bearer header, or cookie. A cookie counts only where a
// browser says which page it is, or where nothing can come of it.
func (p *Policy) token(w http.ResponseWriter, r *http.Request, v Visitor) bool {
	if p.cfg.Auth == None {
		return true
	}
	given := false
	if token, found := bearerOf(r); found {
		if p.bearer.is(token) {
			return true
		}
		given = true
	}
	if v.Origin != "" || (!upgrades(r) && readOnly(r)) {
		for _, c := range r.CookiesNamed(p.cookie) {
			if p.session.is(c.Value) {
				return true
			}
			given = true
		}
	}
	if given && !p.count(w, r, v) {
		return false
	}
	p.unauthorized(w, r)
	return false
}

// count notes a wrong token. After ten in a minute an address gets 429; a right
// token still works then, or any local program could lock the person out.
func (p *Policy) count(w http.ResponseWriter, r *http.Request, v Visitor) bool {
	ok, retry := p.refused.Allow(limited(v.Addr), 1, time.Now())
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(retry/time.Second)+1))
		p.refuse(w, r, http.StatusTooManyRequests, "too many wrong tokens, limit 10 a minute")
	}
	return ok
}

// refuse answers with a status and a sentence that holds nothing of the request.
func (p *Policy) refuse(w http.ResponseWriter, r *http.Request, status int, reason string) {
	p.cfg.Log.Debug("refused", "status", status, "reason", reason, "remote", r.RemoteAddr,
		"host", r.Host, "origin", r.Header.Get("Origin"), "path", r.URL.Path)
	secure(w.Header())
	http.Error(w, reason, status)
}

// Wrap puts the policy before a handler, and serves the launch link.
func (p *Policy) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == LaunchPath:
			p.follow(w, r)
			return
		case r.URL.Path == consent.Path && p.sentFromElsewhere(r):
			again(w, r)
			return
		}
		if _, ok := p.Admit(w, r); ok {
			next.ServeHTTP(w, r)
		}
	})
}

func bearerOf(r *http.Request) (string, bool) {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

func upgrades(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

func readOnly(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

func remoteAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap()
}

// limited is what a rate limit counts by: an address, or the network of 64 bits
// that one party has in IPv6.
func limited(a netip.Addr) netip.Addr {
	if a.Is6() {
		if net64, err := a.Prefix(64); err == nil {
			return net64.Addr()
		}
	}
	return a
}
