package muxws

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nowhere is a network that leads to nobody.
type nowhere struct{ id identity.PeerID }

func (n nowhere) Local() identity.PeerID                            { return n.id }
func (nowhere) Handle(network.Protocol, network.Handler) (f func()) { return func() {} }
func (nowhere) Open(context.Context, identity.PeerID, ...network.Protocol) (network.Stream, error) {
	return nil, identity.Errorf(identity.CodeUnreachable, "there is no network")
}

// end is a node that channels reach over WebSocket alone.
type end struct {
	key     identity.Key
	node    *channel.Node
	service *Service
	url     string
	member  channel.Member
	stop    func()
	urls    map[identity.PeerID]string // of others
}

func start(t *testing.T, seed byte, limits channel.Limits) *end {
	t.Helper()
	key, err := identity.KeyFromSeed([32]byte{seed})
	if err != nil {
		t.Fatal(err)
	}
	e := &end{key: key, urls: make(map[identity.PeerID]string)}
	e.node, err = channel.New(channel.Config{Network: nowhere{key.PeerID()}, Key: key, Limits: limits,
		Dial: func(ctx context.Context, id identity.PeerID) (channel.Carrier, error) {
			url, ok := e.urls[id]
			if !ok {
				return channel.Carrier{}, identity.Errorf(identity.CodeUnreachable, "no URL")
			}
			return e.service.Dial(ctx, url, id)
		}})
	if err != nil {
		t.Fatal(err)
	}
	if e.service, err = New(Config{Key: key, Nodes: e.node}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(e.service)
	e.url = "ws" + strings.TrimPrefix(server.URL, "http") + Path("test")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.node.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		e.service.Close()
		server.Close()
	})
	t.Cleanup(e.stop)
	if e.member, err = e.node.Space("chess").Join(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *end) listen(t *testing.T, protocol string, opts ...channel.ListenOption) channel.Listener {
	t.Helper()
	l, err := e.member.Listen(protocol, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// talk opens a channel from a to b and sends something each way.
func talk(t *testing.T, a, b *end, l channel.Listener) (near, far channel.Channel) {
	t.Helper()
	near, err := a.member.Open(t.Context(), b.member.Agent(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 1000, 65_536} {
		msg := strings.Repeat("x", n)
		for _, dir := range [][2]channel.Channel{{near, far}, {far, near}} {
			if err := dir[0].Send(t.Context(), []byte(msg)); err != nil {
				t.Fatal(err)
			}
			if got, err := dir[1].Receive(t.Context()); err != nil || string(got) != msg {
				t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
			}
		}
	}
	return near, far
}

// TestNoise: both ends are proven, and so are the agents.
func TestNoise(t *testing.T) {
	a, b := start(t, 1, channel.Limits{}), start(t, 2, channel.Limits{})
	a.urls[b.key.PeerID()] = b.url
	near, far := talk(t, a, b, b.listen(t, "x"))
	if i := near.Info(); !i.Verified || i.Node != b.key.PeerID() {
		t.Errorf("info %+v", i)
	}
	if i := far.Info(); !i.Verified || i.Node != a.key.PeerID() || i.Remote != a.member.Agent() {
		t.Errorf("far info %+v", i)
	}
}

// TestNoiseOfAnotherNode: who answers at the URL has to be who it should be.
func TestNoiseOfAnotherNode(t *testing.T) {
	a, b, c := start(t, 1, channel.Limits{}), start(t, 2, channel.Limits{}), start(t, 3, channel.Limits{})
	_, err := a.service.Dial(t.Context(), b.url, c.key.PeerID())
	if identity.CodeOf(err) != identity.CodeUnreachable {
		t.Errorf("dialled: %v", err)
	}
}

// TestPlain: records as messages, in both encodings; nobody is proven.
func TestPlain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		offer  []string
		packed wire.Encoding
	}{{"unpacked", []string{Subprotocol, SubprotocolPacked}, wire.Unpacked}, {"packed", []string{SubprotocolPacked}, wire.Packed}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := start(t, 1, channel.Limits{}), start(t, 2, channel.Limits{})
			c, err := a.service.dial(t.Context(), b.url, b.key.PeerID(), tt.offer...)
			if err != nil || c.Format != tt.packed {
				t.Fatalf("carrier %+v, %v", c, err)
			}
			served := make(chan error, 1)
			go func() { served <- a.node.Serve(context.Background(), c) }()
			for len(a.node.List(1)) == 0 { // Serve has it in a moment
				select {
				case err := <-served:
					t.Fatal(err)
				case <-time.After(time.Millisecond):
				}
			}
			l := b.listen(t, "x", channel.AllowUnverified())
			b.listen(t, "strict")
			near, far := talk(t, a, b, l)
			if near.Info().Verified || far.Info().Verified {
				t.Error("shown as verified")
			}
			if _, err := a.member.Open(t.Context(), b.member.Agent(), "strict"); !errors.Is(err, channel.ErrNotAllowed) {
				t.Errorf("a listener for proven agents: %v", err)
			}
			a.stop()
			<-served
		})
	}
}

