package parley

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/admin"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/star"
)

// starProxy is a star behind a proxy that sees all bytes, as its operator would.
type starProxy struct {
	t  *testing.T
	at string // multiaddr

	mu   sync.Mutex
	seen bytes.Buffer
	bad  bool // a hidden phrase went by in the clear
	stop func()
	port *heldPort
}

// hidden is what no star may read.
const hidden = "the eagle has landed at noon"

// heldPort is a port that stays the test's while stars on it come and go: another
// program could take it in between. While there is none its connections are closed.
type heldPort struct {
	real net.Listener

	mu   sync.Mutex
	view *portView // nil while no star is there
}

// portView is a star's listener on a heldPort.
type portView struct {
	port  *heldPort
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func holdPort(t *testing.T) *heldPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &heldPort{real: l}
	var wg sync.WaitGroup
	wg.Go(h.pass)
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return h
}

func (h *heldPort) pass() {
	for {
		c, err := h.real.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		v := h.view
		h.mu.Unlock()
		if v == nil {
			_ = c.Close()
			continue
		}
		select {
		case v.conns <- c:
		case <-v.done:
			_ = c.Close()
		}
	}
}

func (h *heldPort) listen() *portView {
	v := &portView{port: h, conns: make(chan net.Conn), done: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.view = v
	return v
}

func (v *portView) Accept() (net.Conn, error) {
	select {
	case c := <-v.conns:
		return c, nil
	case <-v.done:
		return nil, net.ErrClosed
	}
}

func (v *portView) Close() error {
	v.once.Do(func() {
		v.port.mu.Lock()
		if v.port.view == v {
			v.port.view = nil
		}
		v.port.mu.Unlock()
		close(v.done)
	})
	return nil
}

func (v *portView) Addr() net.Addr { return v.port.real.Addr() }

// startStar runs a star on loopback.
func startStar(t *testing.T) *starProxy {
	t.Helper()
	return startStarOn(t, holdPort(t))
}

func startStarOn(t *testing.T, port *heldPort) *starProxy {
	t.Helper()
	srv, err := star.NewHandler(star.Options{Drain: -1})
	if err != nil {
		t.Fatal(err)
	}
	l := port.listen()
	p := &starProxy{t: t, port: port}
	p.at = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/ws/p2p-websocket-star", l.Addr().(*net.TCPAddr).Port)
	hs := &http.Server{Handler: srv.Handler(), ReadHeaderTimeout: 5 * time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(&tappedListener{l, p}) })
	wg.Go(func() { _ = srv.Run(ctx) })
	p.stop = sync.OnceFunc(func() { cancel(); _ = hs.Close(); wg.Wait() })
	t.Cleanup(p.stop)
	return p
}

type tappedListener struct {
	net.Listener
	p *starProxy
}

func (l *tappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tappedConn{Conn: c, p: l.p}, nil
}

// tappedConn looks at what the star sends, which no mask hides.
type tappedConn struct {
	net.Conn
	p    *starProxy
	tail []byte
}

func (c *tappedConn) Write(b []byte) (int, error) {
	c.p.look(append(append([]byte(nil), c.tail...), b...), len(b))
	c.tail = append(c.tail[:0], b[max(len(b)-len(hidden), 0):]...)
	return c.Conn.Write(b)
}

func (p *starProxy) look(b []byte, fresh int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad = p.bad || bytes.Contains(b, []byte(hidden))
	if p.seen.Len() < 1<<20 {
		p.seen.Write(b[len(b)-fresh:])
	}
}

// check says whether the star carried anything, and whether it could read it.
func (p *starProxy) check() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bad {
		p.t.Error("the star could read what pages told each other")
	}
	if !bytes.Contains(p.seen.Bytes(), []byte("socket.io-pull-stream.queue.")) {
		p.t.Error("nothing went over the star")
	}
}

// starConfig is a node without sockets: stars are its only way to others.
func starConfig(t *testing.T, stars ...string) Config {
	cfg := loopbackConfig(t)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // the nodes don't see each other on this machine
	cfg.P2P.Listen = stars[:1]
	cfg.P2P.Stars = stars[1:]
	cfg.Peer.SendTimeout = seconds(30)
	return cfg
}

// starOf is how a node says that a star is doing.
func starOf(t *testing.T, n *Node, at string) (state, why string) {
	t.Helper()
	token, err := n.data.Token()
	if err != nil {
		t.Fatal(err)
	}
	var status admin.Status
	if err := json.Unmarshal(ask(n, "/_parley/status.json", token).Body.Bytes(), &status); err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Panels {
		if p.ID != "stars" {
			continue
		}
		for _, row := range p.Section.Table.Rows {
			if row[0] == at {
				return row[1].(string), fmt.Sprint(row[len(row)-1])
			}
		}
	}
	t.Fatalf("no star %s in the status", at)
	return "", ""
}

