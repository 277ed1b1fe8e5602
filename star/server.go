package star

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Server is a star.
type Server struct {
	// Static after construction.
	opts      Options
	limits    Limits
	log       *slog.Logger
	nonces    io.Reader
	sio       *socketio.Server
	engine    *proxy.Engine
	roster    *roster
	announcer *announcer
	admission *admission
	metrics   *metrics
	joinRate  *flow.Bucket
	verifiers chan struct{}   // one place for each core
	extension json.RawMessage // for clients with extensions
	certs     *certificates   // nil without TLS
	handler   http.Handler
	listener  net.Listener // nil for a server without one of its own
	admin     net.Listener // nil without one
	started   time.Time

	verifying atomic.Int64  // signatures that are checked or wait
	numbers   atomic.Uint64 // sessions ever made
	draining  atomic.Bool
	ready     atomic.Bool
}

// New makes a server and opens its ports, so that a start that can't work fails
// here. Nothing is served before Run.
func New(o Options) (*Server, error) {
	srv, err := newServer(o)
	if err != nil {
		return nil, err
	}
	if srv.certs, err = srv.opts.TLS.load(); err != nil {
		return nil, err
	}
	at := net.JoinHostPort(srv.opts.Host, strconv.Itoa(srv.opts.Port))
	if srv.listener, err = net.Listen("tcp", at); err != nil {
		return nil, identity.Errorf(identity.CodeUnreachable, "star: listen: %w", err)
	}
	if err := srv.listenAdmin(); err != nil {
		_ = srv.listener.Close()
		return nil, err
	}
	return srv, nil
}

func (srv *Server) listenAdmin() (err error) {
	if srv.opts.Admin == "" {
		return nil
	}
	srv.admin, err = net.Listen("tcp", srv.opts.Admin)
	switch {
	case err == nil:
		return nil
	case srv.opts.Spare:
		srv.admin = nil
		srv.log.Warn("no admin port, since another program has it; --admin names another one", "error", err)
		return nil
	}
	return identity.Errorf(identity.CodeUnreachable, "star: listen for admin: %w", err)
}

