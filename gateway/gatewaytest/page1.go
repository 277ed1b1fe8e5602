package gatewaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/coder/websocket"

	v1 "github.com/parley-p2p/parley/gateway/v1"
)

// Page1 is a v1 page by hand. It is for one goroutine.
type Page1 struct {
	t      testing.TB
	WS     *websocket.Conn
	ID     string
	Key    string
	nextID int64
	kept   []Frame1
}

// Frame1 is a frame as a page reads it.
type Frame1 struct {
	RequestID  int64           `json:"requestid"`
	Method     string          `json:"method"`
	Params     json.RawMessage `json:"params"`
	Result     json.RawMessage `json:"result"`
	Error      *Error1         `json:"error"`
	IsResponse bool            `json:"isresponse"`
}

// Error1 is an error of v1.
type Error1 struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Open1 opens a socket for v1.
func Open1(t testing.TB, s *Server) *Page1 {
	t.Helper()
	return &Page1{t: t, WS: DialVia(t, s.Client, s.URL, s.Header, s.Offer...)}
}

// Join1 opens a socket and asks for a peer.
func Join1(t testing.TB, s *Server) *Page1 {
	t.Helper()
	p := Open1(t, s)
	var r struct{ PeerID, PeerKey string }
	if err := json.Unmarshal(p.Call(v1.MethodPeer, "{}"), &r); err != nil {
		t.Fatal(err)
	}
	p.ID, p.Key = r.PeerID, r.PeerKey
	return p
}

// Write sends one text message.
func (p *Page1) Write(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.WS.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// Read waits for the next frame.
func (p *Page1) Read() (f Frame1, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, msg, err := p.WS.Read(ctx)
	if err == nil {
		err = json.Unmarshal(msg, &f)
	}
	return f, err
}

// Next waits for the next frame, those first that Response left.
func (p *Page1) Next() Frame1 {
	p.t.Helper()
	if len(p.kept) > 0 {
		f := p.kept[0]
		p.kept = p.kept[1:]
		return f
	}
	f, err := p.Read()
	if err != nil {
		p.t.Fatalf("read: %v", err)
	}
	return f
}

// Request sends a request and returns its id.
func (p *Page1) Request(method, params string) int64 {
	p.t.Helper()
	p.nextID++
	p.Write(fmt.Sprintf(`{"requestid":%d,"method":%q,"params":%s,"isresponse":false}`, p.nextID, method, params))
	return p.nextID
}

// Response waits for the answer to a request; what comes before is kept for
// Next.
func (p *Page1) Response(id int64) Frame1 {
	p.t.Helper()
	for i, f := range p.kept {
		if f.IsResponse && f.RequestID == id {
			p.kept = slices.Delete(p.kept, i, i+1)
			return f
		}
	}
	for {
		f, err := p.Read()
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		if f.IsResponse && f.RequestID == id {
			return f
		}
		p.kept = append(p.kept, f)
	}
}

// Call sends a request and gives its result.
func (p *Page1) Call(method, params string) json.RawMessage {
	p.t.Helper()
	f := p.Response(p.Request(method, params))
	if f.Error != nil {
		p.t.Fatalf("%s: %v", method, *f.Error)
	}
	return f.Result
}

// Fail sends a request and gives its error.
func (p *Page1) Fail(method, params string) Error1 {
	p.t.Helper()
	f := p.Response(p.Request(method, params))
	if f.Error == nil {
		p.t.Fatalf("%s succeeded: %s", method, f.Result)
	}
	return *f.Error
}

// Closed reads until the socket ends and gives the close code, -1 without one.
func (p *Page1) Closed() (websocket.StatusCode, string) {
	for {
		if _, err := p.Read(); err != nil {
			return CloseOf(err)
		}
	}
}