// raw is a client written by hand.
func raw(t *testing.T, url string, header http.Header, subprotocols ...string) (*websocket.Conn, int, error) {
	t.Helper()
	ws, answer, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: subprotocols, HTTPHeader: header})
	status := 0
	if answer != nil {
		status = answer.StatusCode
		if answer.Body != nil {
			answer.Body.Close()
		}
	}
	if err == nil {
		ws.SetReadLimit(-1)
		t.Cleanup(func() { ws.CloseNow() })
	}
	return ws, status, err
}

// TestUpgradeIsRefused: to pages, to what has no subprotocol of ours, and where
// there is no room.
func TestUpgradeIsRefused(t *testing.T) {
	e := start(t, 1, channel.Limits{Connections: 1})
	if _, status, err := raw(t, e.url, http.Header{"Origin": {"http://localhost"}}, Subprotocol); status != http.StatusForbidden {
		t.Errorf("a page: %d, %v", status, err)
	}
	ws, _, err := raw(t, e.url, nil, "something.else")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("no subprotocol: %v", err)
	}
	ws, _, err = raw(t, e.url, nil, Subprotocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); err != nil { // its hello: it is served
		t.Fatal(err)
	}
	if _, status, err := raw(t, e.url, nil, Subprotocol); status != http.StatusServiceUnavailable {
		t.Errorf("no room: %d, %v", status, err)
	}
	if m := e.node.Metrics(); m.Refused["connections"] != 1 {
		t.Errorf("counted %v", m.Refused)
	}
}

// TestRecordsAndMessages: the first message is a hello in the encoding that was
// agreed on; a document-only peer's request, by the vectors of docs/spec/channels.md
// §16, is answered; what is no record ends the connection.
func TestRecordsAndMessages(t *testing.T) {
	const unpacked, packed = "0000000003000000000000000100010004000000000000000000000000000000", "100350010101040000" // multiplex/relay-request
	for _, tt := range []struct {
		name, subprotocol, request string
		encoding                   wire.Encoding
	}{{"unpacked", Subprotocol, unpacked, wire.Unpacked}, {"packed", SubprotocolPacked, packed, wire.Packed}} {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, 1, channel.Limits{})
			ws, _, err := raw(t, e.url, nil, tt.subprotocol)
			if err != nil {
				t.Fatal(err)
			}
			if m := next(t, ws, tt.encoding); m.Kind != mux.Hello || len(m.Hello.Nonce) != 32 {
				t.Errorf("first came %+v", m)
			}
			if err := ws.Write(t.Context(), websocket.MessageBinary, unhex(t, tt.request)); err != nil {
				t.Fatal(err)
			}
			if m := next(t, ws, tt.encoding); m.Kind != mux.Error || m.Channel != mux.WholeConnection || m.Code != mux.Unknown ||
				!strings.HasPrefix(m.Text, "relayRefused") {
				t.Errorf("the request is answered with %+v", m)
			}
		})
	}
	for _, tt := range []struct {
		name string
		kind websocket.MessageType
		size int
	}{{"text", websocket.MessageText, 10}, {"empty", websocket.MessageBinary, 0}, {"too large", websocket.MessageBinary, wire.MaxRecord + 1}} {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, 1, channel.Limits{})
			ws, _, err := raw(t, e.url, nil, Subprotocol)
			if err != nil {
				t.Fatal(err)
			}
			next(t, ws, wire.Unpacked)
			_ = ws.Write(t.Context(), tt.kind, make([]byte, tt.size)) // it may be cut off meanwhile
			for err == nil {
				_, _, err = ws.Read(t.Context())
			}
			if t.Context().Err() != nil {
				t.Error("the connection did not end")
			}
		})
	}
}

