package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/socketio"
)

// The life of a star, in one goroutine:
//
//	connecting ─▶ joining ─▶ joined ── the connection is lost ─▶ waiting ─┐
//	    ▲  └──── no answer ───│──────────────────────────────────▶ waiting │
//	    │                     └─ the star says no ───────────────▶ refused │
//	    └── a random part of 1 s, doubling to 60 s, later ◀────────────────┘
//
// One that is joined for a dial alone is left when nobody has used it for a while,
// and when it fails.

// State is how far a star has come.
type State string

// The states.
const (
	Connecting State = "connecting"
	Joining    State = "joining"
	Joined     State = "joined"
	Refused    State = "refused" // the star said no; it is asked again later
	Waiting    State = "waiting" // it is not there; it is tried again later
)

// star is one server, as this node uses it.
type star struct {
	// Static after construction.
	t      *Transport
	at     address.Star // without id
	addr   ma.Multiaddr // the same
	own    string       // the own address there
	opts   StarOptions
	http   *http.Client
	book   *book
	budget *spending
	look   chan struct{} // capacity 1: what it is needed for has changed

	in, out atomic.Int64 // bytes of connections
	rtt     atomic.Int64 // of the last question, nanoseconds

	// Guarded by t.mu.
	listener *listener // nil: joined for dials alone
	uses     int       // dials under way
	lastUse  time.Time
	state    State
	since    time.Time
	err      error // why it isn't joined, or last was not
	session  *session
	old      []*session    // drained ones, whose connections may finish
	news     chan struct{} // closed and replaced when the state changes
}

func newStar(t *Transport, at address.Star) (*star, error) {
	addr, err := multiaddr(at)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "star address: %w", err)
	}
	now := time.Now()
	s := &star{t: t, at: at, addr: addr, own: at.With(t.id.String()).String(), opts: t.opts.Star(at.Server()),
		look: make(chan struct{}, 1), lastUse: now, state: Connecting, since: now, news: make(chan struct{})}
	s.book = newBook(s)
	s.budget = newSpending(s.opts.Budget)
	s.http = &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            t.dialer(at),
		TLSClientConfig:        &tls.Config{RootCAs: s.opts.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    t.opts.Times.Connect,
		ResponseHeaderTimeout:  t.opts.Times.Connect,
		IdleConnTimeout:        socketio.IdleTime,
		MaxResponseHeaderBytes: 64 << 10,
	}}
	return s, nil
}

// dialer opens connections as the address says: dns4 by IPv4 alone, dns6 by IPv6.
func (t *Transport) dialer(at address.Star) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := t.opts.Dialer
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	network := map[string]string{"ip4": "tcp4", "dns4": "tcp4", "ip6": "tcp6", "dns6": "tcp6"}[at.Kind]
	if network == "" {
		network = "tcp"
	}
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != at.Host {
			return dial(ctx, "tcp", addr) // a proxy
		}
		return dial(ctx, network, addr)
	}
}

// run is the star's goroutine.
func (s *star) run() {
	t := s.t
	defer s.http.CloseIdleConnections()
	defer s.book.forget()
	wait := t.opts.Times.RetryMin
	for {
		began := time.Now()
		joined, err := s.visit(t.ctx)
		if joined && time.Since(began) >= t.opts.Times.Healthy {
			wait = t.opts.Times.RetryMin
		}
		if t.ctx.Err() != nil {
			s.set(Waiting, errStarClosed, nil)
			return
		}
		t.opts.Log.Debug("not on a star", "star", s.at.Server(), "err", err)
		if s.retire(err) {
			return
		}
		if errors.Is(err, errLeft) {
			continue // somebody came while it was left
		}
		if !s.sleep(t.ctx, rand.N(wait)+time.Millisecond) {
			s.set(Waiting, errStarClosed, nil)
			return
		}
		wait = min(2*wait, t.opts.Times.RetryMax)
		s.set(Connecting, err, nil)
	}
}

// sleep waits before the next attempt; false when the transport closes.
func (s *star) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// visit is one connection, from its beginning until another is needed.
func (s *star) visit(ctx context.Context) (joined bool, err error) {
	connecting, cancel := context.WithTimeout(ctx, s.t.opts.Times.Connect)
	sess, err := openSession(connecting, s)
	cancel()
	if err != nil {
		s.set(Waiting, err, nil)
		return false, err
	}
	s.set(Joining, nil, nil)
	s.t.work.Go(sess.run)
	joining, cancel := context.WithTimeoutCause(ctx, s.t.opts.Times.Join, errNoJoinAnswer)
	err = sess.join(joining)
	cancel()
	if err != nil {
		sess.cancel()
		s.set(failed(err), err, nil)
		return false, err
	}
	s.set(Joined, nil, sess)
	s.t.opts.Log.Info("on a star", "star", s.at.Server())
	err = s.stay(ctx, sess)
	s.set(failed(err), err, nil)
	return true, err
}