// Close closes the ports and the registry of a server that never ran. After Run
// there is nothing left to close.
func (srv *Server) Close() error {
	if srv.opts.Registry != nil {
		srv.opts.Registry.Close()
	}
	var errs []error
	for _, l := range []net.Listener{srv.listener, srv.admin} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// NewHandler makes a server without ports: Handler is to be served by the caller,
// while Run runs.
func NewHandler(o Options) (*Server, error) { return newServer(o) }

func newServer(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	srv := &Server{opts: o, limits: o.Limits, log: o.Log, nonces: o.Nonces, started: time.Now(),
		verifiers: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if srv.nonces == nil {
		srv.nonces = crand.Reader
	}
	srv.joinRate = flow.NewBucket(o.Limits.ServerJoins, o.Limits.ServerJoins)
	srv.roster = newRoster(&srv.limits, o.Names)
	srv.admission = newAdmission(&srv.limits)
	srv.metrics = newMetrics(srv)
	srv.announcer = &announcer{r: srv.roster, mode: o.Announce, refresh: o.Refresh, limits: &srv.limits,
		boot: bootID(), count: srv.metrics.announce, hit: srv.metrics.limit}
	mem := &ws.Memory{}
	srv.engine = proxy.New(o.Streams, proxy.Hooks{Reset: srv.metrics.reset, Answered: srv.metrics.answered, Dropped: srv.metrics.drop, Limit: srv.metrics.limit}, mem)
	srv.extension = policyText(&o, srv.engine.Limits())
	sio := socketio.Options{Handler: srv, Limits: o.Sockets, Times: o.Times, Connect: srv.connect,
		Remote: srv.remote, Hit: srv.metrics.limit, Origins: o.Origins, Memory: mem}
	if o.Registry != nil {
		sio.Prefix, sio.Foreign = o.Registry.Prefix(), o.Registry.Forward
	}
	srv.sio = socketio.NewServer(sio)
	srv.handler = srv.routes()
	return srv, nil
}

// bootID is text that no other start of a server has; it ends with a dot.
func bootID() string {
	return strconv.FormatInt(time.Now().UnixNano(), 36) + "."
}

// Addr is where the server listens; nil for one made by NewHandler.
func (srv *Server) Addr() net.Addr {
	if srv.listener == nil {
		return nil
	}
	return srv.listener.Addr()
}

// AdminAddr is where health and metrics are; nil without such a port.
func (srv *Server) AdminAddr() net.Addr {
	if srv.admin == nil {
		return nil
	}
	return srv.admin.Addr()
}

// URI is the address as a person writes it: the host as it was given, with the
// port that is really listened on.
func (srv *Server) URI() string { return srv.uri(srv.opts.Host) }

func (srv *Server) uri(host string) string {
	scheme := "http"
	if srv.certs != nil {
		scheme = "https"
	}
	_, port, _ := net.SplitHostPort(srv.Addr().String())
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Handler serves everything of the main port.
func (srv *Server) Handler() http.Handler { return srv.handler }

// Members lists the addresses that are joined now.
func (srv *Server) Members() []string { return srv.roster.addresses() }

// Stats are counters as of now.
type Stats struct {
	Members, Sessions int
	Streams           proxy.Stats
	Dials, Refusals   int64 // since the start
	Uptime            time.Duration
	Draining          bool
}

// Stats gives the counters.
func (srv *Server) Stats() Stats {
	members, _ := srv.roster.size()
	return Stats{Members: members, Sessions: srv.sio.Len(), Streams: srv.engine.Stats(), Dials: srv.metrics.dialCount.Load(),
		Refusals: srv.metrics.refusalCount.Load(), Uptime: time.Since(srv.started), Draining: srv.draining.Load()}
}

// Run serves until ctx ends, then drains: no new sessions, joins and dials; streams
// may end for as long as Options.Drain says; the rest is ended with an error. A
// second end of patience is hard: when Run is to stop at once, end kill.
func (srv *Server) Run(ctx context.Context) error { return srv.RunUntil(ctx, context.Background()) }

// RunUntil is Run with a second context, whose end cuts the draining short.
func (srv *Server) RunUntil(ctx, kill context.Context) error {
	work, stop := context.WithCancel(context.Background())
	defer stop()
	// The ports stay open until every session has heard its last words: a poll
	// comes for them by a new request.
	ports, closePorts := context.WithCancel(context.Background())
	defer closePorts()
	group, failed := errgroup.WithContext(work)
	leave := srv.share(work, group)
	group.Go(func() error { defer closePorts(); return srv.sio.Run(work) })
	group.Go(func() error { return srv.announcer.run(work) })
	group.Go(func() error { return srv.sweep(work) })
	srv.serve(ports, group)
	srv.ready.Store(true)
	select {
	case <-ctx.Done():
		srv.drain(kill)
	case <-failed.Done():
	}
	srv.ready.Store(false)
	stop()
	err := errors.Join(group.Wait(), leave())
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// drainLook is how often a drain looks whether streams are left.
const drainLook = 100 * time.Millisecond

// drain is the orderly end (star.md §9.2). 41 is not sent: npm clients shall
// reconnect by themselves.
func (srv *Server) drain(kill context.Context) {
	srv.draining.Store(true)
	srv.ready.Store(false)
	srv.sio.Refuse()
	for _, sock := range srv.sio.Sockets() {
		if s, ok := sock.User.(*session); ok {
			s.tellDrain(max(srv.opts.Drain, 0))
		}
	}
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	deadline := time.Now().Add(srv.opts.Drain)
	for srv.engine.Stats().Dials > 0 && time.Now().Before(deadline) && kill.Err() == nil {
		select {
		case <-ticker.C:
		case <-kill.Done():
		}
	}
	srv.engine.EndAll(proxy.ShuttingDown)
}

const (
	closeStale = ws.CodePolicy
	sweepEvery = time.Second
	idleGrain  = 64 // of the limit for idle sessions: it takes a look at each of them
)

var (
	errStale = &identity.Error{Code: identity.CodeTimeout, Text: "did not answer when its address was asked for"}
	errIdle  = &identity.Error{Code: identity.CodeTimeout, Text: "no address and no stream"}
)

// sweep sees to the time limits of streams and idle sessions.
func (srv *Server) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	looked := time.Now()
	for {
		select {
		case now := <-ticker.C:
			srv.engine.Sweep(now)
			if now.Sub(looked) >= srv.limits.Idle/idleGrain {
				looked = now
				srv.sweepIdle(now)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// sweepIdle closes sessions that have neither an address nor a stream.
func (srv *Server) sweepIdle(now time.Time) {
	for _, sock := range srv.sio.Sockets() {
		s, ok := sock.User.(*session)
		if !ok {
			continue
		}
		srv.roster.mu.RLock()
		joined := len(s.members) > 0
		srv.roster.mu.RUnlock()
		asDialer, asCallee := s.side.Counts()
		switch since := s.idleSince.Load(); {
		case joined || asDialer+asCallee > 0:
			s.idleSince.Store(0)
		case since == 0:
			s.idleSince.Store(now.UnixNano())
		case time.Duration(now.UnixNano()-since) > srv.limits.Idle:
			srv.metrics.limit(limitIdle)
			sock.Close(ws.CodeNormal, errIdle)
		}
	}
}
