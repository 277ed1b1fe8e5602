package socketio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Options configures a Server. The zero Options has safe defaults, but for the
// Handler.
type Options struct {
	Handler Handler
	Limits  Limits
	Times   Times

	// Connect decides on a new session before anything is sent, and may set
	// Socket.User. open is added to the open packet as "parley" where not nil. An
	// error refuses with 503; its RetryAfter is told. After a nil error
	// Disconnected follows in any case.
	Connect func(s *Socket, r *http.Request) (open json.RawMessage, err error)

	// Remote tells the address behind a request; the default takes that of the
	// connection.
	Remote func(r *http.Request) netip.Addr

	// Origins are the pages that may connect, as in the Origin header; none allows
	// all. Requests without an Origin come from programs and are allowed.
	Origins []string

	// Prefix begins every session id, so that a cluster knows whose it is.
	Prefix string

	// Foreign is offered a request of an unknown session id; true means that it
	// was answered.
	Foreign func(w http.ResponseWriter, r *http.Request, sid string) bool

	// Hit is told of a limit that was met and ended no socket; nil for nobody.
	Hit func(limit string)

	// Memory lends the buffers; nil makes an own one.
	Memory *ws.Memory
}

// Server is the server's end: an http.Handler for /socket.io/. It starts nothing
// before Run.
type Server struct {
	// Static after construction.
	core    *core
	opts    Options
	origins map[string]bool

	// Guarded by mu.
	mu       sync.Mutex
	sessions map[string]*Socket
	refusing bool // no new sessions
	over     bool // Run has ended
}

// NewServer makes a server.
func NewServer(opts Options) *Server {
	srv := &Server{opts: opts, sessions: make(map[string]*Socket), origins: make(map[string]bool)}
	for _, o := range opts.Origins {
		srv.origins[o] = true
	}
	srv.core = &core{mem: opts.Memory, limits: opts.Limits.withDefaults(), times: opts.Times.withDefaults(), forget: srv.forget, hit: opts.Hit}
	if srv.core.mem == nil {
		srv.core.mem = &ws.Memory{}
	}
	srv.core.clock.Store(time.Now().UnixNano())
	return srv
}

// Memory is what lends the server's buffers.
func (srv *Server) Memory() *ws.Memory { return srv.core.mem }

// sweepInterval is the grain of all the server's time limits.
const sweepInterval = time.Second

// Run keeps the server's time until ctx ends, then closes what is left and waits
// for it. Requests before Run are served, without time limits.
func (srv *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			srv.sweep(now)
		case <-ctx.Done():
			srv.closeAll()
			return nil
		}
	}
}

func (srv *Server) closeAll() {
	srv.mu.Lock()
	srv.refusing, srv.over = true, true
	srv.mu.Unlock()
	for _, s := range srv.Sockets() {
		s.Close(ws.CodeGoingAway, ErrEnded)
	}
	srv.core.running.Wait()
}

// Refuse makes the server turn new sessions away with 503; existing ones go on.
func (srv *Server) Refuse() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.refusing = true
}

// Sockets lists the sessions there are now.
func (srv *Server) Sockets() []*Socket {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	list := make([]*Socket, 0, len(srv.sessions))
	for _, s := range srv.sessions {
		list = append(list, s)
	}
	return list
}

// Len is the number of sessions.
func (srv *Server) Len() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.sessions)
}

func (srv *Server) find(sid string) *Socket {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.sessions[sid]
}

func (srv *Server) forget(s *Socket) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s.id)
}

// register puts a session into the table; false when the server is ending. serve
// is run for it; a session that polls has none and counts by itself until it is
// finished. Both are counted under the lock that ends the server.
func (srv *Server) register(s *Socket, serve func()) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.over {
		return false
	}
	srv.sessions[s.id] = s
	if serve != nil {
		srv.core.running.Go(serve)
	} else {
		s.counted = true
		srv.core.running.Add(1)
	}
	return true
}

// refusal is an answer of Engine.IO to a request that is wrong.
type refusal struct {
	status  int
	code    int
	message string
}

var (
	refuseTransport = refusal{http.StatusBadRequest, 0, "Transport unknown"}
	refuseSession   = refusal{http.StatusBadRequest, 1, "Session ID unknown"}
	refuseMethod    = refusal{http.StatusBadRequest, 2, "Bad handshake method"}
	refuseRequest   = refusal{http.StatusBadRequest, 3, "Bad request"}
	refuseOrigin    = refusal{http.StatusForbidden, 4, "Forbidden"}
	refuseVersion   = refusal{http.StatusBadRequest, 5, "Unsupported protocol version"}
)

func (f refusal) write(w http.ResponseWriter, r *http.Request) {
	if ws.IsUpgrade(r) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(f.status)
		_, _ = w.Write([]byte(f.message)) // nobody is left to be told
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	body := append([]byte(`{"code":`), strconv.Itoa(f.code)...)
	body = wire.AppendQuote(append(body, `,"message":`...), f.message)
	_, _ = w.Write(append(body, '}'))
}

