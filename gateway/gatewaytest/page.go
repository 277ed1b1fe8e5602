package gatewaytest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// patience bounds every wait of a test page: only a test that fails waits so long.
const patience = time.Minute

// Dial opens a socket to a gateway; a subprotocol of "" speaks v1.
func Dial(t testing.TB, url string, header http.Header, subprotocol string) *websocket.Conn {
	t.Helper()
	return DialVia(t, nil, url, header, subprotocol)
}

// DialVia is Dial with an http.Client of one's own.
func DialVia(t testing.TB, client *http.Client, url string, header http.Header, subprotocols ...string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	opts := &websocket.DialOptions{HTTPHeader: header, HTTPClient: client}
	for _, name := range subprotocols {
		if name != "" {
			opts.Subprotocols = append(opts.Subprotocols, name)
		}
	}
	ws, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(url, "http")+"/ws", opts)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	ws.SetReadLimit(64 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

// Page2 is a v2 page by hand. It is for one goroutine.
type Page2 struct {
	t        testing.TB
	WS       *websocket.Conn
	Welcome  v2.WelcomeFrame
	Got      uint64 // numbered frames that came
	queue    []v2.Frame
	nextID   uint64
	Patience time.Duration // bounds every wait
	Seen     *Seen         // what went over its sockets; nil: not noted
}

// Seen is which frames went over the sockets of v2 pages, and which error codes
// came. It is for one goroutine.
type Seen struct {
	Sent, Came map[v2.Kind]bool
	Codes      map[identity.Code]bool
}

// NewSeen makes an empty one.
func NewSeen() *Seen {
	return &Seen{map[v2.Kind]bool{}, map[v2.Kind]bool{}, map[identity.Code]bool{}}
}

func (s *Seen) came(t testing.TB, f v2.Frame) {
	if s == nil {
		return
	}
	s.Came[f.Kind] = true
	at := map[v2.Kind]int{v2.KindBye: 0, v2.KindError: 1, v2.KindEnd: 1}
	if i, ok := at[f.Kind]; ok {
		s.Codes[identity.Code(Elements(t, f)[i].(string))] = true
	}
}

func (s *Seen) sent(frames []byte) {
	for s != nil && len(frames) > 0 {
		f, rest, err := v2.Next(frames)
		if err != nil {
			return
		}
		s.Sent[f.Kind] = true
		frames = rest
	}
}

// Join2 opens a socket and says hello.
func Join2(t testing.TB, s *Server, h v2.HelloFrame) *Page2 {
	t.Helper()
	p := Open2(t, s)
	p.Hello(h)
	return p
}

// Open2 opens a socket for v2 and says nothing.
func Open2(t testing.TB, s *Server) *Page2 {
	t.Helper()
	return &Page2{t: t, Patience: patience, Seen: s.Seen, WS: DialVia(t, s.Client, s.URL, s.Header, append([]string{v2.Subprotocol}, s.Offer...)...)}
}

// Resume opens another socket for the session of p, as a page does that got n
// numbered frames; p is left alone.
func (p *Page2) Resume(s *Server, n uint64) *Page2 {
	p.t.Helper()
	again := Join2(p.t, s, v2.HelloFrame{Session: p.Welcome.Session, Received: n})
	again.nextID = p.nextID
	if again.Welcome.Resumed {
		again.Got = n
	}
	return again
}

// Hello says hello and waits for the welcome.
func (p *Page2) Hello(h v2.HelloFrame) {
	p.t.Helper()
	if h.Version == 0 {
		h.Version = v2.Version
	}
	p.Write(v2.AppendHello(nil, h))
	f := p.Next()
	w, err := f.Welcome()
	if err != nil {
		p.t.Fatalf("no welcome but frame %d", f.Kind)
	}
	p.Welcome = w
}

// Write sends one message of frames.
func (p *Page2) Write(frames []byte) {
	p.t.Helper()
	p.Seen.sent(frames)
	ctx, cancel := context.WithTimeout(context.Background(), p.Patience)
	defer cancel()
	if err := p.WS.Write(ctx, websocket.MessageBinary, frames); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// Read waits for the next frame, received and pong included; the error is the
// socket's.
func (p *Page2) Read() (v2.Frame, error) {
	for len(p.queue) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), p.Patience)
		_, msg, err := p.WS.Read(ctx)
		cancel()
		if err != nil {
			return v2.Frame{}, err
		}
		for len(msg) > 0 {
			var f v2.Frame
			if f, msg, err = v2.Next(msg); err != nil {
				return f, err
			}
			p.queue = append(p.queue, f)
		}
	}
	f := p.queue[0]
	p.queue = p.queue[1:]
	p.Seen.came(p.t, f)
	if f.Kind >= v2.FirstNumbered {
		p.Got++
	}
	return f, nil
}