// failed is the state that an error leads to.
func failed(err error) State {
	if errors.Is(err, errLeft) {
		return Connecting // or gone, if nobody comes meanwhile
	}
	switch identity.CodeOf(err) {
	case identity.CodeUnreachable, identity.CodeTimeout, identity.CodeClosed, identity.CodeInternal, identity.CodeLimit:
		return Waiting
	}
	return Refused
}

// stay keeps a session until it ends, isn't to be used any more, or isn't needed.
func (s *star) stay(ctx context.Context, sess *session) error {
	tick := time.NewTicker(s.t.opts.Times.life() / 3)
	defer tick.Stop()
	idle := time.NewTimer(s.t.opts.Times.OnDemand)
	defer idle.Stop()
	for {
		select {
		case <-sess.done:
			return sess.why()
		case <-sess.moved:
			s.keepOld(sess)
			return sess.why()
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.book.renew(sess.ext)
		case <-idle.C:
		case <-s.look:
		}
		left, needed := s.needed(sess)
		if !needed {
			sess.leave()
			return errLeft
		}
		idle.Reset(max(left, time.Second))
	}
}

// needed says whether anybody needs the star, and when to ask again.
func (s *star) needed(sess *session) (left time.Duration, needed bool) {
	streams, ended := sess.count()
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if ended.After(s.lastUse) && streams == 0 && s.listener == nil {
		s.lastUse = ended
	}
	left = s.t.opts.Times.OnDemand - time.Since(s.lastUse)
	return left, s.listener != nil || s.uses > 0 || streams > 0 || left > 0
}

// retire ends a star that nobody needs, after it was left or has failed.
func (s *star) retire(err error) bool {
	s.t.mu.Lock()
	if s.listener != nil || s.uses > 0 && errors.Is(err, errLeft) {
		s.t.mu.Unlock()
		return false
	}
	delete(s.t.stars, s.at.Server())
	s.t.mu.Unlock()
	return true
}

// maxOld is how many drained sessions are kept for their connections.
const maxOld = 2

// keepOld lets the connections of a session finish that is not to be used any more.
func (s *star) keepOld(sess *session) {
	sess.retire()
	s.t.mu.Lock()
	s.old = append(s.old, sess)
	var over []*session
	if n := len(s.old) - maxOld; n > 0 {
		over = append(over, s.old[:n]...)
		s.old = append(s.old[:0], s.old[n:]...)
	}
	s.t.mu.Unlock()
	for _, o := range over {
		o.cancel()
	}
}

// set changes the state and tells of it.
func (s *star) set(state State, err error, sess *session) {
	s.t.mu.Lock()
	if state != s.state {
		s.since = time.Now()
	}
	s.state, s.session = state, sess
	if err != nil || state == Joined {
		s.err = err
	}
	close(s.news)
	s.news = make(chan struct{})
	s.t.mu.Unlock()
	s.t.changed()
}

// joined waits until the star is joined. Where it failed, the answer comes at once:
// a dial doesn't wait for a star that isn't there.
func (s *star) joined(ctx context.Context) (*session, error) {
	for {
		s.t.mu.Lock()
		state, err, sess, news := s.state, s.err, s.session, s.news
		s.t.mu.Unlock()
		switch state {
		case Joined:
			return sess, nil
		case Waiting, Refused:
			return nil, identity.Errorf(identity.CodeUnreachable, "not on the star %s: %w", s.at.Server(), err)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, identity.Errorf(identity.CodeUnreachable, "not on the star %s yet: %w", s.at.Server(), context.Cause(ctx))
		}
	}
}

// current is the session in use, or nil.
func (s *star) current() *session {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.session
}

// quiet waits until the star carries no connection, at most until limit.
func (s *star) quiet(limit <-chan time.Time) {
	sess := s.current()
	if sess == nil {
		return
	}
	for {
		n, _ := sess.count()
		if n == 0 {
			return
		}
		select {
		case <-sess.emptied:
		case <-sess.done:
			return
		case <-limit:
			return
		}
	}
}
