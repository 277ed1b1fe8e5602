package socketio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The client's polling transport: one goroutine polls, one posts what waits, and
// with Upgrade a WebSocket takes over from both.

// openPolling polls until the root namespace is open.
func (c *Client) openPolling(ctx context.Context) error {
	for ready := false; !ready; {
		packets, err := c.pollOnce(ctx)
		if err != nil {
			return err
		}
		for _, p := range packets {
			if ready {
				c.first = append(c.first, p)
			} else if ready, err = c.openPacket(p); err != nil {
				return err
			}
		}
		if len(packets) == 0 {
			return errNoOpen
		}
	}
	return nil
}

// pollOnce makes one GET and decodes its body. The packets are copies.
func (c *Client) pollOnce(ctx context.Context) (packets []wire.Packet, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(Polling).String(), nil)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "poll: %w", err)
	}
	body, contentType, err := c.do(req)
	if err != nil {
		return nil, err
	}
	decode := wire.DecodeText
	if contentType == wire.BinaryType {
		decode = wire.DecodeBinary
	}
	err = decode(body, func(p wire.Packet) error {
		packets = append(packets, p)
		return nil
	})
	return packets, err
}

// bodySlack is how much longer than a message a body may be: a poll carries
// several, and base64.
const bodySlack = 4

func (c *Client) do(req *http.Request) (body []byte, contentType string, err error) {
	resp, err := c.opts.HTTP.Do(req)
	if err != nil {
		return nil, "", identity.Errorf(identity.CodeUnreachable, "%s: %w", req.Method, err)
	}
	defer resp.Body.Close()
	limit := int64(bodySlack * c.socket.core.limits.Message)
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, "", identity.Errorf(identity.CodeUnreachable, "%s: %w", req.Method, err)
	case int64(len(body)) > limit:
		return nil, "", errTooLarge
	case resp.StatusCode != http.StatusOK:
		return nil, "", identity.Errorf(identity.CodeRefused, "the server answered %d: %.200q", resp.StatusCode, body)
	}
	return body, resp.Header.Get("Content-Type"), nil
}

// servePolling polls and posts until the end, or until a WebSocket has taken over,
// which it then serves.
func (c *Client) servePolling(ctx context.Context) {
	s := c.socket
	pollCtx, stopPoll := context.WithCancel(context.WithoutCancel(ctx))
	postCtx, stopPost := context.WithCancel(context.Background())
	defer stopPost()
	p := &pollState{wake: make(chan struct{}, 1), last: make(chan struct{})}
	s.mu.Lock()
	s.poll = p
	s.mu.Unlock()
	var others, poster sync.WaitGroup
	poster.Go(func() { c.post(postCtx, p) })
	others.Go(func() {
		<-s.done
		poster.Wait() // the goodbye ends the poll at the other end
		stopPoll()
	})
	if c.opts.Upgrade && len(c.open.Upgrades) > 0 {
		others.Go(func() { c.probe(pollCtx) })
	}
	conn := c.poll(pollCtx)
	if conn != nil {
		stopPost()
		poster.Wait()
		c.switchTo(conn)
	} else {
		s.Close(ws.CodeNormal, ErrEnded)
		poster.Wait()
	}
	others.Wait()
	select {
	case late := <-c.upgraded:
		_ = late.NetConn().Close()
		late.Release()
	default:
	}
}

// poll polls until the end, or until a WebSocket waits to take over.
func (c *Client) poll(ctx context.Context) *ws.Conn {
	s := c.socket
	packets := c.first
	for s.Err() == nil {
		for _, packet := range packets {
			if err := s.receivePolled(packet); err != nil {
				s.Close(ws.CodeNormal, err)
				return nil
			}
		}
		select {
		case conn := <-c.upgraded:
			return conn
		default:
		}
		var err error
		if packets, err = c.pollOnce(ctx); err != nil {
			s.Close(ws.CodeNormal, err)
		}
	}
	return nil
}

func (s *Socket) receivePolled(p wire.Packet) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if p.Binary {
		return s.receiveData(p.Raw, nil)
	}
	return s.receiveText(p.Raw, nil)
}

// post sends what waits, one request at a time, and says goodbye last.
func (c *Client) post(ctx context.Context, p *pollState) {
	s := c.socket
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !p.lastOnce {
			p.lastOnce = true
			close(p.last)
		}
	}()
	for {
		items, err := s.out.Pop(ctx, s.core.limits.Message/2, nil)
		if err != nil && ctx.Err() != nil {
			return // a WebSocket goes on
		}
		contentType, body := wire.TextType, wire.AppendText(nil, wire.Packet{Type: wire.Close})
		if len(items) > 0 {
			contentType, body = s.encodePoll(items)
		}
		wait := s.core.times.Stuck
		if s.Err() != nil {
			wait = s.core.times.Linger
		}
		failed := c.postBody(wait, contentType, body)
		for _, it := range items {
			s.settle(it, failed == nil)
		}
		if failed != nil {
			s.Close(ws.CodeNormal, failed)
		}
		if err != nil || failed != nil {
			return
		}
	}
}

func (c *Client) postBody(wait time.Duration, contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(Polling).String(), bytes.NewReader(body))
	if err != nil {
		return identity.Errorf(identity.CodeMalformed, "post: %w", err)
	}
	req.Header.Set("Content-Type", contentType)
	answer, _, err := c.do(req)
	if err == nil && string(answer) != "ok" {
		err = identity.Errorf(identity.CodeRefused, "the server answered a POST with %.50q", answer)
	}
	return err
}

// probe opens a WebSocket beside the poll and hands it over once the server has
// answered on it.
func (c *Client) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.socket.core.times.Upgrade)
	defer cancel()
	conn, err := c.dialWebSocket(ctx)
	if err != nil {
		return // polling goes on
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })
	b := conn.Batch()
	b.Add(ws.Text, append([]byte{byte(wire.Ping)}, probe...))
	err = b.Flush(nil)
	b.Done()
	ok := err == nil && readProbe(conn, byte(wire.Pong), probe)
	if !stop() || !ok {
		_ = conn.NetConn().Close()
		conn.Release()
		return
	}
	c.upgraded <- conn // the poll that waits is released by the server
}

// switchTo ends polling and serves the WebSocket: no request is under way.
func (c *Client) switchTo(conn *ws.Conn) {
	s := c.socket
	s.writing.Store(true) // nobody writes before the upgrade packet
	s.mu.Lock()
	s.conn, s.poll = conn, nil
	s.mu.Unlock()
	b := conn.Batch()
	b.Add(ws.Text, []byte{byte(wire.Upgrade)})
	err := b.Flush(nil)
	b.Done()
	s.writing.Store(false)
	if err != nil && !errors.Is(err, ErrEnded) {
		s.fail(conn, err)
	}
	s.startWriter()
	s.serve(conn)
}
