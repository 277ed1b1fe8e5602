package link_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
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
	pace := socket.NewPace()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		if l, err := link.Accept(w, r, slog.New(slog.DiscardHandler), nil, 1<<20, pace); err == nil {
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
	if got, code := drain(t, ws); code != 1001 || got[len(got)-1] != "bye: the node stops" {
		t.Errorf("closed with %d after %q", code, got[len(got)-1])
	}
}

// TestStopping_TakesNothingMore has pages that never stop sending, and readers that
// answer everything until they wait for room: the last words end all the same and
// reach each page, and nothing is taken behind the end.
func TestStopping_TakesNothingMore(t *testing.T) {
	for _, pages := range []int{1, 100} {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			var all, begun sync.WaitGroup
			links, start, heard := make([]*link.Link, pages), make(chan struct{}), make(chan struct{}, 1)
			for i := range pages {
				begun.Add(1)
				ws := open(t, func(l *link.Link) {
					links[i] = l
					begun.Done()
					q := flow.NewQueue[string](1 << 20)
					l.HangUp(l.Run(echo(t, l, q), func() error { return link.NewWriter(l, q, lines{l}).Run() }))
				})
				all.Go(func() {
					<-start
					for ws.Write(context.Background(), websocket.MessageText, []byte("again")) == nil {
					}
				})
				all.Go(func() {
					_, msg, err := ws.Read(context.Background())
					select {
					case heard <- struct{}{}:
					default:
					}
					last := ""
					for err == nil {
						last = string(msg)
						_, msg, err = ws.Read(context.Background())
					}
					if code := websocket.CloseStatus(err); code != 1001 || last != "bye: the node stops" {
						t.Errorf("page %d: closed with %d after %q", i, code, last)
					}
				})
			}
			begun.Wait()
			close(start)
			<-heard
			for _, l := range links {
				l.End(link.Stopping)
			}
			all.Wait()
		})
	}
}

// echo is a reader that answers with what came.
func echo(t *testing.T, l *link.Link, q *flow.Queue[string]) func() error {
	return func() error {
		for {
			ended := l.Why() != nil
			_, msg, err := l.Read(nil)
			if err != nil {
				return err
			}
			if ended {
				t.Error("a message was taken after the end")
			}
			if q.Push(l.Context(), flow.Bulk, string(msg), len(msg)) != nil {
				return errors.New("gave up: the link ends")
			}
		}
	}
}

// TestStopping_APageThatSendsBeforeItReads has one that reads when all it has to say
// is out: it gets its last words although nobody wants what it sends, and more waits
// for it than a connection holds.
func TestStopping_APageThatSendsBeforeItReads(t *testing.T) {
	const much = 16 << 20
	q := flow.NewQueue[string](2 * much)
	links := make(chan *link.Link, 1)
	ws := open(t, func(l *link.Link) {
		links <- l
		l.HangUp(l.Run(echo(t, l, q), func() error { return link.NewWriter(l, q, lines{l}).Run() }))
	})
	l := <-links
	for range 32 {
		if err := q.TryPush(flow.Bulk, strings.Repeat("x", much/32), much/32); err != nil {
			t.Fatal(err)
		}
	}
	l.End(link.Stopping)
	for range 32 {
		if err := ws.Write(t.Context(), websocket.MessageText, make([]byte, much/32)); err != nil {
			t.Fatal(err)
		}
	}
	ws.SetReadLimit(-1)
	got, code := drain(t, ws)
	if code != 1001 || len(got) != 33 || got[32] != "bye: the node stops" {
		t.Errorf("closed with %d after %d messages", code, len(got))
	}
}

// TestCut_EndsLastWords has a page that takes nothing: its link ends when it is cut.
func TestCut_EndsLastWords(t *testing.T) {
	const much = 16 << 20
	q := flow.NewQueue[string](2 * much)
	links, ended := make(chan *link.Link, 1), make(chan struct{})
	_ = open(t, func(l *link.Link) {
		defer close(ended)
		links <- l
		l.HangUp(l.Run(ignore(l), func() error { return link.NewWriter(l, q, lines{l}).Run() }))
	})
	l := <-links
	if err := q.TryPush(flow.Bulk, strings.Repeat("x", much), much); err != nil {
		t.Fatal(err)
	}
	l.End(link.Stopping)
	for q.Len() > 0 {
		runtime.Gosched()
	}
	select {
	case <-ended:
		t.Error("ended with what the page never took")
	default:
	}
	l.Cut(link.Stopping)
	<-ended
}

type endless struct {
	lines
	q *flow.Queue[string]
}

func (o endless) Flush(items []string) error {
	_ = o.q.TryPush(flow.Bulk, "more", 1) // refused once the last words have begun
	return o.lines.Flush(items)
}

func TestRun_TellsHowItEnded(t *testing.T) {
	fail, closing := errors.New("a write failed"), make(chan struct{})
	tests := []struct {
		name  string
		read  func(l *link.Link) func() error
		write func(l *link.Link) func() error
		page  func(ws *websocket.Conn)
		code  socket.Code
		their bool
	}{
		{name: "the page closes", page: func(ws *websocket.Conn) { _ = ws.Close(1000, "") }, code: 1000, their: true},
		{name: "the page closes while a write fails", write: func(*link.Link) func() error { return func() error { <-closing; return fail } },
			page: func(ws *websocket.Conn) { close(closing); _ = ws.Close(1001, "") }, code: 1001, their: true},
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
