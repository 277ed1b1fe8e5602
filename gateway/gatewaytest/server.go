package gatewaytest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
)

// Server is a gateway over loopback, with a fake Backend unless another is given.
type Server struct {
	URL     string // http://127.0.0.1:port
	Gateway *gateway.Gateway
	Backend *Backend
	Policy  *access.Policy
	Header  http.Header  // lets a program in
	Offer   []string     // subprotocols that v2 pages offer besides
	Client  *http.Client // for Dial; nil is the usual one
	Pipes   *Pipes       // what it listens on, if that is in memory
	Seen    *Seen        // where v2 pages note what goes over their sockets; nil: nowhere
}

// As gives the same server as another visitor knocks.
func (s *Server) As(header http.Header, offer ...string) *Server {
	as := *s
	as.Header, as.Offer = header, offer
	return &as
}

// Option changes how Start starts.
type Option func(*options)

type options struct {
	cfg      gateway.Config
	access   access.Config
	backend  *Backend
	around   gateway.Backend
	listener net.Listener
}

// WithConfig sets the gateway's Config.
func WithConfig(cfg gateway.Config) Option { return func(o *options) { o.cfg = cfg } }

// WithAccess sets the policy's Config, but for its port.
func WithAccess(cfg access.Config) Option { return func(o *options) { o.access = cfg } }

// WithBackend sets the Backend.
func WithBackend(b *Backend) Option { return func(o *options) { o.backend = b } }

// Around gives the gateway a Backend that is put around the one of WithBackend.
func Around(b gateway.Backend) Option { return func(o *options) { o.around = b } }

// WithListener serves on l instead of a loopback port.
func WithListener(l net.Listener) Option { return func(o *options) { o.listener = l } }

// Start serves a gateway until the test ends, and fails the test when anything
// is left of it.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	o := options{backend: NewBackend(), access: access.Config{Bearer: "test-token"}}
	for _, opt := range opts {
		opt(&o)
	}
	quiet := slog.New(slog.DiscardHandler)
	if o.cfg.Log == nil {
		o.cfg.Log = quiet
	}
	if o.access.Log == nil {
		o.access.Log = quiet
	}
	if o.listener == nil {
		var err error
		if o.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	if addr, ok := o.listener.Addr().(*net.TCPAddr); ok {
		o.access.Port = addr.Port
	}
	policy, err := access.New(o.access)
	if err != nil {
		t.Fatal(err)
	}
	if o.around == nil {
		o.around = o.backend
	}
	s := &Server{Backend: o.backend, Policy: policy, Gateway: gateway.New(o.around, policy, o.cfg),
		URL:    "http://127.0.0.1:" + strconv.Itoa(o.access.Port),
		Header: http.Header{"Authorization": {"Bearer " + o.access.Bearer}}}
	if pipes, ok := o.listener.(*Pipes); ok {
		s.Pipes, s.Client = pipes, pipes.Client(nil)
	}
	mux := http.NewServeMux()
	mux.Handle("/ws", s.Gateway)
	mux.Handle("/", policy.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("page")) })))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(quiet.Handler(), 0)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(o.listener)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Gateway.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		_ = server.Close()
		<-served
		if n := s.Backend.Peers(); n != 0 {
			t.Errorf("%d peers are left", n)
		}
	})
	return s
}

// WaitFor waits until something holds that nobody tells of.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for !ok() {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
