package muxws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/wire"
)

const (
	headroom  = 3                // bytes of the longest length of a record
	firstRead = 4 << 10          // bytes of a message that are made room for at once
	closeTime = time.Second / 2  // for the close handshake
	pingEvery = 15 * time.Second // docs/spec/channels.md §13
	pongTime  = 45 * time.Second
)

// socket is a WebSocket that is kept alive. Somebody has to read it, or no pong
// and no close is seen.
type socket struct {
	ws      *websocket.Conn
	raw     net.Conn // below it, to end what does not end by itself
	reading atomic.Bool
	once    sync.Once
	stop    context.CancelFunc
	pinging sync.WaitGroup
}

func newSocket(ws *websocket.Conn, raw net.Conn) *socket {
	ws.SetReadLimit(wire.MaxRecord)
	ctx, stop := context.WithCancel(context.Background())
	s := &socket{ws: ws, raw: raw, stop: stop}
	s.pinging.Add(1)
	go func() {
		defer s.pinging.Done()
		s.ping(ctx)
	}()
	return s
}

// ping ends the connection when the other end does not answer although this end
// reads.
func (s *socket) ping(ctx context.Context) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		wait, cancel := context.WithTimeout(ctx, pongTime)
		err := s.ws.Ping(wait)
		cancel()
		if err != nil && (ctx.Err() != nil || s.reading.Load()) {
			_ = s.raw.Close() // a Read tells why
			return
		}
	}
}

// message waits for the next binary message and appends it to buf, after head
// bytes that are left free. Memory grows with what comes, not with what a length
// claims.
func (s *socket) message(buf []byte, head int) ([]byte, error) {
	s.reading.Store(true)
	defer s.reading.Store(false)
	kind, r, err := s.ws.Reader(context.Background())
	if err != nil {
		if c := websocket.CloseStatus(err); c == websocket.StatusNormalClosure || c == websocket.StatusGoingAway {
			err = io.EOF
		}
		return buf, err
	}
	if kind != websocket.MessageBinary {
		s.refuse("text")
		return buf, fmt.Errorf("%w: a text message", wire.ErrMalformed)
	}
	buf = slices.Grow(buf, head+firstRead)[:len(buf)+head]
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// refuse ends the connection with a reason for people.
func (s *socket) refuse(reason string) { s.end(websocket.StatusPolicyViolation, reason) }

// Close ends the connection: in order where the other end answers in time. It
// ends a Read and a Write that wait.
func (s *socket) Close() error {
	s.end(websocket.StatusNormalClosure, "")
	return nil
}

func (s *socket) end(code websocket.StatusCode, reason string) {
	s.once.Do(func() {
		s.stop()
		late := time.AfterFunc(closeTime, func() { _ = s.raw.Close() })
		_ = s.ws.Close(code, reason) // it is over, whatever comes of it
		late.Stop()
		s.pinging.Wait()
	})
}

// bytesConn is a socket as a stream of bytes: borders of messages do not matter.
type bytesConn struct {
	*socket
	buf, rest []byte // owned by the reader
}

// Read implements net.Conn.
func (c *bytesConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		msg, err := c.message(c.buf[:0], 0)
		if err != nil {
			return 0, err
		}
		c.buf, c.rest = msg, msg
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write implements net.Conn: one message.
func (c *bytesConn) Write(p []byte) (int, error) {
	if err := c.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// LocalAddr implements net.Conn.
func (c *bytesConn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *bytesConn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline implements net.Conn. A deadline that passes ends the connection.
func (c *bytesConn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *bytesConn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *bytesConn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }
