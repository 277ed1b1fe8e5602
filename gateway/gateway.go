package gateway

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
)

// Gateway serves pages. It does not listen: it is the http.Handler of /ws. New
// builds it; Run, or Shutdown alone, ends it.
type Gateway struct {
	// static after construction
	backend Backend
	policy  *access.Policy
	cfg     Config
	log     *slog.Logger
	started time.Time
	pace    *socket.Pace
	stats   counters
	last    atomic.Int64   // requests of each page that are still answered; allRequests while the node runs
	work    sync.WaitGroup // sockets being served, graces, and sessions that end without a socket

	mu       sync.Mutex // guards all below
	stopping bool
	open     int                 // sockets that are upgraded or served
	links    map[*link.Link]bool // sockets that are served; true until their hello
	sessions map[*session]struct{}
	tokens   map[[sha256.Size]byte]*v2Session
	foreign  map[string]int // sessions by origin, other than the node's own
	left     chan struct{}  // closed and replaced whenever a session has ended
}

// counters are what Stats gives, in the same order.
type counters struct {
	Opened, Resumed, Expired, Refused       atomic.Uint64
	Malformed, UnknownFrames, BadContent    atomic.Uint64
	PublicationsLost, Unwanted, SendsFailed atomic.Uint64
	Limited, Flooded                        atomic.Uint64
	Channels                                atomic.Int64
}

// Stats is a snapshot for metrics. The counts are since the start.
type Stats struct {
	Sessions int // now, those in their grace included
	Sockets  int // now
	Channels int // of pages, now

	Opened  uint64 // sessions
	Resumed uint64 // sockets that went on with a session
	Expired uint64 // sessions whose grace was over
	Refused uint64 // sockets and sessions over a limit

	Malformed     uint64 // v1 frames that were dropped
	UnknownFrames uint64 // numbered v2 frames of unknown kind
	BadContent    uint64 // publications that can't be put into a frame

	PublicationsLost uint64 // dropped because a page was too slow
	Unwanted         uint64 // messages for a protocol that the page had stopped
	SendsFailed      uint64 // v1 sends without ack
	Limited          uint64 // requests over the rate
	Flooded          uint64 // sessions let go because too much waited for them
}

// New makes a gateway. The zero Config has the documented defaults.
func New(backend Backend, policy *access.Policy, cfg Config) *Gateway {
	cfg = cfg.withDefaults()
	g := &Gateway{
		backend: backend, policy: policy, cfg: cfg, started: time.Now(), pace: socket.NewPace(),
		log:      cfg.Log.With("component", "gateway"),
		links:    make(map[*link.Link]bool),
		sessions: make(map[*session]struct{}),
		tokens:   make(map[[sha256.Size]byte]*v2Session),
		foreign:  make(map[string]int),
		left:     make(chan struct{}),
	}
	g.last.Store(allRequests)
	return g
}

// replayLimit is the part of a v2 session's buffer that holds what was written
// and not confirmed; the rest is its queue.
func (g *Gateway) replayLimit() int { return g.cfg.SessionBuffer / 4 }

// hardLimit is what may wait for a page in all, answers included.
func (g *Gateway) hardLimit() int { return 2*g.cfg.SessionBuffer + g.cfg.MaxMessage }

// ServeHTTP upgrades a request and serves the page until its socket is gone.
// Host, Origin and token are checked first, then the number of sockets.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	visitor, ok := g.policy.AdmitPage(w, r)
	if !ok {
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "a WebSocket upgrade is needed", http.StatusUpgradeRequired)
		return
	}
	if !g.enter() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	defer g.leave()
	l, err := link.Accept(w, r, g.log, []string{v2.Subprotocol}, firstFrame, g.pace)
	if err != nil {
		return // Accept has answered
	}
	g.serve(l, visitor)
}

// serve serves a socket by the protocol that was agreed on.
func (g *Gateway) serve(l *link.Link, v access.Visitor) {
	second := strings.EqualFold(l.Subprotocol(), v2.Subprotocol)
	g.mu.Lock()
	g.links[l] = second
	stopping := g.stopping
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.links, l)
	}()
	err := link.Guard(g.log, func() error {
		switch {
		case stopping:
			return link.Stopping
		case second:
			return g.serveV2(l, v)
		case v.Scope != nil:
			return link.Violation(socket.Policy, "pages of other sites speak parley.v2")
		}
		return g.serveV1(l, v)
	})
	l.HangUp(link.AsClosing(err))
}

// greeted notes that the session of a socket has a writer, or won't have one.
func (g *Gateway) greeted(l *link.Link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.links[l] = false
}

// enter counts a socket in, and is false where there are too many.
func (g *Gateway) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping || g.open >= g.cfg.Sessions+spareSockets {
		g.stats.Refused.Add(1)
		return false
	}
	g.open++
	g.work.Add(1)
	return true
}

func (g *Gateway) leave() {
	g.mu.Lock()
	g.open--
	g.mu.Unlock()
	g.work.Done()
}

