package ws_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/lxzan/gws"
	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

func echoServer(t *testing.T, mem *ws.Memory) *httptest.Server {
	var running sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := ws.Accept(w, r, echoLimit, mem); err == nil {
			running.Go(func() { echo(c) })
		}
	}))
	t.Cleanup(func() { srv.Close(); running.Wait() })
	return srv
}

var sizes = []int{0, 1, 125, 126, 4096, 4097, 16384, 65535, 65536, 65537, 300_000, echoLimit}

func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return b
}

// Each of two other implementations is the client of ours.
func TestServerWithOtherClients(t *testing.T) {
	var mem ws.Memory
	srv := echoServer(t, &mem)
	t.Run("coder", func(t *testing.T) {
		ctx := context.Background()
		c, _, err := websocket.Dial(ctx, srv.URL, &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(2 * echoLimit)
		for _, n := range sizes {
			for _, typ := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
				if err := c.Write(ctx, typ, payload(n)); err != nil {
					t.Fatal(err)
				}
				got, data, err := c.Read(ctx)
				if err != nil || got != typ || !bytes.Equal(data, payload(n)) {
					t.Fatalf("%d: %v, %d bytes, %v", n, got, len(data), err)
				}
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Error(err)
		}
	})
	t.Run("gws", func(t *testing.T) {
		h := &gwsEcho{got: make(chan []byte, 1)}
		c, _, err := gws.NewClient(h, &gws.ClientOption{Addr: "ws" + strings.TrimPrefix(srv.URL, "http"), ReadMaxPayloadSize: 2 * echoLimit,
			PermessageDeflate: gws.PermessageDeflate{Enabled: true}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); c.ReadLoop() }()
		for _, n := range sizes {
			if err := c.WriteMessage(gws.OpcodeBinary, payload(n)); err != nil {
				t.Fatal(err)
			}
			if got := <-h.got; !bytes.Equal(got, payload(n)) {
				t.Fatalf("%d: %d bytes came back", n, len(got))
			}
		}
		c.WriteClose(1000, nil)
		<-done
	})
}

type gwsEcho struct {
	gws.BuiltinEventHandler
	got chan []byte
}

func (h *gwsEcho) OnMessage(_ *gws.Conn, m *gws.Message) { h.got <- bytes.Clone(m.Bytes()); m.Close() }

// Our client with another server, and with ours.
func TestClientWithServers(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(2 * echoLimit)
		for {
			typ, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), typ, data) != nil {
				return
			}
		}
	}))
	defer other.Close()
	var mem ws.Memory
	for name, addr := range map[string]string{"coder": other.URL, "ours": echoServer(t, &mem).URL} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, addr, &mem)
			defer c.NetConn().Close()
			for _, n := range sizes {
				done := make(chan error, 1)
				go func() { done <- send(c, ws.Binary, payload(n)) }()
				m, err := c.Read()
				if err != nil || m.Op != ws.Binary || !bytes.Equal(m.Data, payload(n)) {
					t.Fatalf("%d: %d bytes, %v", n, len(m.Data), err)
				}
				m.Buf.Free()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			if err := send(c, ws.Close, ws.ClosePayload(1000, "")); err != nil {
				t.Fatal(err)
			}
			if m, err := c.Read(); err != nil || m.Op != ws.Close {
				t.Errorf("after close: %v, %v", m.Op, err)
			}
			if _, err := c.Read(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
			c.Release()
		})
	}
}

func dial(t *testing.T, addr string, mem *ws.Memory) *ws.Conn {
	t.Helper()
	u, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // must not end the connection
	c, err := ws.Dial(ctx, &http.Client{Transport: tr}, u, nil, echoLimit, mem)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(c *ws.Conn, op ws.Opcode, data []byte) error {
	b := c.Batch()
	b.Add(op, data)
	err := b.Flush(nil)
	b.Done()
	return err
}

func TestHandshakeRefusals(t *testing.T) {
	var mem ws.Memory
	srv := echoServer(t, &mem)
	good := http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	for _, c := range []struct {
		name, header, value string
		status              int
	}{
		{"good", "X", "y", 101}, {"no upgrade", "Upgrade", "h2c", 400}, {"no connection", "Connection", "close", 400},
		{"version 8", "Sec-Websocket-Version", "8", 426}, {"short key", "Sec-Websocket-Key", "YWJj", 400}, {"no key", "Sec-Websocket-Key", "", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, _ := http.NewRequest(http.MethodGet, srv.URL, nil)
			req.Header = good.Clone()
			req.Header.Set(c.header, c.value)
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
			if got := resp.Header.Get("Sec-WebSocket-Accept"); c.status == 101 && got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 §1.3
				t.Errorf("accept key %q", got)
			}
		})
	}
}

