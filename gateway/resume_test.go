package gateway_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// fragile is a connection that breaks in the middle of whatever it does, after
// so many bytes out or in.
type fragile struct {
	net.Conn
	mu      sync.Mutex
	out, in int
}

func (f *fragile) spend(left *int, want int) (allowed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	allowed = min(want, *left)
	*left -= allowed
	return allowed
}

var errBroken = errors.New("broken by the test")

func (f *fragile) Write(p []byte) (int, error) {
	n := f.spend(&f.out, len(p))
	if n > 0 {
		if n, err := f.Conn.Write(p[:n]); err != nil {
			return n, err
		}
	}
	if n < len(p) {
		_ = f.Conn.Close()
		return n, errBroken
	}
	return n, nil
}

func (f *fragile) Read(p []byte) (int, error) {
	n := f.spend(&f.in, len(p))
	if n == 0 {
		_ = f.Conn.Close()
		return 0, errBroken
	}
	got, err := f.Conn.Read(p[:n])
	f.mu.Lock()
	f.in += n - got
	f.mu.Unlock()
	return got, err
}

// budget is what one connection of a page may carry.
type budget struct{ Out, In int }

// stubborn is a page that goes on whatever happens to its socket: it keeps what
// it wrote until the node has it, and counts what came.
type stubborn struct {
	s       *gatewaytest.Server
	budgets []budget

	ws     *websocket.Conn
	token  []byte
	peer   string
	log    [][]byte // its numbered frames
	got    uint64   // numbered frames that came
	topic  string
	frames []v2.Frame
	cuts   int

	cut cutting
}

// cutting says at which frames of its own a page loses its socket.
type cutting struct {
	out, in int  // once, behind so many frames written, or read; 0: not
	every   bool // then again behind as many more
	taken   bool // the socket is not closed: the next one takes the session from it
}

// due counts a frame, and reports whether the socket is lost behind it.
func (c *cutting) due(left *int) bool {
	if *left == 0 {
		return false
	}
	if *left--; *left > 0 {
		return false
	}
	if c.every {
		*left = 1
	}
	return true
}

var (
	errGaveUp    = errors.New("took too long")
	errForgotten = errors.New("the node has forgotten the session")
)

// connect opens a socket until one of them gets as far as a welcome.
func (p *stubborn) connect(ctx context.Context) error {
	for ctx.Err() == nil {
		if p.ws != nil {
			p.cuts++
			if old := p.ws; p.cut.taken {
				defer func() { _ = old.CloseNow() }()
			} else {
				_ = old.CloseNow()
			}
		}
		b := budget{1 << 30, 1 << 30}
		if len(p.budgets) > 0 {
			b, p.budgets = p.budgets[0], p.budgets[1:]
		}
		if err := p.dial(ctx, b); err == nil || errors.Is(err, errForgotten) {
			return err
		}
	}
	return errGaveUp
}

func (p *stubborn) dial(ctx context.Context, b budget) (err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, netw, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, netw, addr)
			return &fragile{Conn: c, out: b.Out, in: b.In}, err
		}}}
	p.ws, _, err = websocket.Dial(ctx, "ws"+strings.TrimPrefix(p.s.URL, "http")+"/ws",
		&websocket.DialOptions{HTTPHeader: p.s.Header, HTTPClient: client, Subprotocols: []string{v2.Subprotocol}})
	if err != nil {
		p.ws = nil
		return err
	}
	p.ws.SetReadLimit(1 << 20)
	hello := v2.AppendHello(nil, v2.HelloFrame{Version: 2, Session: p.token, Received: p.got})
	if err := p.ws.Write(ctx, websocket.MessageBinary, hello); err != nil {
		return err
	}
	p.frames = nil
	f, err := p.next(ctx)
	if err != nil {
		return err
	}
	w, err := f.Welcome()
	if err != nil {
		return err
	}
	if p.token != nil && !w.Resumed {
		return errForgotten
	}
	p.token, p.peer = w.Session, w.Peer
	var again []byte
	for _, frame := range p.log[w.Received:] {
		again = append(again, frame...)
	}
	if len(again) == 0 {
		return nil
	}
	return p.ws.Write(ctx, websocket.MessageBinary, again)
}

// write sends frames, now or after a resume.
func (p *stubborn) write(ctx context.Context, frames ...[]byte) error {
	var msg []byte
	for i, f := range frames {
		msg = append(msg, f...)
		p.log = append(p.log, f)
		if !p.cut.due(&p.cut.out) {
			continue
		}
		_ = p.ws.Write(ctx, websocket.MessageBinary, msg)
		p.log = append(p.log, frames[i+1:]...) // they go out on the next socket
		return p.connect(ctx)
	}
	if p.ws.Write(ctx, websocket.MessageBinary, msg) != nil {
		return p.connect(ctx)
	}
	return nil
}