// TestHandshakeTakesTooLong: a client that agrees on Noise and then says nothing
// is left alone after a while.
func TestHandshakeTakesTooLong(t *testing.T) {
	e := start(t, 1, channel.Limits{})
	e.service.timeout = 20 * time.Millisecond
	ws, _, err := raw(t, e.url, nil, SubprotocolNoise)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); err == nil {
		t.Error("the server speaks first")
	}
}

// TestHandshakesAreBounded: past the bound a client is told to go.
func TestHandshakesAreBounded(t *testing.T) {
	e := start(t, 1, channel.Limits{})
	e.service.shaking = make(chan struct{}) // no room for any
	ws, _, err := raw(t, e.url, nil, SubprotocolNoise)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("read %v", err)
	}
}

// TestEndsInOrder: when the node stops, what was sent arrives first.
func TestEndsInOrder(t *testing.T) {
	a, b := start(t, 1, channel.Limits{}), start(t, 2, channel.Limits{})
	a.urls[b.key.PeerID()] = b.url
	near, far := talk(t, a, b, b.listen(t, "x"))
	for range 100 {
		if err := near.Send(t.Context(), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	a.stop()
	got, err := 0, error(nil)
	for err == nil {
		if _, err = far.Receive(t.Context()); err == nil {
			got++
		}
	}
	var e *channel.Error
	if got != 100 || !errors.As(err, &e) || !e.Remote {
		t.Errorf("received %d of 100, then %v", got, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// next reads a message as a record.
func next(t *testing.T, ws *websocket.Conn, e wire.Encoding) mux.Message {
	t.Helper()
	kind, rec, err := ws.Read(t.Context())
	if err != nil || kind != websocket.MessageBinary {
		t.Fatalf("read %v, %v", kind, err)
	}
	plain, err := mux.Unpacked(e, rec, nil)
	if err != nil {
		t.Fatal(err)
	}
	var m mux.Message
	if err := mux.Decode(plain, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestDialIsNotHeldUpByHandshakesTaken: strangers that fill the places of the
// server's handshakes keep nobody from dialling.
func TestDialIsNotHeldUpByHandshakesTaken(t *testing.T) {
	a, b := start(t, 1, channel.Limits{}), start(t, 2, channel.Limits{})
	a.service.shaking = make(chan struct{}) // no room for any
	c, err := a.service.Dial(t.Context(), b.url, b.key.PeerID())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Stream.Close()
}

// TestDialEndsWithItsContext: also in the handshake, with a server that says
// nothing.
func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	mute := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{SubprotocolNoise}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		_, _, _ = ws.Read(r.Context()) // the handshake has begun
		cancel()
		_, _, _ = ws.Read(r.Context())
	}))
	defer mute.Close()
	a := start(t, 1, channel.Limits{})
	_, err := a.service.Dial(ctx, "ws"+strings.TrimPrefix(mute.URL, "http"), a.key.PeerID())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("dialled: %v", err)
	}
}