// add counts a session in. Errors: CodeLimit, CodeClosed.
func (g *Gateway) add(s *session) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.stopping:
		return errClosed
	case len(g.sessions) >= g.cfg.Sessions:
		g.stats.Refused.Add(1)
		return retryLater("too many sessions, limit " + itoa(g.cfg.Sessions))
	case s.visitor.Foreign && g.foreign[s.visitor.Origin] >= g.cfg.PerOrigin:
		g.stats.Refused.Add(1)
		return retryLater("too many sessions of this origin, limit " + itoa(g.cfg.PerOrigin))
	}
	g.sessions[s] = struct{}{}
	if s.visitor.Foreign {
		g.foreign[s.visitor.Origin]++
	}
	g.cfg.Activity(len(g.sessions))
	return nil
}

func retryLater(text string) error {
	return &identity.Error{Code: identity.CodeLimit, Text: text, RetryAfter: 5 * time.Second}
}

// gone counts a session out, once its peer is free.
func (g *Gateway) gone(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.sessions[s]; !ok {
		return
	}
	delete(g.sessions, s)
	delete(g.tokens, s.tokenHash)
	if s.visitor.Foreign {
		if g.foreign[s.visitor.Origin]--; g.foreign[s.visitor.Origin] == 0 {
			delete(g.foreign, s.visitor.Origin)
		}
	}
	close(g.left)
	g.left = make(chan struct{})
	g.cfg.Activity(len(g.sessions))
}

// joinFree joins a v1 session to its peer. A page that reloads asks for its key
// in the moment in which its old socket is still being read to its end; so a key
// in use is asked for again when a session has ended, within a short time, or for
// as long as the session that has it is ending.
func (g *Gateway) joinFree(ctx context.Context, s *session, key identity.Key) error {
	late := time.NewTimer(reloadWait)
	defer late.Stop()
	for {
		g.mu.Lock()
		left := g.left
		g.mu.Unlock()
		err := s.join(ctx, key, g.cfg.SharePeers)
		if identity.CodeOf(err) != identity.CodePeerInUse {
			return err
		}
		select {
		case <-left:
		case <-late.C:
			if !g.frees(key.PeerID()) && !closed(left) { // a session that has ended just now is no longer among them
				return err
			}
			late.Reset(reloadWait)
		case <-ctx.Done():
			return err
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// frees reports whether a session that has this peer is ending.
func (g *Gateway) frees(id identity.PeerID) bool {
	g.mu.Lock()
	sessions := slices.Collect(maps.Keys(g.sessions))
	g.mu.Unlock()
	return slices.ContainsFunc(sessions, func(s *session) bool { return s.frees(id) })
}

// reloadWait is far above what it takes to read a close frame that has arrived.
const reloadWait = 100 * time.Millisecond

// Run lives until ctx ends and then shuts down within 5 s.
func (g *Gateway) Run(ctx context.Context) error {
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return g.Shutdown(last)
}

// Shutdown takes no more pages, reads no more requests, answers what is pending with an error, closes
// all sockets with 1001, and waits until everything is gone. When ctx ends,
// sockets that are still there are cut; it still waits then, for its own
// goroutines alone, and returns ctx's error.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.last.Store(0)
	g.mu.Lock()
	g.stopping = true
	sessions := make([]*session, 0, len(g.sessions))
	for s := range g.sessions {
		sessions = append(sessions, s)
	}
	for l, greeting := range g.links {
		if greeting { // nobody writes there yet
			l.Drop(link.Stopping)
		}
	}
	g.mu.Unlock()
	for _, s := range sessions {
		s.stop()
	}
	return g.wait(ctx)
}

func (g *Gateway) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		g.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	for l := range g.links {
		l.Cut(link.Stopping)
	}
	for s := range g.sessions {
		s.cancel() // a page's request that waits, so that its socket isn't read
	}
	g.mu.Unlock()
	<-done
	return ctx.Err()
}

// Dismiss ends the sessions of an origin that had a person's grant, because it
// was taken back.
func (g *Gateway) Dismiss(origin string) {
	g.mu.Lock()
	var gone []*session
	for s := range g.sessions {
		if s.visitor.Scope != nil && s.visitor.Origin == origin {
			gone = append(gone, s)
		}
	}
	g.mu.Unlock()
	for _, s := range gone {
		s.dismiss()
	}
}

// Sessions is the number of sessions now, those in their grace included.
func (g *Gateway) Sessions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sessions)
}

// Stats gives a snapshot.
func (g *Gateway) Stats() Stats {
	g.mu.Lock()
	sessions, sockets := len(g.sessions), g.open
	g.mu.Unlock()
	c := &g.stats
	return Stats{
		Sessions: sessions, Sockets: sockets, Channels: int(c.Channels.Load()),
		Opened: c.Opened.Load(), Resumed: c.Resumed.Load(), Expired: c.Expired.Load(), Refused: c.Refused.Load(),
		Malformed: c.Malformed.Load(), UnknownFrames: c.UnknownFrames.Load(), BadContent: c.BadContent.Load(),
		PublicationsLost: c.PublicationsLost.Load(), Unwanted: c.Unwanted.Load(), SendsFailed: c.SendsFailed.Load(),
		Limited: c.Limited.Load(), Flooded: c.Flooded.Load(),
	}
}