func (p *stubborn) next(ctx context.Context) (v2.Frame, error) {
	for len(p.frames) == 0 {
		_, msg, err := p.ws.Read(ctx)
		if err != nil {
			return v2.Frame{}, err
		}
		for len(msg) > 0 {
			var f v2.Frame
			if f, msg, err = v2.Next(msg); err != nil {
				return f, err
			}
			p.frames = append(p.frames, f)
		}
	}
	f := p.frames[0]
	p.frames = p.frames[1:]
	return f, nil
}

// read gives the next numbered frame, over as many sockets as it takes.
func (p *stubborn) read(ctx context.Context) (v2.Frame, error) {
	for {
		f, err := p.next(ctx)
		if err != nil {
			if err := p.connect(ctx); err != nil {
				return f, err
			}
			continue
		}
		if f.Kind < v2.FirstNumbered {
			continue
		}
		p.got++
		if p.got%16 == 0 {
			_ = p.ws.Write(ctx, websocket.MessageBinary, v2.AppendCount(nil, v2.KindReceived, p.got))
		}
		if p.cut.due(&p.cut.in) {
			f.Body = bytes.Clone(f.Body)
			return f, p.connect(ctx)
		}
		return f, nil
	}
}

func number(n int) network.Content {
	return network.Content{Type: network.Bytes, Data: binary.BigEndian.AppendUint32(nil, uint32(n))}
}

// talk sends n messages, and publishes every fifth number too, with a few in
// flight; each must be answered exactly once.
func (p *stubborn) talk(ctx context.Context, to string, n, inFlight int) error {
	pair := v2.AppendPair(nil, to, "chat")
	answered := map[uint64]bool{}
	for sent := 0; len(answered) < n+n/5; {
		var batch [][]byte
		for ; sent < n && sent-len(answered) < inFlight; sent++ {
			batch = append(batch, v2.AppendSend(nil, uint64(sent+1), pair, number(sent+1), network.Handled, false))
			if (sent+1)%5 == 0 {
				params := v2.AppendText(v2.AppendText(v2.AppendMap(nil, 2), "topic"), p.topic)
				params = v2.AppendContent(v2.AppendText(params, "data"), number(sent+1))
				batch = append(batch, v2.AppendRequest(nil, uint64(1000000+sent+1), "publish", params))
			}
		}
		if len(batch) > 0 {
			if err := p.write(ctx, batch...); err != nil {
				return err
			}
		}
		f, err := p.read(ctx)
		if err != nil {
			return err
		}
		id, _, err := f.Result()
		if err != nil || answered[id] {
			return fmt.Errorf("frame %d for id %d, answered before: %v, %w", f.Kind, id, answered[id], err)
		}
		answered[id] = true
	}
	return nil
}

// listen handles n messages and n/5 publications, which must come once and in
// order.
func (p *stubborn) listen(ctx context.Context, n int) error {
	messages, publications := 0, 0
	for messages < n || publications < n/5 {
		f, err := p.read(ctx)
		if err != nil {
			return err
		}
		switch f.Kind {
		case v2.KindMessage:
			m, err := f.Message()
			messages++
			if got := binary.BigEndian.Uint32(m.Content.Data); err != nil || int(got) != messages || m.Delivery != uint64(messages) {
				return fmt.Errorf("message %d, delivery %d came as the %dth, %w", got, m.Delivery, messages, err)
			}
			if err := p.write(ctx, v2.AppendCount(nil, v2.KindHandled, m.Delivery)); err != nil {
				return err
			}
		case v2.KindPublication:
			publications++
			if got := binary.BigEndian.Uint32(f.Body[len(f.Body)-4:]); int(got) != 5*publications {
				return fmt.Errorf("publication %d came as the %dth", got, publications)
			}
		default:
			return fmt.Errorf("frame %d", f.Kind)
		}
	}
	return nil
}

func (p *stubborn) call(ctx context.Context, id uint64, method string, params []byte) error {
	if err := p.write(ctx, v2.AppendRequest(nil, id, method, params)); err != nil {
		return err
	}
	f, err := p.read(ctx)
	if err == nil && f.Kind != v2.KindResult {
		err = fmt.Errorf("%s: frame %d", method, f.Kind)
	}
	return err
}

