package ws

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/parley-p2p/parley/identity"
)

const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 §4.2.2

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// IsUpgrade says whether a request asks for a WebSocket at all.
func IsUpgrade(r *http.Request) bool {
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

// Accept answers a WebSocket request and takes over its connection; the handler
// should return afterwards. The answer goes out with the first Flush. limit
// bounds a message. A request that is not right is answered here, and the error
// tells what it was.
func Accept(w http.ResponseWriter, r *http.Request, limit int, mem *Memory) (*Conn, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	raw, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet || !IsUpgrade(r) || err != nil || len(raw) != 16:
		http.Error(w, "Bad request", http.StatusBadRequest)
		return nil, identity.Errorf(identity.CodeMalformed, "not a WebSocket handshake")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		w.Header().Set("Sec-WebSocket-Version", "13")
		http.Error(w, "Upgrade Required", http.StatusUpgradeRequired)
		return nil, identity.Errorf(identity.CodeUnsupported, "WebSocket version is not 13")
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "Bad request", http.StatusBadRequest)
		return nil, identity.Errorf(identity.CodeUnsupported, "connection can't be taken over: %w", err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		nc.Close()
		return nil, identity.Errorf(identity.CodeClosed, "clear deadline: %w", err)
	}
	buffered, _ := rw.Reader.Peek(rw.Reader.Buffered())
	c := NewConn(nc, true, buffered, limit, mem)
	c.prefix = []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		acceptKey(key) + "\r\n\r\n")
	return c, nil
}

func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// maxRefusal is how much of a refused handshake's body is quoted.
const maxRefusal = 256

// Dial opens a WebSocket. u has the scheme http or https; ctx bounds the
// handshake alone. Proxy, TLS and limits of the handshake are the client's, which
// must have no Timeout of its own. limit bounds a message. Errors:
// CodeUnreachable when nothing answers, CodeRefused for any answer but 101.
func Dial(ctx context.Context, client *http.Client, u *url.URL, header http.Header, limit int, mem *Memory) (*Conn, error) {
	// The transport ties the connection to the request's context for good, so the
	// request gets one that ends only while the handshake runs.
	reqCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	c, err := dial(reqCtx, client, u, header, limit, mem)
	if !stop() && err == nil {
		c.nc.Close()
		err = identity.Errorf(identity.CodeUnreachable, "open WebSocket: %w", ctx.Err())
	}
	if err != nil {
		cancel()
		return nil, err
	}
	c.nc.(*bodyConn).cancel = cancel
	return c, nil
}

func dial(ctx context.Context, client *http.Client, u *url.URL, header http.Header, limit int, mem *Memory) (*Conn, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "read random key: %w", err)
	}
	key := base64.StdEncoding.EncodeToString(raw[:])
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "open WebSocket: %w", err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return nil, identity.Errorf(identity.CodeUnreachable, "open WebSocket: %w", err)
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		resp.Body.Close()
		return nil, identity.Errorf(identity.CodeRefused, "the server answered the WebSocket handshake with %d: %q", resp.StatusCode, text)
	}
	if resp.Header.Get("Sec-WebSocket-Accept") != acceptKey(key) || !hasToken(resp.Header, "Upgrade", "websocket") ||
		resp.Header.Get("Sec-WebSocket-Extensions") != "" || resp.Header.Get("Sec-WebSocket-Protocol") != "" {
		body.Close()
		return nil, identity.Errorf(identity.CodeRefused, "the server's WebSocket handshake is wrong")
	}
	return NewConn(&bodyConn{ReadWriteCloser: body}, false, nil, limit, mem), nil
}

// bodyConn is the connection that an HTTP transport gives up after 101. It has
// no deadlines; closing it ends all waiting.
type bodyConn struct {
	io.ReadWriteCloser
	cancel context.CancelFunc
}

// Close closes the connection and forgets the request.
func (c *bodyConn) Close() error {
	err := c.ReadWriteCloser.Close()
	if c.cancel != nil {
		c.cancel()
	}
	return err
}

type noAddr struct{}

func (noAddr) Network() string { return "websocket" }
func (noAddr) String() string  { return "websocket" }

func (c *bodyConn) LocalAddr() net.Addr              { return noAddr{} }
func (c *bodyConn) RemoteAddr() net.Addr             { return noAddr{} }
func (c *bodyConn) SetDeadline(time.Time) error      { return nil }
func (c *bodyConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bodyConn) SetWriteDeadline(time.Time) error { return nil }
