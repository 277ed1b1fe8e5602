package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// DialOptions configures a client.
type DialOptions struct {
	Handler Handler
	Limits  Limits // Limits.Message bounds what the server may send at once

	// Transport is WebSocket unless set. Polling stays on polling, unless Upgrade
	// is set and the server offers a WebSocket.
	Transport Transport
	Upgrade   bool

	// Query is added to the query of every request.
	Query url.Values

	// NoBinary asks for base64 instead of binary frames and bodies (b64=1).
	NoBinary bool

	// HTTP makes the requests; nil is a client of its own with the proxy settings
	// of the environment. It must have no Timeout, and with Polling its connections
	// must not be idle for longer than IdleTime.
	HTTP *http.Client

	// Memory lends the buffers; nil makes an own one.
	Memory *ws.Memory

	// Linger is how long the end may take; 5 s.
	Linger time.Duration
}

// IdleTime is how long a connection between two requests is kept. It is well below
// what servers keep one for: Node closes it after 5 s without a request, ours and
// many others 10 s after it was made where none came at all, which befalls one that
// http.Transport dialled while another became free. A POST that is written on a
// connection just as its server closes it is lost, and can't be sent again, as the
// server may have read it: the session would end for nothing.
const IdleTime = 2 * time.Second

func ownTransport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: IdleTime}
}

// Client is the client's end: a Socket and what drives it.
type Client struct {
	// Static after construction.
	socket *Socket
	opts   DialOptions
	base   *url.URL
	open   wire.Handshake
	first  []wire.Packet // came with the handshake of a poll, after the open packet

	upgraded chan *ws.Conn // capacity 1
}

// Dial connects to the server at base (scheme http or https, host), and returns
// when the server has opened the session and the root namespace. ctx bounds that
// alone. Nothing is read or sent before Run. Errors: CodeUnreachable when nothing
// answers, CodeRefused or CodeMalformed for an answer that is no Socket.IO 2.
func Dial(ctx context.Context, base *url.URL, opts DialOptions) (*Client, error) {
	if opts.HTTP == nil {
		opts.HTTP = &http.Client{Transport: ownTransport()}
	}
	c := &core{mem: opts.Memory, limits: opts.Limits.withDefaults(), times: Times{Linger: opts.Linger}.withDefaults()}
	if c.mem == nil {
		c.mem = &ws.Memory{}
	}
	c.clock.Store(time.Now().UnixNano())
	cl := &Client{opts: opts, base: base, upgraded: make(chan *ws.Conn, 1)}
	cl.socket = newSocket(c, "", opts.Handler)
	cl.socket.client = true
	cl.socket.noBinary.Store(opts.NoBinary)
	var err error
	if opts.Transport == Polling {
		err = cl.openPolling(ctx)
	} else {
		err = cl.openWebSocket(ctx)
	}
	if err != nil {
		return nil, err
	}
	cl.socket.id = cl.open.SID
	c.times.PingInterval = time.Duration(cl.open.PingInterval) * time.Millisecond
	c.times.PingTimeout = time.Duration(cl.open.PingTimeout) * time.Millisecond
	return cl, nil
}

// Socket is the client's connection.
func (c *Client) Socket() *Socket { return c.socket }

// Extension is what a parley server says in its open packet; nil from others.
func (c *Client) Extension() json.RawMessage { return c.open.Parley }

// url is the address of a request of one transport.
func (c *Client) url(transport Transport) *url.URL {
	q := url.Values{"EIO": {"3"}, "transport": {string(transport)}}
	for name, values := range c.opts.Query {
		q[name] = values
	}
	if c.opts.NoBinary {
		q.Set("b64", "1")
	}
	if c.open.SID != "" {
		q.Set("sid", c.open.SID)
	}
	u := *c.base
	u.Path, u.RawQuery = "/socket.io/", q.Encode()
	return &u
}

func (c *Client) dialWebSocket(ctx context.Context) (*ws.Conn, error) {
	core := c.socket.core
	return ws.Dial(ctx, c.opts.HTTP, c.url(WebSocket), nil, core.limits.Message, core.mem)
}

