package cluster_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick are the times of tests that wait for leases: no shorter than what a busy
// machine keeps.
var quick = cluster.Times{Life: 6 * time.Second, Renew: time.Second, Check: 300 * time.Millisecond, Claim: 10 * time.Second}

// calm are the times of tests in which nobody loses a lease, however busy the machine.
var calm = cluster.Times{Life: time.Minute, Renew: time.Second, Check: 300 * time.Millisecond, Claim: 20 * time.Second}

// open is a star without challenge that takes any address.
var open = star.Options{OpenJoins: true, AnyMultiaddr: true, Drain: -1}

// logs shows what servers say where PARLEY_TEST_LOG is set.
func logs(name string) *slog.Logger {
	if os.Getenv("PARLEY_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("star", name)
}

// node is one star of a cluster.
type node struct {
	t      testing.TB
	star   *star.Server
	shared *cluster.Cluster
	gate   *natstest.Gate
	url    *url.URL
	stop   func() // drains and waits
	listen *listener
	hs     *http.Server
}

// start runs a star of the cluster behind a NATS URL.
func start(t testing.TB, nats string, o star.Options, c cluster.Options) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, gate: &natstest.Gate{}, url: &url.URL{Scheme: "http", Host: l.Addr().String()}, listen: &listener{Listener: l, conns: map[net.Conn]bool{}}}
	c.URL, c.Internal, c.Dialer, c.Log = nats, n.url.String(), n.gate, cmp.Or(c.Log, logs(n.url.Port()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n.shared, err = cluster.New(ctx, c)
	for identity.CodeOf(err) == identity.CodeUnreachable && ctx.Err() == nil { // a busy machine may not answer in the time of a start
		n.shared, err = cluster.New(ctx, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.Registry = n.shared
	if n.star, err = star.NewHandler(o); err != nil {
		t.Fatal(err)
	}
	n.hs = &http.Server{Handler: n.star.Handler()}
	running, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.hs.Serve(n.listen) })
	wg.Go(func() {
		if err := n.star.Run(running); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		end()
		wg.Go(func() { _ = n.hs.Shutdown(context.Background()) })
		wg.Wait()
	})
	t.Cleanup(func() { n.gate.Heal(); n.stop() })
	eventually(t, "a valid lease", n.shared.Ready)
	return n
}

// status is what a star says of itself to everybody.
func (n *node) status() string {
	all := ""
	for _, path := range []string{"/", "/status.json", "/metrics"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		n.star.Handler().ServeHTTP(w, r)
		all += w.Body.String()
	}
	return all
}

// kill ends a star as a power cut does: nothing is given back. What is left of it
// ends with the test.
func (n *node) kill() {
	n.gate.Cut()
	_ = n.hs.Close()
	n.listen.cut()
}

// listener knows its connections, also those that were hijacked.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
	return c, nil
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Close()
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// testPeer is a client of a star.
type testPeer struct {
	t      testing.TB
	sock   *socketio.Socket
	client *socketio.Client
	stop   func() error
	mute   bool // does not answer ss-incomming
	ext    bool // gives credit

	mu     sync.Mutex
	events []string
	data   map[string][]byte
	more   chan struct{}
	ended  chan error
	onData func(p *testPeer, stream string, data []byte) // instead of keeping it
}

var extended = url.Values{"parley": {"1"}}

// connect makes a client.
func connect(t testing.TB, at *url.URL, o socketio.DialOptions) *testPeer {
	t.Helper()
	p := &testPeer{t: t, more: make(chan struct{}, 1), ended: make(chan error, 1), data: map[string][]byte{}}
	tr := &http.Transport{}
	o.Handler = p
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: tr}
	}
	var err error
	if p.client, err = socketio.Dial(context.Background(), at, o); err != nil {
		t.Fatal(err)
	}
	p.sock = p.client.Socket()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.client.Run(ctx) }()
	p.stop = sync.OnceValue(func() error { cancel(); defer tr.CloseIdleConnections(); return <-done })
	t.Cleanup(func() { _ = p.stop() })
	return p
}

// join connects to a node and joins an address of an open star.
func (n *node) join(addr string) *testPeer {
	n.t.Helper()
	p := connect(n.t, n.url, socketio.DialOptions{})
	p.join(addr)
	return p
}

// joinExtended is join with the extensions.
func (n *node) joinExtended(addr string) *testPeer {
	n.t.Helper()
	p := connect(n.t, n.url, socketio.DialOptions{Query: extended})
	p.ext = true
	p.join(addr)
	return p
}

