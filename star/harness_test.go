package star_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a star and a network that leads to it.
type world struct {
	t      testing.TB
	net    *startest.Net
	star   *star.Server
	client *http.Client
	base   *url.URL
	stop   func() // drains and waits
	file   startest.File
	peers  []*peer
}

func newWorld(t testing.TB, o star.Options) *world {
	t.Helper()
	return newWorldOver(t, o, func(l net.Listener) net.Listener { return l })
}

// newWorldOver is newWorld with something between the network and the star.
func newWorldOver(t testing.TB, o star.Options, over func(net.Listener) net.Listener) *world {
	t.Helper()
	srv, err := star.NewHandler(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, net: startest.NewNet(), star: srv, base: &url.URL{Scheme: "http", Host: "star.test"}, file: startest.Load(t)}
	tr := &http.Transport{DialContext: w.net.Dial, MaxIdleConns: 1 << 20, MaxIdleConnsPerHost: 1 << 20}
	w.client = &http.Client{Transport: tr}
	hs := &http.Server{Handler: srv.Handler()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(over(w.net)) })
	wg.Go(func() {
		if err := srv.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	w.stop = sync.OnceFunc(func() {
		for _, p := range w.peers {
			p.stop()
		}
		cancel()
		tr.CloseIdleConnections()
		wg.Go(func() { _ = hs.Shutdown(context.Background()); w.net.Close() })
		wg.Wait()
		tr.CloseIdleConnections()
	})
	t.Cleanup(w.stop)
	return w
}

// bubble runs f in virtual time, with a star of these options.
func bubble(t *testing.T, o star.Options, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		f(t, w)
		w.stop()
	})
}

// open is a star without challenge that takes any address.
var open = star.Options{OpenJoins: true, AnyMultiaddr: true, Drain: -1}

// peer is a client of the star.
type peer struct {
	w      *world
	sock   *socketio.Socket
	client *socketio.Client
	stop   func() error
	accept bool // answers ss-incomming by itself
	credit bool // gives credit for what it receives

	mu     sync.Mutex
	events []string // as JSON arrays, attachments as "<hex length>"
	data   map[string][]byte
	more   chan struct{}
	ended  chan error
	onData func(name string, data []byte) // instead of keeping it
	block  chan struct{}                  // while not nil, events wait for it
}

// connect makes a client; query is added to the handshake's.
func (w *world) connect(opts socketio.DialOptions) *peer {
	w.t.Helper()
	p := &peer{w: w, accept: true, more: make(chan struct{}, 1), ended: make(chan error, 1), data: map[string][]byte{}}
	opts.Handler, opts.HTTP = p, w.client
	var err error
	if p.client, err = socketio.Dial(context.Background(), w.base, opts); err != nil {
		w.t.Fatal(err)
	}
	p.sock = p.client.Socket()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.client.Run(ctx) }()
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.peers = append(w.peers, p)
	return p
}

var extended = socketio.DialOptions{Query: url.Values{"parley": {"1"}}}

// at connects and joins an address of an open star.
func (w *world) at(addr string) *peer {
	w.t.Helper()
	p := w.connect(socketio.DialOptions{})
	p.join(addr)
	return p
}

func (p *peer) join(addr string) {
	p.w.t.Helper()
	if got := p.call("ss-join", addr, ""); !strings.HasPrefix(got, "[null,null,[") {
		p.w.t.Fatalf("join %s: %s", addr, got)
	}
}

// Event keeps what comes, and answers dials.
func (p *peer) Event(s *socketio.Socket, e *socketio.Event) error {
	if p.block != nil {
		s.Hold()
		select {
		case <-p.block:
		case <-s.Context().Done():
		}
		s.Release()
	}
	text, _ := json.Marshal(e.Name)
	for i := range e.Args {
		if data, ok := e.Bytes(i); ok {
			if p.onData != nil {
				p.onData(e.Name, data)
				return nil
			}
			p.mu.Lock()
			p.data[e.Name] = append(p.data[e.Name], data...)
			p.mu.Unlock()
			if id, ok := strings.CutPrefix(e.Name, proxy.Queue); ok && p.credit && len(data) > 0 {
				p.emit(proxy.Credit+id, fmt.Sprint("=", len(data)))
			}
			text = fmt.Appendf(text, ",%d", len(data))
		} else {
			text = append(append(text, ','), e.Args[i]...)
		}
	}
	p.mu.Lock()
	p.events = append(p.events, "["+string(text)+"]")
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	if e.Name == "ss-incomming" && p.accept { // it is there once it is answered
		id, _ := e.Text(0)
		p.emit(proxy.Accept + id + ".dialer")
		p.ack(e.AckID())
	}
	return nil
}