func TestDialRefusals(t *testing.T) {
	answer := func(h http.HandlerFunc) string {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return srv.URL
	}
	lying := func(w http.ResponseWriter, r *http.Request) {
		nc, _, _ := http.NewResponseController(w).Hijack()
		io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n")
		nc.Close()
	}
	for _, c := range []struct {
		name, addr string
		code       identity.Code
	}{
		{"no server", "http://127.0.0.1:1", identity.CodeUnreachable},
		{"404", answer(http.NotFound), identity.CodeRefused},
		{"wrong key", answer(lying), identity.CodeRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, _ := url.Parse(c.addr)
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			_, err := ws.Dial(context.Background(), &http.Client{Transport: tr}, u, nil, 1000, &ws.Memory{})
			if identity.CodeOf(err) != c.code {
				t.Errorf("error %v of code %q, want %q", err, identity.CodeOf(err), c.code)
			}
		})
	}
	t.Run("hanging", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		u, _ := url.Parse(answer(func(w http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }))
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		if _, err := ws.Dial(ctx, &http.Client{Transport: tr}, u, nil, 1000, &ws.Memory{}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// What a batch writes, in any mixture, is what the other end reads.
func TestBatchIsReadBack(t *testing.T) {
	for _, server := range []bool{true, false} {
		rapid.Check(t, func(rt *rapid.T) {
			var mem ws.Memory
			a, b := tcpPair(t)
			defer a.Close()
			defer b.Close()
			w, r := ws.NewConn(a, server, nil, echoLimit, &mem), ws.NewConn(b, !server, nil, echoLimit, &mem)
			lengths := rapid.SliceOfN(rapid.SampledFrom(sizes[:len(sizes)-2]), 1, 40).Draw(rt, "lengths")
			var wrote, progressed int
			done := make(chan error, 1)
			go func() {
				batch := w.Batch()
				defer batch.Done()
				for i, n := range lengths {
					wrote += batch.Add([]ws.Opcode{ws.Text, ws.Binary}[i&1], payload(n))
					if batch.Full() || i == len(lengths)-1 {
						if err := batch.Flush(func(n int) { progressed += n }); err != nil {
							done <- err
							return
						}
					}
				}
				done <- nil
			}()
			for i, n := range lengths {
				m, err := r.Read()
				if err != nil || m.Op != []ws.Opcode{ws.Text, ws.Binary}[i&1] || !bytes.Equal(m.Data, payload(n)) {
					rt.Fatalf("message %d of %d bytes: %d bytes, %v", i, n, len(m.Data), err)
				}
				m.Buf.Free()
			}
			if err := <-done; err != nil || wrote != progressed {
				rt.Fatalf("wrote %d, told of %d: %v", wrote, progressed, err)
			}
			r.Release()
			w.Release()
			if mem.Used() != 0 {
				rt.Fatalf("%d bytes still lent", mem.Used())
			}
		})
	}
}

// Nothing that comes makes the reader panic, hold memory or exceed the limit.
func FuzzRead(f *testing.F) {
	f.Add(masked(masked(nil, fr(0x01, "ab")), fr(0x80, "c")))
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var mem ws.Memory
		a, b := tcpPair(t)
		defer a.Close()
		defer b.Close()
		go func() { a.Write(raw); a.Close() }()
		c := ws.NewConn(b, true, nil, 2000, &mem)
		for {
			m, err := c.Read()
			if len(m.Data) > 2000 {
				t.Fatalf("message of %d bytes", len(m.Data))
			}
			m.Buf.Free()
			if err != nil {
				break
			}
		}
		if c.Release(); mem.Used() != 0 {
			t.Fatalf("%d bytes still lent", mem.Used())
		}
	})
}