func (p *testPeer) join(addr string) {
	p.t.Helper()
	if got := p.call("ss-join", addr, ""); !strings.HasPrefix(got, "[null,null,[") {
		p.t.Fatalf("join %s: %s", addr, got)
	}
}

// Event keeps what comes, and answers dials.
func (p *testPeer) Event(_ *socketio.Socket, e *socketio.Event) error {
	text, _ := json.Marshal(e.Name)
	for i := range e.Args {
		data, ok := e.Bytes(i)
		if !ok {
			text = append(append(text, ','), e.Args[i]...)
			continue
		}
		stream := strings.TrimPrefix(e.Name, proxy.Queue)
		if p.onData != nil {
			p.onData(p, stream, data)
			return nil
		}
		p.mu.Lock()
		p.data[stream] = append(p.data[stream], data...)
		p.mu.Unlock()
		p.credit(stream, len(data))
		text = fmt.Appendf(text, ",%d", len(data))
	}
	p.mu.Lock()
	p.events = append(p.events, "["+string(text)+"]")
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	if e.Name == "ss-incomming" && !p.mute { // it is there once it is answered
		id, _ := e.Text(0)
		p.emit(proxy.Accept + id + ".dialer")
		p.ack(e.AckID())
	}
	return nil
}

func (p *testPeer) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }
func (p *testPeer) Disconnected(_ *socketio.Socket, reason error)          { p.ended <- reason }

func (p *testPeer) credit(stream string, n int) {
	if n > 0 && p.ext {
		p.emit(proxy.Credit+stream, fmt.Sprint("=", n))
	}
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

// emit sends an event of strings; a string that begins with "=" is raw JSON.
func (p *testPeer) emit(name string, args ...string) {
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: build(b.Event(nil, wire.NoAck, name), args)})
}

// start sends an event that wants an answer, which comes as JSON.
func (p *testPeer) start(name string, args ...string) <-chan string {
	ch := make(chan string, 1)
	id := p.sock.Expect(func(a socketio.Answer) {
		if a.Err != nil {
			ch <- "no answer: " + a.Err.Error()
			return
		}
		var list []string
		for _, arg := range a.Args {
			list = append(list, string(arg))
		}
		ch <- "[" + strings.Join(list, ",") + "]"
	})
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: build(b.Event(nil, id, name), args)})
	return ch
}

func (p *testPeer) call(name string, args ...string) string { return <-p.start(name, args...) }

func (p *testPeer) ack(id int64, args ...string) {
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: build(b.Ack(nil, id), args)})
}

// chunk sends data on a stream.
func (p *testPeer) chunk(stream string, data []byte) {
	var b wire.Builder
	_ = p.sock.Send(flow.Bulk, socketio.Msg{Text: b.Binary(nil, 1, proxy.Queue+stream).Placeholder(0).Done(), Bin: append([]byte{4}, data...)})
}

// wait gives the first event that begins so.
func (p *testPeer) wait(prefix string) string {
	p.t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	for {
		if e, ok := p.has(prefix); ok {
			return e
		}
		select {
		case <-p.more:
		case <-limit.C:
			p.t.Fatalf("no event %s among %.2000q", prefix, p.events)
		}
	}
}

func (p *testPeer) has(prefix string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if strings.HasPrefix(e, prefix) {
			return e, true
		}
	}
	return "", false
}

// received gives the bytes of a stream once there are so many.
func (p *testPeer) received(stream string, n int) []byte {
	p.t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	for {
		p.mu.Lock()
		data := p.data[stream]
		p.mu.Unlock()
		if len(data) >= n {
			return data
		}
		select {
		case <-p.more:
		case <-limit.C:
			p.t.Fatalf("%d of %d bytes of %s", len(data), n, stream)
		}
	}
}

// dial dials and accepts the stream back.
func (p *testPeer) dial(from, to, id string) {
	p.t.Helper()
	if got := p.call("ss-dial", from, to, id); got != "[]" {
		p.t.Fatalf("dial %s from %s: %s", to, from, got)
	}
	p.emit(proxy.Accept + id + ".listener")
}

// knows waits until a node has these members and no others.
func (n *node) knows(addrs ...string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("members %v", addrs), func() bool {
		now := n.star.Members()
		if len(now) != len(addrs) {
			return false
		}
		there := map[string]bool{}
		for _, m := range now {
			there[m] = true
		}
		for _, a := range addrs {
			if !there[a] {
				return false
			}
		}
		return true
	})
}

// heard tells whether any event has come.
func (p *testPeer) heard() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events) > 0
}