// TestResume_NothingIsLostDoubledOrReordered cuts the sockets of two pages at
// random bytes, in both directions, while they talk.
func TestResume_NothingIsLostDoubledOrReordered(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{Grace: time.Minute}))
	cuts, round := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		// A handshake takes some 300 bytes out and 250 in.
		some := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) budget {
			return budget{rapid.IntRange(250, 4000).Draw(t, "out"), rapid.IntRange(150, 4000).Draw(t, "in")}
		}), 0, 8)
		round++
		topic := fmt.Sprint("room ", round) // the last round's page may still be leaving its own
		a := &stubborn{s: s, topic: topic, budgets: some.Draw(t, "a")}
		b := &stubborn{s: s, topic: topic, budgets: some.Draw(t, "b")}
		n, inFlight := rapid.IntRange(1, 300).Draw(t, "messages"), rapid.IntRange(1, 64).Draw(t, "inFlight")

		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // only a fault takes so long, or a machine with no time
		defer cancel()
		for _, p := range []*stubborn{a, b} {
			if err := p.connect(ctx); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.ws.Close(websocket.StatusNormalClosure, "") }()
		}
		if err := b.call(ctx, 1, "start", v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "protocol"), "chat")); err != nil {
			t.Fatal(err)
		}
		if err := b.call(ctx, 2, "subscribe", v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "topic"), topic)); err != nil {
			t.Fatal(err)
		}
		heard := make(chan error, 1)
		go func() { heard <- b.listen(ctx, n) }()
		if err := a.talk(ctx, b.peer, n, inFlight); err != nil {
			t.Errorf("the sender: %v", err)
		}
		if err := <-heard; err != nil {
			t.Errorf("the receiver: %v", err)
		}
		cuts += a.cuts + b.cuts
	})
	if cuts == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d sockets were cut", cuts)
}

// TestResume_CutAtEveryFrame loses the socket of one of two talking pages behind
// each frame that it writes, and behind each that it reads: once, at every one in
// turn, and to another socket that takes the session from it.
func TestResume_CutAtEveryFrame(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{Grace: time.Minute}))
	const n, inFlight = 10, 4
	round := 0
	converse := func(t *testing.T, a, b cutting) (left [2]cutting, cuts int) {
		round++
		topic := fmt.Sprint("room ", round)
		ann, bob := &stubborn{s: s, topic: topic}, &stubborn{s: s, topic: topic}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for _, p := range []*stubborn{ann, bob} {
			if err := p.connect(ctx); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.ws.Close(websocket.StatusNormalClosure, "") }()
		}
		ann.cut, bob.cut = a, b
		for i, call := range []struct{ method, name, value string }{{"start", "protocol", "chat"}, {"subscribe", "topic", topic}} {
			if err := bob.call(ctx, uint64(i+1), call.method, v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), call.name), call.value)); err != nil {
				t.Fatal(err)
			}
		}
		heard := make(chan error, 1)
		go func() { heard <- bob.listen(ctx, n) }()
		if err := ann.talk(ctx, bob.peer, n, inFlight); err != nil {
			t.Errorf("the sender: %v", err)
		}
		if err := <-heard; err != nil {
			t.Errorf("the receiver: %v", err)
		}
		return [2]cutting{ann.cut, bob.cut}, ann.cuts + bob.cuts
	}
	for _, taken := range []bool{false, true} {
		for who, name := range []string{"the sender", "the receiver"} {
			for _, out := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, out %v, taken %v", name, out, taken), func(t *testing.T) {
					frames := 0
					for at := 1; ; at++ { // until the conversation has no such frame
						cut := cutting{in: at, taken: taken}
						if out {
							cut = cutting{out: at, taken: taken}
						}
						var both [2]cutting
						both[who] = cut
						left, cuts := converse(t, both[0], both[1])
						if left[who].out+left[who].in > 0 {
							break
						}
						if cuts != 1 {
							t.Fatalf("behind frame %d: %d sockets were lost", at, cuts)
						}
						frames++
					}
					if frames < n+n/5 {
						t.Errorf("only %d frames were cut behind", frames)
					}
				})
			}
		}
	}
	for _, cut := range []cutting{{out: 1, every: true}, {in: 1, every: true}, {out: 1, in: 1, every: true}} {
		t.Run(fmt.Sprintf("every one %+v", cut), func(t *testing.T) {
			if _, cuts := converse(t, cut, cut); cuts < n {
				t.Errorf("only %d sockets were lost", cuts)
			}
		})
	}
}