// ServeHTTP answers every request of Engine.IO (star.md §3.3).
func (srv *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	transport, sid := Transport(query.Get("transport")), query.Get("sid")
	switch {
	case !srv.cors(w, r):
		refuseOrigin.write(w, r)
	case r.Method == http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		w.WriteHeader(http.StatusOK)
	case !versionOK(query.Get("EIO")):
		refuseVersion.write(w, r)
	case transport != Polling && transport != WebSocket:
		refuseTransport.write(w, r)
	case sid != "":
		srv.session(w, r, transport, sid)
	case r.Method != http.MethodGet:
		refuseMethod.write(w, r)
	case query.Has("j") || (transport == WebSocket) != ws.IsUpgrade(r):
		refuseRequest.write(w, r)
	default:
		srv.open(w, r, transport)
	}
}

// cors sets the headers for pages of other origins; false for one not allowed.
func (srv *Server) cors(w http.ResponseWriter, r *http.Request) bool {
	h, origin := w.Header(), r.Header.Get("Origin")
	if origin == "" {
		h.Set("Access-Control-Allow-Origin", "*")
		return true
	}
	if len(srv.origins) > 0 && !srv.origins[origin] {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Add("Vary", "Origin")
	return true
}

// versionOK accepts revision 3, said or not; what is no number counts as not said.
func versionOK(eio string) bool {
	v, err := strconv.Atoi(eio)
	return err != nil || v <= 3
}

// session answers a request that names a session.
func (srv *Server) session(w http.ResponseWriter, r *http.Request, transport Transport, sid string) {
	s := srv.find(sid)
	switch {
	case s == nil:
		if srv.opts.Foreign == nil || !srv.opts.Foreign(w, r, sid) {
			refuseSession.write(w, r)
		}
	case transport == WebSocket && ws.IsUpgrade(r):
		srv.upgrade(w, r, s)
	case transport == Polling && r.Method == http.MethodGet:
		s.servePoll(w, r)
	case transport == Polling && r.Method == http.MethodPost:
		s.servePost(w, r)
	default:
		refuseRequest.write(w, r)
	}
}

// open makes a new session.
func (srv *Server) open(w http.ResponseWriter, r *http.Request, transport Transport) {
	s := newSocket(srv.core, srv.newID(), srv.opts.Handler)
	s.remote = srv.remote(r)
	s.noBinary.Store(noBinary(r))
	srv.mu.Lock()
	refusing := srv.refusing
	srv.mu.Unlock()
	var extra json.RawMessage
	err := error(errDraining)
	if !refusing {
		err = nil
		if srv.opts.Connect != nil {
			extra, err = srv.opts.Connect(s, r)
		}
	}
	if err != nil {
		unavailable(w, err)
		return
	}
	open := wire.AppendOpen(nil, srv.handshake(s, transport, extra))
	if transport == WebSocket {
		srv.openWebSocket(w, r, s, open)
	} else {
		srv.openPolling(w, s, open)
	}
}

var errDraining = &identity.Error{Code: identity.CodeClosed, Text: "server is shutting down", RetryAfter: 5 * time.Second}

// unavailable answers 503 and says when to try again.
func unavailable(w http.ResponseWriter, err error) {
	retry := time.Second
	var e *identity.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		retry = e.RetryAfter
	}
	w.Header().Set("Retry-After", strconv.Itoa(int((retry+time.Second-1)/time.Second)))
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

func (srv *Server) handshake(s *Socket, transport Transport, extra json.RawMessage) wire.Handshake {
	h := wire.Handshake{SID: s.id, Upgrades: []string{}, Parley: extra,
		PingInterval: int(srv.core.times.PingInterval.Milliseconds()), PingTimeout: int(srv.core.times.PingTimeout.Milliseconds())}
	if transport == Polling {
		h.Upgrades = []string{string(WebSocket)}
	}
	return h
}

// connectPacket is what follows the open packet: the root namespace is there.
var connectPacket = []byte{byte(wire.Message), byte(wire.Connect)}

func (srv *Server) openWebSocket(w http.ResponseWriter, r *http.Request, s *Socket, open []byte) {
	conn, err := ws.Accept(w, r, srv.core.limits.Message, srv.core.mem)
	if err != nil {
		s.end(ws.CodeProtocol, err)
		s.leave(err)
		return
	}
	s.writing.Store(true) // nobody writes before greet
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	if !srv.register(s, func() { s.greet(conn, open) }) {
		_ = conn.NetConn().Close()
		s.end(ws.CodeGoingAway, errDraining)
		s.leave(errDraining)
	}
}

// greet sends the first packets, with the answer to the handshake, and serves.
func (s *Socket) greet(conn *ws.Conn, open []byte) {
	b := conn.Batch()
	b.Add(ws.Text, open)
	b.Add(ws.Text, connectPacket)
	err := b.Flush(nil)
	b.Done()
	s.writing.Store(false)
	if err != nil {
		s.fail(conn, err)
	}
	s.startWriter() // for what was sent meanwhile
	s.serve(conn)
}

func (srv *Server) newID() string {
	var raw [15]byte
	_, _ = rand.Read(raw[:]) // never fails
	return srv.opts.Prefix + base64.RawURLEncoding.EncodeToString(raw[:])
}

func (srv *Server) remote(r *http.Request) netip.Addr {
	if srv.opts.Remote != nil {
		return srv.opts.Remote(r)
	}
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

func noBinary(r *http.Request) bool {
	b64 := r.URL.Query().Get("b64")
	return b64 != "" && b64 != "0"
}
