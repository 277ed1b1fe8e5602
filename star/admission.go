package star

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// admission decides on new sessions, by the addresses they come from.
type admission struct {
	// Static after construction.
	limits *Limits
	fresh  *flow.Buckets[netip.Prefix] // new sessions
	bytes  *flow.Buckets[netip.Prefix] // nil without a rate

	mu    sync.Mutex
	perIP map[netip.Prefix]int
	all   int
}

// bucketKeys bounds how many addresses a rate remembers.
const bucketKeys = 1 << 16

func newAdmission(l *Limits) *admission {
	a := &admission{limits: l, perIP: map[netip.Prefix]int{},
		fresh: flow.NewBuckets[netip.Prefix](l.NewSessionsPerIP, l.NewSessionBurst, bucketKeys)}
	if l.IPRate > 0 {
		a.bytes = flow.NewBuckets[netip.Prefix](l.IPRate, l.IPRate, bucketKeys)
	}
	return a
}

// network is what counts as one address: IPv6 by /64.
func network(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// admit counts a session in, or says why not.
func (a *admission) admit(ip netip.Prefix, now time.Time) (limit string, retry time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.all >= a.limits.Sessions:
		return limitSessions, 5 * time.Second
	case a.perIP[ip] >= a.limits.SessionsPerIP:
		return limitSessionsPerIP, 5 * time.Second
	}
	if ok, retry := a.fresh.Allow(ip, 1, now); !ok {
		return limitNewSessions, max(retry, time.Second)
	}
	a.all++
	a.perIP[ip]++
	return "", 0
}

func (a *admission) release(ip netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all--
	count(a.perIP, ip)
}

// connect is asked about every new session (socketio.Options.Connect).
func (srv *Server) connect(sock *socketio.Socket, r *http.Request) (json.RawMessage, error) {
	ip := network(sock.Remote())
	if limit, retry := srv.admission.admit(ip, time.Now()); limit != "" {
		srv.metrics.limit(limit)
		return nil, &identity.Error{Code: identity.CodeLimit, Text: "too many connections", RetryAfter: retry}
	}
	query := r.URL.Query()
	s := &session{srv: srv, sock: sock, ip: ip, ext: query.Get("parley") == "1", number: srv.numbers.Add(1)}
	if s.ext {
		s.since = query.Get("since")
	}
	s.side = srv.engine.NewSide(sock, s.ext, srv.opts.ResetStrings)
	if srv.limits.SessionRate > 0 || srv.admission.bytes != nil {
		s.side.Pace = s.pace
	}
	s.idleSince.Store(time.Now().UnixNano())
	sock.User = s
	if !s.ext {
		return nil, nil
	}
	return srv.extension, nil
}

// pace holds the reader back as the policy's rates say.
func (s *session) pace(n int) {
	l := s.srv.limits
	if l.SessionRate > 0 {
		s.slow(&s.bytes, float64(n), l.SessionRate, l.SessionRate, limitSessionRate)
	}
	if s.srv.admission.bytes == nil {
		return
	}
	for s.sock.Err() == nil {
		ok, wait := s.srv.admission.bytes.Allow(s.ip, min(float64(n), l.IPRate), time.Now())
		if ok {
			return
		}
		s.srv.metrics.limit(limitIPRate)
		s.sock.Hold()
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-timer.C:
		case <-s.sock.Context().Done():
			timer.Stop()
		}
		s.sock.Release()
	}
}

// policyText tells clients with extensions what a dial may carry.
func policyText(o *Options, l proxy.Limits) json.RawMessage {
	text, _ := json.Marshal(map[string]any{"v": 1, "window": proxy.Window, "policy": map[string]any{
		"bytes": l.DialBytes, "seconds": int(l.DialLife / time.Second), "rate": int64(o.Limits.SessionRate)}})
	return text
}

// remote is the address behind a request: a forwarding header counts only from a
// trusted proxy, and then the last address that is not one.
func (srv *Server) remote(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	if !within(srv.opts.TrustedProxies, addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		if addr = hop.Unmap().WithZone(""); !within(srv.opts.TrustedProxies, addr) {
			break
		}
	}
	return addr
}

func within(nets []netip.Prefix, addr netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