// Two pages whose nodes have nothing but a star in common find each other by id
// alone, talk, meet in a topic, see the path, and outlive a restart of the star; the
// star sees ciphertext, and two dead ones beside it harm nothing.
func TestPagesMeetOnAStar(t *testing.T) {
	s := startStar(t)
	dead := []string{"/ip4/127.0.0.1/tcp/1/ws/p2p-websocket-star", "/dns4/star.invalid/tcp/443/wss/p2p-websocket-star"}
	began := time.Now()
	first := runNode(t, starConfig(t, s.at, dead[0], dead[1]))
	second := runNode(t, starConfig(t, s.at))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the start took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	a, b := newPeer(t, first), newPeer(t, second)
	talk(ctx, t, a, b)
	if got := a.Path(b.ID()); got.Path != network.PathStar {
		t.Errorf("path is %+v, want star", got)
	}
	if err := b.Handle("secret", func(_ context.Context, m Message) (*Content, error) { return &m.Content, nil }); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Request(ctx, b.ID(), "secret", Text(hidden)); err != nil || string(got.Data) != `"`+hidden+`"` {
		t.Errorf("Request: %s, %v", got.Data, err)
	}
	s.check()
	meetInTopic(ctx, t, a, b)

	if state, why := starOf(t, first, s.at); state != "joined" {
		t.Errorf("the good star is %s: %s", state, why)
	}
	if state, why := starOf(t, first, dead[0]); state != "waiting" && state != "connecting" || why == "" {
		t.Errorf("the dead star is %s: %s", state, why)
	}

	s.stop()
	again := startStarOn(t, s.port)
	for {
		got, err := a.Request(ctx, b.ID(), "secret", Text(hidden))
		if err == nil {
			if string(got.Data) != `"`+hidden+`"` {
				t.Errorf("after the restart: %s", got.Data)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("not reached after a restart of the star: %v", err)
		}
	}
	again.check()
}

// What p2p.stars says is checked at the start.
func TestStarsOfTheConfiguration(t *testing.T) {
	for text, ok := range map[string]bool{
		"/dns4/star.example/tcp/443/wss/p2p-websocket-star": true,
		"/ip4/127.0.0.1/tcp/9090/ws/p2p-websocket-star":     true,
		"/ip4/127.0.0.1/tcp/9090/ws":                        false,
		"star.example":                                      false,
	} {
		cfg := DefaultConfig()
		cfg.P2P.Stars = []string{text}
		if err := cfg.Validate(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "p2p.stars") {
			t.Errorf("%s: %v", text, err)
		}
	}
	cfg := DefaultConfig()
	cfg.P2P.OpenStars = []string{"/dns4/star.example/tcp/443/wss/p2p-websocket-star"}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "p2p.openStars") {
		t.Errorf("an open star that isn't used: %v", err)
	}
}

// A star whose certificate this machine doesn't know is joined where p2p.starRoots
// names it, and nowhere else.
func TestRootsOfAStar(t *testing.T) {
	srv, err := star.NewHandler(star.Options{Drain: -1})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewUnstartedServer(srv.Handler())
	hs.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that were given up
	hs.StartTLS()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); hs.Close() })
	file := filepath.Join(t.TempDir(), "root.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hs.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/wss/p2p-websocket-star", hs.Listener.Addr().(*net.TCPAddr).Port)

	knows, doubts := starConfig(t, at), starConfig(t, at)
	knows.P2P.StarRoots = []string{at + "=" + file}
	for want, cfg := range map[string]Config{"joined": knows, "waiting": doubts} {
		n := runNode(t, cfg)
		var state, why string
		gatewaytest.WaitFor(t, "a star to be "+want, func() bool {
			state, why = starOf(t, n, at)
			return state == want
		})
		if want == "waiting" && !strings.Contains(why, "certificate") {
			t.Errorf("waiting for %q", why)
		}
	}

	for _, bad := range []string{at, at + "=", "/dns4/other.example/tcp/443/wss/p2p-websocket-star=" + file} {
		cfg := starConfig(t, at)
		if cfg.P2P.StarRoots = []string{bad}; cfg.Validate() == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for _, bad := range []string{file + ".not", os.Args[0]} {
		cfg := starConfig(t, at)
		cfg.P2P.StarRoots = []string{at + "=" + bad}
		if n, err := New(cfg); err == nil || !strings.Contains(err.Error(), "p2p.starRoots") {
			t.Errorf("%s: %v, %v", bad, n, err)
		}
	}
}
