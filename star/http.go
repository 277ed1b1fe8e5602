package star

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// headerTime bounds a TLS handshake and a request's header, each.
const headerTime = 10 * time.Second

// lastTime is how long requests that are under way may take when all sessions
// have ended: they are of the page and the metrics.
const lastTime = time.Second

// routes is the main port: the protocol, the page, and metrics for who may.
func (srv *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", srv.sio)
	mux.Handle("/socket.io", srv.sio)
	mux.HandleFunc("GET /{$}", srv.page)
	mux.HandleFunc("GET /status.json", srv.status)
	if !srv.opts.NoMetrics {
		mux.Handle("GET /metrics", srv.guarded(srv.metrics.handler()))
	}
	return srv.metrics.observed(mux)
}

// adminRoutes is the admin port.
func (srv *Server) adminRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", srv.metrics.handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := srv.notReady(); reason != "" {
			say(w, http.StatusServiceUnavailable, reason)
			return
		}
		say(w, http.StatusOK, "ready")
	})
	return mux
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // nobody is left to be told
}

// notReady says why the server takes no new sessions; "" where it does.
func (srv *Server) notReady() string {
	switch {
	case srv.draining.Load():
		return "draining"
	case !srv.ready.Load():
		return "not running"
	case srv.opts.Registry != nil && !srv.opts.Registry.Ready():
		return "lease is not valid"
	}
	return ""
}

// forwarding headers show that a request came through a proxy.
var forwarding = []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "X-Forwarded-Host", "Via"}

// guarded lets loopback and listed networks in, unless a proxy stands between.
func (srv *Server) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		addr, err := netip.ParseAddr(host)
		allowed := err == nil && (addr.Unmap().IsLoopback() || within(srv.opts.MetricsAllow, addr.Unmap().WithZone("")))
		for _, name := range forwarding {
			allowed = allowed && r.Header.Get(name) == ""
		}
		if !allowed {
			say(w, http.StatusForbidden, "metrics are for this machine, for listed networks, and on the admin port")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// serve serves the ports there are, until ctx ends.
func (srv *Server) serve(ctx context.Context, group *errgroup.Group) {
	if srv.listener != nil {
		main := srv.httpServer(srv.handler)
		l := srv.listener
		if srv.certs != nil {
			l = tls.NewListener(l, srv.certs.config())
			group.Go(func() error { return srv.certs.run(ctx, srv.log) })
		}
		group.Go(func() error { return served(main, l) })
		group.Go(func() error { return closing(ctx, main) })
	}
	if srv.admin != nil {
		admin := srv.httpServer(srv.adminRoutes())
		group.Go(func() error { return served(admin, srv.admin) })
		group.Go(func() error { return closing(ctx, admin) })
	}
}

func (srv *Server) httpServer(h http.Handler) *http.Server {
	conns := newConnections(&srv.opts, srv.metrics.limit)
	return &http.Server{Handler: h, ConnState: conns.state, ReadHeaderTimeout: headerTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(srv.log.Handler(), slog.LevelDebug)}
}

func served(hs *http.Server, l net.Listener) error {
	if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// closing waits for ctx, then for the last answers.
func closing(ctx context.Context, hs *http.Server) error {
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.Background(), lastTime)
	defer cancel()
	if hs.Shutdown(last) != nil {
		return hs.Close()
	}
	return nil
}
