package link_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	"github.com/parley-p2p/parley/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is an outlet that writes strings, one a message.
type lines struct{ l *link.Link }

func (o lines) Open() bool         { return true }
func (o lines) Due() time.Duration { return -1 }
func (o lines) Flush(items []string) error {
	for _, s := range items {
		if err := o.l.Write(socket.Text, []byte(s)); err != nil {
			return err
		}
	}
	return nil
}
func (o lines) Farewell(bye *identity.Error) error {
	return o.l.Write(socket.Text, []byte("bye: "+bye.Text))
}

// open serves one link with f, and gives the page's end of it.
func open(t *testing.T, f func(l *link.Link)) *websocket.Conn {
	t.Helper()
	served := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		if l, err := link.Accept(w, r, slog.New(slog.DiscardHandler), nil, 1<<20); err == nil {
			f(l)
		}
	}))
	t.Cleanup(func() {
		<-served
		server.Close()
	})
	ws, _, err := websocket.Dial(t.Context(), server.URL, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

// drain reads until the socket ends.
func drain(t *testing.T, ws *websocket.Conn) (got []string, code websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, msg, err := ws.Read(ctx)
		if err != nil {
			return got, websocket.CloseStatus(err)
		}
		got = append(got, string(msg))
	}
}

// ignore reads and does nothing with it.
func ignore(l *link.Link) func() error {
	return func() error {
		for {
			if _, _, err := l.Read(nil); err != nil {
				return err
			}
		}
	}
}

func TestStopping_WritesWhatWaitsAndSaysGoodbye(t *testing.T) {
	q := flow.NewQueue[string](1 << 20)
	links := make(chan *link.Link, 1)
	ws := open(t, func(l *link.Link) {
		links <- l
		why := l.Run(ignore(l), func() error { return link.NewWriter(l, q, lines{l}).Run() })
		l.HangUp(why)
	})
	l := <-links
	for i := range 100 {
		if err := q.TryPush(flow.Bulk, fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	l.End(link.Stopping)
	got, code := drain(t, ws)
	if code != 1001 || len(got) != 101 || got[99] != "99" || got[100] != "bye: the node stops" {
		t.Errorf("closed with %d after %q", code, got)
	}
}

// TestStopping_EndsAWriterThatIsNeverIdle has a queue that fills itself again.
func TestStopping_EndsAWriterThatIsNeverIdle(t *testing.T) {
	q := flow.NewQueue[string](1 << 20)
	links := make(chan *link.Link, 1)
	ws := open(t, func(l *link.Link) {
		links <- l
		l.HangUp(l.Run(ignore(l), func() error { return link.NewWriter(l, q, endless{lines{l}, q}).Run() }))
	})
	if err := q.TryPush(flow.Bulk, "more", 1); err != nil {
		t.Fatal(err)
	}
	l := <-links
	if _, _, err := ws.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.End(link.Stopping)
	if _, code := drain(t, ws); code != 1001 && code != -1 { // -1: cut after a second of last words
		t.Errorf("closed with %d", code)
	}
}

type endless struct {
	lines
	q *flow.Queue[string]
}

func (o endless) Flush(items []string) error {
	if err := o.q.TryPush(flow.Bulk, "more", 1); err != nil {
		return err
	}
	return o.lines.Flush(items)
}

func TestRun_TellsHowItEnded(t *testing.T) {
	fail := errors.New("a write failed")
	tests := []struct {
		name  string
		read  func(l *link.Link) func() error
		write func(l *link.Link) func() error
		page  func(ws *websocket.Conn)
		code  socket.Code
		their bool
	}{
		{name: "the page closes", page: func(ws *websocket.Conn) { _ = ws.Close(1000, "") }, code: 1000, their: true},
		{name: "the page closes while a write fails", write: func(*link.Link) func() error { return func() error { return fail } },
			page: func(ws *websocket.Conn) { _ = ws.Close(1001, "") }, code: 1001, their: true},
		{name: "the connection breaks", page: func(ws *websocket.Conn) { _ = ws.CloseNow() }, code: 0},
		{name: "reading finds a violation", read: func(*link.Link) func() error {
			return func() error { return link.Violation(socket.Policy, "because") }
		}, code: 1008},
		{name: "reading panics", read: func(*link.Link) func() error { return func() error { panic("at the disco") } }, code: 1011},
		{name: "writing panics", write: func(*link.Link) func() error { return func() error { panic("at the disco") } }, code: 1011},
		{name: "a message over the limit", page: func(ws *websocket.Conn) {
			_ = ws.Write(context.Background(), websocket.MessageText, []byte(strings.Repeat("x", 1<<20+1)))
		}, code: 1009},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := flow.NewQueue[string](1 << 20)
			ended := make(chan *link.Closing, 1)
			ws := open(t, func(l *link.Link) {
				read, write := ignore(l), func() error { return link.NewWriter(l, q, lines{l}).Run() }
				if tt.read != nil {
					read = tt.read(l)
				}
				if tt.write != nil {
					write = tt.write(l)
				}
				why := l.Run(read, write)
				ended <- why
				l.HangUp(why)
			})
			if tt.page != nil {
				tt.page(ws)
			}
			if why := <-ended; why.Code != tt.code || why.Theirs != tt.their {
				t.Errorf("ended with %d, theirs %v: %v; want %d, %v", why.Code, why.Theirs, why, tt.code, tt.their)
			}
			if _, code := drain(t, ws); tt.page == nil && code != tt.code {
				t.Errorf("the page sees %d, want %d", code, tt.code)
			}
		})
	}
}

func TestAsClosing(t *testing.T) {
	v := link.Violation(socket.Policy, "x")
	if link.AsClosing(fmt.Errorf("wrapped: %w", v)) != v || link.AsClosing(errors.New("other")).Code != 0 {
		t.Error("a closing is found, everything else is a lost connection")
	}
}
