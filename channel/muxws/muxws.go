// Package muxws carries connections of channels over WebSocket, for nodes between
// which nothing else gets through (docs/spec/channels.md §2): the server's handler
// and the client's Dial.
//
//	parley.mux.1.0.0         one binary message, one record; nobody proves who he is
//	parley.mux-packed.1.0.0  the same, packed, for document-only peers
//	parley.mux-noise.1.0.0   libp2p's Noise XX in binary messages, then a byte stream
//
// Only the last one gives authenticated ends, and with them proven channels. Pages
// are not served: a request with an Origin is refused. How many connections there
// may be is the node's to say, before the upgrade.
package muxws

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/libp2p/go-libp2p/p2p/security/noise"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire"
)

// The subprotocols.
const (
	Subprotocol       = "parley.mux.1.0.0"
	SubprotocolPacked = "parley.mux-packed.1.0.0"
	SubprotocolNoise  = "parley.mux-noise.1.0.0"
)

const (
	// handshakeTime is how long a Noise handshake may take.
	handshakeTime = 10 * time.Second
	// maxHandshakes bounds those under way at the server.
	maxHandshakes = 64
)

// Path is where a node takes connections for a network.
func Path(network string) string { return "/v1/" + network + "/mux" }

// Config is what a Service is made with.
type Config struct {
	Key   identity.Key // the node's own, for Noise
	Nodes Node
	Log   *slog.Logger // nil logs nothing
}

// Node is what takes the connections; a channel.Node is one.
type Node interface {
	// Admits is asked before the upgrade whether there is room for a connection
	// from an address.
	Admits(address string) error
	// Serve serves a connection until it ends or ctx does.
	Serve(ctx context.Context, c channel.Carrier) error
}

// Service takes connections over WebSocket, as an http.Handler, and makes them.
// Its methods may be called by any goroutine.
type Service struct {
	// static after New
	node    Node
	key     identity.Key
	secure  *noise.Transport
	log     *slog.Logger
	timeout time.Duration
	shaking chan struct{} // holds a token for each handshake under way at the server

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex // guards closed and that nothing is added to serving after it
	closed  bool
	serving sync.WaitGroup
}

// New makes a service. Close ends it.
func New(cfg Config) (*Service, error) {
	secure, err := noise.New(noise.ID, cfg.Key.Libp2p(), nil)
	if err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "channels over WebSocket: %w", err)
	}
	s := &Service{
		node: cfg.Nodes, key: cfg.Key, secure: secure, log: cfg.Log,
		timeout: handshakeTime, shaking: make(chan struct{}, maxHandshakes),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends the connections that were taken, in order, and waits for them. Those
// that were dialled are their caller's.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.serving.Wait()
}

func (s *Service) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.serving.Add(1)
	}
	return !s.closed
}

// ServeHTTP takes a connection and returns when it has ended:
//
//  1. Refuse pages (403), what is no upgrade (426), and where there is no room (503).
//  2. Upgrade, with the first of the client's subprotocols that is known.
//  3. With Noise: the handshake.
//  4. Serve.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		http.Error(w, "the node stops", http.StatusServiceUnavailable)
		return
	}
	defer s.serving.Done()
	if r.Header.Get("Origin") != "" {
		http.Error(w, "this endpoint is not for pages", http.StatusForbidden)
		return
	}
	address := addressOf(r)
	if err := s.node.Admits(address); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	raw := &hijacker{ResponseWriter: w}
	ws, err := websocket.Accept(raw, r, &websocket.AcceptOptions{
		Subprotocols: []string{Subprotocol, SubprotocolPacked, SubprotocolNoise}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return // it has answered
	}
	c, err := s.carrier(s.ctx, newSocket(ws, raw.conn), "", false)
	if err != nil {
		s.log.Debug("channels over WebSocket", "address", address, "reason", err)
		return
	}
	c.Address = address
	err = s.node.Serve(s.ctx, c)
	s.log.Debug("connection ended", "peer", c.Remote, "address", address, "reason", err)
}

// hijacker keeps the connection of an upgrade, which the library does not show.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	conn, rw, err = http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}

func addressOf(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return channel.AddressKey(at.Addr().Unmap())
}

// Dial connects to the node peer at a URL, with Noise: ws://… or wss://…. The
// carrier is the caller's, to give to a channel.Node or to close. Errors:
// CodeUnreachable, also where another node answers; the context's.
func (s *Service) Dial(ctx context.Context, url string, peer identity.PeerID) (channel.Carrier, error) {
	return s.dial(ctx, url, peer, SubprotocolNoise)
}

// DialPlain connects without a proof of either end: claimed is who should be
// there. All channels are unproven.
func (s *Service) DialPlain(ctx context.Context, url string, claimed identity.PeerID) (channel.Carrier, error) {
	return s.dial(ctx, url, claimed, Subprotocol, SubprotocolPacked)
}

func (s *Service) dial(ctx context.Context, url string, peer identity.PeerID, offer ...string) (c channel.Carrier, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var raw net.Conn
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		var d net.Dialer
		raw, err = d.DialContext(ctx, network, address)
		return raw, err
	}}
	ws, answer, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		Subprotocols: offer, CompressionMode: websocket.CompressionDisabled, HTTPClient: &http.Client{Transport: transport},
	})
	if answer != nil && answer.Body != nil {
		defer answer.Body.Close()
	}
	if err == nil {
		c, err = s.carrier(ctx, newSocket(ws, raw), peer, true)
	}
	transport.CloseIdleConnections()
	if err != nil && ctx.Err() == nil {
		err = identity.Errorf(identity.CodeUnreachable, "channels over WebSocket at %s: %w", url, err)
	}
	return c, err
}

// carrier makes what a channel.Node serves of a socket, which it closes where
// that fails. peer is who should be there.
func (s *Service) carrier(ctx context.Context, ws *socket, peer identity.PeerID, dialer bool) (channel.Carrier, error) {
	c := channel.Carrier{Dialer: dialer, Claimed: peer}
	switch ws.ws.Subprotocol() {
	case Subprotocol:
		c.Stream = &records{socket: ws}
	case SubprotocolPacked:
		c.Stream, c.Format = &records{socket: ws}, wire.Packed
	case SubprotocolNoise:
		return s.handshake(ctx, ws, peer, dialer)
	default:
		ws.refuse("no subprotocol in common")
		return c, errors.New("no subprotocol in common")
	}
	return c, nil
}

// handshake proves both ends to each other. The responder takes anybody, so what
// it has under way is bounded; who dials is not held up by that.
func (s *Service) handshake(ctx context.Context, ws *socket, peer identity.PeerID, dialer bool) (c channel.Carrier, err error) {
	if !dialer {
		select {
		case s.shaking <- struct{}{}:
			defer func() { <-s.shaking }()
		default:
			ws.refuse("too many handshakes")
			return c, errors.New("too many handshakes are under way")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	stream := &bytesConn{socket: ws}
	shake := s.secure.SecureInbound
	if dialer {
		shake = s.secure.SecureOutbound
	}
	conn, err := shake(ctx, stream, peer)
	if err != nil {
		_ = ws.Close() // the handshake has failed already
		return c, err
	}
	return channel.Carrier{Stream: conn, Dialer: dialer, Local: conn.LocalPeer(), Remote: conn.RemotePeer()}, nil
}