func (c *Client) openWebSocket(ctx context.Context) error {
	conn, err := c.dialWebSocket(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })
	err = c.readOpen(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.NetConn().Close()
		conn.Release()
		if cause := ctx.Err(); cause != nil {
			err = identity.Errorf(identity.CodeUnreachable, "open session: %w", cause)
		}
		return err
	}
	c.socket.conn = conn
	return nil
}

// readOpen reads up to the packet that opens the root namespace.
func (c *Client) readOpen(conn *ws.Conn) error {
	for {
		m, err := conn.Read()
		if err != nil {
			return identity.Errorf(identity.CodeUnreachable, "open session: %w", err)
		}
		if m.Op != ws.Text {
			m.Buf.Free()
			return errNoOpen
		}
		p, err := wire.ParsePacket(m.Data)
		ready := false
		if err == nil {
			ready, err = c.openPacket(p)
		}
		m.Buf.Free()
		if ready || err != nil {
			return err
		}
	}
}

var errNoOpen = &identity.Error{Code: identity.CodeRefused, Text: "the server doesn't open a session of Socket.IO 2"}

// openPacket takes one of the first packets; ready is true when the root namespace
// is open.
func (c *Client) openPacket(p wire.Packet) (ready bool, err error) {
	switch {
	case p.Type == wire.Open && c.open.SID == "":
		c.open, err = wire.ParseOpen(p.Data)
		return false, err
	case c.open.SID == "":
		return false, errNoOpen
	case p.Type == wire.Noop:
		return false, nil
	case p.Type == wire.Message && len(p.Data) > 0 && wire.Kind(p.Data[0]) == wire.Connect:
		return true, nil
	}
	return false, errNoOpen
}

// Run serves the connection until it ends or ctx does, which is a goodbye. It
// returns why: ErrGoodbye where the server said so, nil where ctx ended. It may be
// called once.
func (c *Client) Run(ctx context.Context) error {
	s := c.socket
	var wg sync.WaitGroup
	if conn := s.conn; conn != nil {
		wg.Go(func() { s.startWriter(); s.serve(conn) })
	} else {
		s.counted = true
		s.core.running.Add(1)
		wg.Go(func() { c.servePolling(ctx) })
	}
	wg.Go(c.heartbeat)
	select {
	case <-ctx.Done():
		_ = s.Send(flow.Bulk, Msg{Text: []byte{byte(wire.Message), byte(wire.Disconnect)}})
		s.Close(ws.CodeNormal, ErrEnded)
	case <-s.done:
	}
	timer := time.AfterFunc(s.core.times.Linger, c.cut)
	wg.Wait()
	s.core.running.Wait()
	timer.Stop()
	if err := s.Err(); ctx.Err() == nil || !errors.Is(err, ErrEnded) {
		return err
	}
	return nil
}

// cut closes a connection whose end takes too long.
func (c *Client) cut() {
	c.socket.mu.Lock()
	conn := c.socket.conn
	c.socket.mu.Unlock()
	if conn != nil {
		_ = conn.NetConn().Close()
	}
}

// heartbeat pings as the server told, and ends the socket when nothing comes after
// a ping. While the reader is held back nothing can come.
func (c *Client) heartbeat() {
	s, t := c.socket, &c.socket.core.times
	timer := time.NewTimer(t.PingInterval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.done:
			return
		}
		pinged := s.core.now()
		s.core.clock.Store(pinged.UnixNano())
		s.packetText([]byte{byte(wire.Ping)})
		if !c.awaitLife(pinged, timer) {
			s.kill(ErrSilent)
			return
		}
		timer.Reset(max(t.PingInterval-time.Since(pinged), 0))
	}
}

// awaitLife waits for any packet after a ping. A held reader sees none: the next
// ping then shows whether the connection still takes bytes.
func (c *Client) awaitLife(pinged time.Time, timer *time.Timer) bool {
	s := c.socket
	const looks = 4
	for range looks {
		timer.Reset(s.core.times.PingTimeout / looks)
		select {
		case <-timer.C:
		case <-s.done:
			return true
		}
		if s.lastSeen.Load() >= pinged.UnixNano() {
			return true
		}
	}
	return s.held.Load() != 0
}