// Next waits for the next frame that isn't received.
func (p *Page2) Next() v2.Frame {
	p.t.Helper()
	for {
		f, err := p.Read()
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		if f.Kind != v2.KindReceived {
			return f
		}
	}
}

// Want waits for the next frame and fails where it is of another kind. It gives
// its elements as a general CBOR library reads them. It is for where the protocol
// promises that nothing else comes first; Answer is for a page that hears news.
func (p *Page2) Want(kind v2.Kind) []any {
	p.t.Helper()
	f := p.Next()
	got := Elements(p.t, f)
	if f.Kind != kind {
		p.t.Fatalf("frame %d %v, want kind %d", f.Kind, got, kind)
	}
	return got
}

// Elements decodes a frame's elements behind the kind.
func Elements(t testing.TB, f v2.Frame) []any {
	t.Helper()
	list := make([]any, 0, f.Items)
	rest := f.Body
	for len(rest) > 0 {
		var v any
		var err error
		if rest, err = cbor.UnmarshalFirst(rest, &v); err != nil {
			t.Fatalf("frame %d: %v", f.Kind, err)
		}
		list = append(list, v)
	}
	return list
}

// Request sends a request with params given as pairs, and returns its id.
func (p *Page2) Request(method string, params map[string]any) uint64 {
	p.t.Helper()
	raw, err := cbor.Marshal(params)
	if err != nil {
		p.t.Fatal(err)
	}
	p.nextID++
	p.Write(v2.AppendRequest(nil, p.nextID, method, raw))
	return p.nextID
}

// Answer waits for the result or the error of a request. Other frames are dropped:
// answers and news, as of members of a topic or of paths, have no order among them.
func (p *Page2) Answer(id uint64) v2.Frame {
	p.t.Helper()
	for {
		f := p.Next()
		if (f.Kind == v2.KindResult || f.Kind == v2.KindError) && Elements(p.t, f)[0] == id {
			return f
		}
	}
}

// Call sends a request and waits for its result. Other frames are dropped.
func (p *Page2) Call(method string, params map[string]any) any {
	p.t.Helper()
	f := p.Answer(p.Request(method, params))
	got := Elements(p.t, f)
	if f.Kind == v2.KindError {
		p.t.Fatalf("%s: %v", method, got)
	}
	return got[1]
}

// Fail sends a request and waits for its error's code and text.
func (p *Page2) Fail(method string, params map[string]any) (identity.Code, string) {
	p.t.Helper()
	f := p.Answer(p.Request(method, params))
	got := Elements(p.t, f)
	if f.Kind == v2.KindResult {
		p.t.Fatalf("%s succeeded: %v", method, got)
	}
	return identity.Code(got[1].(string)), got[2].(string)
}

// Send sends a message of CBOR data and returns its id.
func (p *Page2) Send(to, protocol string, data any, level network.Level, reply bool) uint64 {
	p.t.Helper()
	raw, err := cbor.Marshal(data)
	if err != nil {
		p.t.Fatal(err)
	}
	p.nextID++
	p.Write(v2.AppendSend(nil, p.nextID, v2.AppendPair(nil, to, protocol),
		network.Content{Type: network.CBOR, Data: raw}, level, reply))
	return p.nextID
}

// Closed reads until the socket ends and gives the close code, -1 without one.
func (p *Page2) Closed() (websocket.StatusCode, string) {
	for {
		if _, err := p.Read(); err != nil {
			return CloseOf(err)
		}
	}
}

// CloseOf gives code and reason of a socket's end, -1 where there was no close
// frame.
func CloseOf(err error) (websocket.StatusCode, string) {
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		return ce.Code, ce.Reason
	}
	return -1, err.Error()
}