func (p *peer) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }
func (p *peer) Disconnected(_ *socketio.Socket, reason error)          { p.ended <- reason }

// emit sends an event of strings; a string that begins with "=" is raw JSON.
func (p *peer) emit(name string, args ...string) {
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: build(b.Event(nil, wire.NoAck, name), args)})
}

func build(b *wire.Builder, args []string) []byte {
	for _, a := range args {
		if raw, ok := strings.CutPrefix(a, "="); ok {
			b.Raw(raw)
		} else {
			b.Str(a)
		}
	}
	return b.Done()
}

// start sends an event that wants an answer, which comes as JSON.
func (p *peer) start(name string, args ...string) <-chan string {
	ch := make(chan string, 1)
	id := p.sock.Expect(func(a socketio.Answer) {
		if a.Err != nil {
			ch <- "no answer: " + a.Err.Error()
			return
		}
		text := "["
		for i, arg := range a.Args {
			if i > 0 {
				text += ","
			}
			text += string(arg)
		}
		ch <- text + "]"
	})
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: build(b.Event(nil, id, name), args)})
	return ch
}

func (p *peer) call(name string, args ...string) string { return <-p.start(name, args...) }

func (p *peer) ack(id int64, args ...string) {
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: build(b.Ack(nil, id), args)})
}

// chunk sends data on a stream.
func (p *peer) chunk(stream string, data []byte) {
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: b.Binary(nil, 1, proxy.Queue+stream).Placeholder(0).Done(), Bin: append([]byte{4}, data...)})
}

// seen gives the events so far of one name.
func (p *peer) seen(name string) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if strings.HasPrefix(e, `["`+name+`"`) {
			list = append(list, e)
		}
	}
	return list
}

// wait gives the first event that begins so, waiting for it.
func (p *peer) wait(prefix string) string {
	p.w.t.Helper()
	deadline := time.After(time.Hour)
	for {
		p.mu.Lock()
		for _, e := range p.events {
			if strings.HasPrefix(e, prefix) {
				p.mu.Unlock()
				return e
			}
		}
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-deadline:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.w.t.Fatalf("no event %s among %q", prefix, p.events)
		}
	}
}

// received gives the bytes of a stream once there are so many.
func (p *peer) received(stream string, n int) []byte {
	for {
		p.mu.Lock()
		data := p.data[proxy.Queue+stream]
		p.mu.Unlock()
		if len(data) >= n {
			return data
		}
		<-p.more
	}
}

// dial dials and accepts the stream back; it fails the test unless it succeeds.
func (p *peer) dial(from, to, id string) {
	p.w.t.Helper()
	if got := p.call("ss-dial", from, to, id); got != "[]" {
		p.w.t.Fatalf("dial %s from %s: %s", to, from, got)
	}
	p.emit(proxy.Accept + id + ".listener")
}

// prove joins with a challenge as one of the recorded identities does. It returns
// the answer to the last step and the nonce.
func (p *peer) prove(addr string, who startest.Identity) (answer, nonce string) {
	p.w.t.Helper()
	first := p.call("ss-join", addr, who.PubKeyHex)
	var args []any
	if err := json.Unmarshal([]byte(first), &args); err != nil || len(args) != 2 {
		return first, ""
	}
	nonce = args[1].(string)
	return p.call("ss-join", addr, sign(p.w.t, who, nonce)), nonce
}

// sign signs a nonce, in hex.
func sign(t testing.TB, who startest.Identity, nonce string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(who.JSON.PrivKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key.Sign([]byte(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sig)
}

// strict is an address of the strict shape.
func strict(id string) string { return "/dns4/star.test/tcp/80/ws/p2p-websocket-star/ipfs/" + id }
