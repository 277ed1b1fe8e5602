package socket_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	"github.com/parley-p2p/parley/gateway/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves one socket with f, and waits for it at the end of the test.
func serve(t *testing.T, f func(s *socket.Socket)) *httptest.Server {
	t.Helper()
	done := make(chan struct{})
	server := httptest.NewServer(handler(func(s *socket.Socket) {
		defer close(done)
		f(s)
	}))
	t.Cleanup(func() {
		<-done
		server.Close()
	})
	return server
}

// handler serves sockets with f.
func handler(f func(s *socket.Socket)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := socket.Accept(w, r, socket.Options{Limit: 1 << 20, PongOK: func() bool { return true }, Heard: func() {}})
		if err != nil {
			return
		}
		defer s.Abort()
		f(s)
	})
}

func dial(t *testing.T, server *httptest.Server) (*websocket.Conn, net.Conn) {
	t.Helper()
	var under net.Conn
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			under = c
			return c, err
		}}}
	ws, _, err := websocket.Dial(t.Context(), server.URL, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws, under
}

// TestRead_HalfAMessageIsNoMessage cuts a message at every length: the library
// alone takes some of the halves for whole ones.
func TestRead_HalfAMessageIsNoMessage(t *testing.T) {
	whole := append([]byte{0x82, 0x80 | 126, 0x04, 0, 0, 0, 0, 0}, bytes.Repeat([]byte("x"), 1024)...)
	for _, cut := range []int{0, 1, 2, 4, 7, 8, 9, 100, 519, 520, 521, 1031} {
		type result struct {
			msg []byte
			err error
		}
		got := make(chan result, 1)
		server := serve(t, func(s *socket.Socket) {
			_, msg, err := s.Read(nil)
			got <- result{msg, err}
		})
		_, under := dial(t, server)
		if _, err := under.Write(whole[:cut]); err != nil {
			t.Fatal(err)
		}
		_ = under.(*net.TCPConn).CloseWrite()
		r := <-got
		if r.err == nil {
			t.Errorf("cut at %d: %d bytes were read as a message", cut, len(r.msg))
		} else if code, theirs := socket.CloseCode(r.err); code != 0 || theirs {
			t.Errorf("cut at %d: code %d, %v; want a lost connection", cut, code, r.err)
		}
	}
}

func TestWrite_MessagesArriveWholeAndInOrder(t *testing.T) {
	sizes := []int{0, 1, 500, 512, 4096, 64 << 10, 300 << 10, 3}
	server := serve(t, func(s *socket.Socket) {
		var msgs [][]byte
		for i, n := range sizes {
			msgs = append(msgs, bytes.Repeat([]byte{byte('a' + i)}, n))
		}
		if err := s.Write(socket.Binary, msgs...); err != nil {
			t.Errorf("write: %v", err)
		}
		_, _, _ = s.Read(nil)
	})
	ws, _ := dial(t, server)
	ws.SetReadLimit(1 << 20)
	for i, n := range sizes {
		kind, msg, err := ws.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(msg, bytes.Repeat([]byte{byte('a' + i)}, n)) {
			t.Fatalf("message %d: %d bytes, want %d: %v", i, len(msg), n, err)
		}
	}
}

// TestInterrupt_EndsReadAndCanStillClose holds what ends a link: the page gets a
// close code though the reader was in the middle of waiting.
func TestInterrupt_EndsReadAndCanStillClose(t *testing.T) {
	server := serve(t, func(s *socket.Socket) {
		ended := make(chan error, 1)
		go func() {
			_, _, err := s.Read(nil)
			ended <- err
		}()
		s.Interrupt(0)
		if err := <-ended; err == nil {
			t.Error("read goes on")
		}
		s.Close(socket.GoingAway, strings.Repeat("long ", 100), time.Second)
	})
	ws, _ := dial(t, server)
	_, _, err := ws.Read(t.Context())
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != 1001 || len(ce.Reason) != 123 {
		t.Errorf("page sees %v", err)
	}
}

// TestClose_DoesNotWaitForAPageThatIsGone bounds a close by its second.
func TestClose_DoesNotWaitForAPageThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := make(chan time.Duration, 1)
		pipes := gatewaytest.NewPipes()
		server := &http.Server{Handler: handler(func(s *socket.Socket) {
			began := time.Now()
			s.Close(socket.Normal, "", time.Second)
			took <- time.Since(began)
		})}
		go func() { _ = server.Serve(pipes) }()
		defer server.Close()
		var under net.Conn
		client := pipes.Client(func(c net.Conn) net.Conn { under = c; return c })
		_, _, err := websocket.Dial(t.Context(), "ws://node", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-took; got != time.Second { // the library alone waits 5 s
			t.Errorf("close took %v", got)
		}
		_, _ = io.Copy(io.Discard, under)
	})
}

// TestWriteParts_IsOneMessage writes messages that stand in parts of every kind
// of size, above what is written at a time too.
func TestWriteParts_IsOneMessage(t *testing.T) {
	tests := [][]int{{}, {0}, {1}, {20, 0, 105}, {126}, {10, 64 << 10, 2}, {80 << 10}, {79 << 10, 300 << 10, 1, 500 << 10, 7}}
	part := func(i, n int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, n) }
	server := serve(t, func(s *socket.Socket) {
		for _, sizes := range tests {
			var parts [][]byte
			for i, n := range sizes {
				parts = append(parts, part(i, n))
			}
			if err := s.WriteParts(socket.Binary, parts); err != nil {
				t.Errorf("write %v: %v", sizes, err)
			}
			for i, n := range sizes {
				if !bytes.Equal(parts[i], part(i, n)) {
					t.Errorf("%v: part %d has changed", sizes, i)
				}
			}
		}
		_, _, _ = s.Read(nil)
	})
	ws, _ := dial(t, server)
	ws.SetReadLimit(1 << 20)
	for _, sizes := range tests {
		var want []byte
		for i, n := range sizes {
			want = append(want, part(i, n)...)
		}
		kind, msg, err := ws.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(msg, want) {
			t.Fatalf("%v: %d bytes, want %d: %v", sizes, len(msg), len(want), err)
		}
	}
}

// TestWrite_NothingFollowsACloseFrame: the reader answers a close frame while the
// writer goes on.
func TestWrite_NothingFollowsACloseFrame(t *testing.T) {
	read, ended := make(chan struct{}), make(chan error, 1)
	server := serve(t, func(s *socket.Socket) {
		_, _, _ = s.Read(nil) // gets the close frame and answers it
		close(read)
		ended <- s.Write(socket.Binary, []byte("late"))
	})
	_, under := dial(t, server)
	if _, err := under.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 1000 >> 8, 1000 & 255}); err != nil {
		t.Fatal(err)
	}
	<-read
	if err := <-ended; err == nil {
		t.Error("a frame was written behind the close frame")
	}
	if rest, _ := io.ReadAll(under); bytes.Contains(rest, []byte("late")) {
		t.Errorf("the page got % x", rest)
	}
}
