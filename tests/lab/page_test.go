//go:build linux

package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// protocol is what the pages of the lab talk by.
const protocol = "/lab/1"

// page is a page of a node. It handles every message at once and remembers it.
type page struct {
	t    testing.TB
	node *node
	id   string
	raw  *gatewaytest.Page2

	mu      sync.Mutex
	nextID  uint64
	answers map[uint64]chan answer
	got     map[string][]uint64 // numbers of messages, by who sent them
	news    chan struct{}       // closed and made anew when a message comes
}

// answer is what a request or a send came to.
type answer struct {
	result any
	code   identity.Code
	text   string
}

func (a answer) String() string {
	if a.code != "" {
		return fmt.Sprintf("%s: %s", a.code, a.text)
	}
	return fmt.Sprint(a.result)
}

// handled is the answer to a send that the other page handled.
var handled = answer{result: uint64(network.Handled)}

// open opens a page on a node and starts the protocol.
func open(t testing.TB, n *node) *page {
	t.Helper()
	p := &page{t: t, node: n, answers: map[uint64]chan answer{}, got: map[string][]uint64{}, news: make(chan struct{})}
	p.raw = gatewaytest.Join2(t, n.server, v2.HelloFrame{Keyless: true})
	p.id, p.raw.Patience = p.raw.Welcome.Peer, time.Hour // a page may have nothing to read for long
	go p.read()                                          // ends with the socket, which the test closes
	p.call("start", map[string]any{"protocol": protocol})
	return p
}

// read takes every frame until the socket ends.
func (p *page) read() {
	for {
		f, err := p.raw.Read()
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			for id, c := range p.answers {
				c <- answer{code: identity.CodeClosed, text: err.Error()}
				delete(p.answers, id)
			}
			return
		}
		if err := p.take(f); err != nil {
			p.t.Errorf("page on %s: %v", p.node.Name, err)
			return
		}
		if p.raw.Got%16 == 1 {
			_ = p.write(v2.AppendCount(nil, v2.KindReceived, p.raw.Got))
		}
	}
}

func (p *page) take(f v2.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	settle := func(id uint64, a answer) {
		if c := p.answers[id]; c != nil {
			delete(p.answers, id)
			c <- a
		}
	}
	switch f.Kind {
	case v2.KindResult:
		id, raw, err := f.Result()
		if err != nil {
			return err
		}
		var v any
		if err := cbor.Unmarshal(raw, &v); err != nil {
			return err
		}
		settle(id, answer{result: v})
	case v2.KindError:
		id, code, text, _, err := f.Fault()
		if err != nil {
			return err
		}
		settle(id, answer{code: identity.Code(code), text: text})
	case v2.KindMessage:
		m, err := f.Message()
		if err != nil {
			return err
		}
		var number uint64
		if err := cbor.Unmarshal(m.Content.Data, &number); err != nil {
			return err
		}
		p.got[string(m.Peer)] = append(p.got[string(m.Peer)], number)
		close(p.news)
		p.news = make(chan struct{})
		return p.write(v2.AppendCount(nil, v2.KindHandled, m.Delivery))
	}
	return nil
}

func (p *page) write(frames []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.raw.WS.Write(ctx, websocket.MessageBinary, frames)
}

// ask sends what make makes of a new id, and gives where the answer will come.
func (p *page) ask(frame func(id uint64) []byte) <-chan answer {
	p.t.Helper()
	c := make(chan answer, 1)
	p.mu.Lock()
	p.nextID++
	id := p.nextID
	p.answers[id] = c
	p.mu.Unlock()
	if err := p.write(frame(id)); err != nil {
		p.t.Fatalf("page on %s: %v", p.node.Name, err)
	}
	return c
}

// call makes a request that has to succeed.
func (p *page) call(method string, params map[string]any) any {
	p.t.Helper()
	raw, err := cbor.Marshal(params)
	if err != nil {
		p.t.Fatal(err)
	}
	a := <-p.ask(func(id uint64) []byte { return v2.AppendRequest(nil, id, method, raw) })
	if a.code != "" {
		p.t.Fatalf("%s on %s: %s", method, p.node.Name, a)
	}
	return a.result
}

// send sends a number, which has to be handled.
func (p *page) send(to *page, number uint64) <-chan answer {
	p.t.Helper()
	raw, err := cbor.Marshal(number)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.ask(func(id uint64) []byte {
		return v2.AppendSend(nil, id, v2.AppendPair(nil, to.id, protocol),
			network.Content{Type: network.CBOR, Data: raw}, network.Handled, false)
	})
}

// received gives the numbers that came from a page.
func (p *page) received(from *page) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]uint64(nil), p.got[from.id]...)
}

// path is what the page is told about how it reaches a peer.
type path struct {
	Path, Address string
	Tried         []string // "path: error"
}

func (p *page) path(to *page) path {
	p.t.Helper()
	m := p.call("path", map[string]any{"peer": to.id}).(map[any]any)
	out := path{Path: m["path"].(string), Address: m["address"].(string)}
	for _, t := range m["tried"].([]any) {
		tried := t.(map[any]any)
		out.Tried = append(out.Tried, fmt.Sprintf("%s: %s", tried["path"], tried["error"]))
	}
	return out
}

// tell gives a page the addresses of another, as an invitation would: those of
// its node, continued to it.
func (p *page) tell(other *page) {
	p.t.Helper()
	var addrs []string
	for _, a := range other.node.addresses() {
		if !strings.Contains(a, "/127.0.0.1/") && !strings.Contains(a, "/::1/") {
			addrs = append(addrs, a+"/p2p-circuit/p2p/"+other.id)
		}
	}
	p.call("addPeers", map[string]any{"peers": []string{other.id}, "addresses": addrs})
}

// exchange sends a message each way, and both have to be handled.
func exchange(t testing.TB, a, b *page, number uint64) {
	t.Helper()
	there := <-a.send(b, number)
	back := <-b.send(a, number)
	if there != handled || back != handled {
		t.Errorf("%s to %s: %s; back: %s", a.node.Name, b.node.Name, there, back)
	}
}
