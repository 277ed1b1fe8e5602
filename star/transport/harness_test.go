package transport_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	libtransport "github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// where is the star of most tests.
const where = "/dns4/star.test/tcp/80/ws/p2p-websocket-star"

// world is a network of pipes with stars on it, by host and port.
type world struct {
	t   testing.TB
	mu  sync.Mutex
	at  map[string]*startest.Net
	end []func()
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, at: make(map[string]*startest.Net)}
	t.Cleanup(w.stop)
	return w
}

// stop ends everything, the newest first. It may be called twice.
func (w *world) stop() {
	w.mu.Lock()
	end := w.end
	w.end = nil
	w.mu.Unlock()
	for _, f := range slices.Backward(end) {
		f()
	}
}

func (w *world) atEnd(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = append(w.end, f)
}

// bubble runs f in virtual time.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f(t, w)
		w.stop()
		synctest.Wait()
	})
}

// dial is the transports' way to servers.
func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	n := w.at[addr]
	w.mu.Unlock()
	if n == nil {
		return nil, errors.New("connection refused")
	}
	return n.Dial(ctx, network, addr)
}

// serve puts a handler at an address; stop takes it away.
func (w *world) serve(addr string, h http.Handler) (stop func()) {
	n := startest.NewNet()
	w.mu.Lock()
	w.at[addr] = n
	w.mu.Unlock()
	hs := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(n) })
	stop = sync.OnceFunc(func() {
		w.mu.Lock()
		if w.at[addr] == n {
			delete(w.at, addr)
		}
		w.mu.Unlock()
		_ = n.Close()
		_ = hs.Close()
		wg.Wait()
	})
	w.atEnd(stop)
	return stop
}

// star is a server that runs.
type runningStar struct {
	*star.Server
	stop func() // at once
}

// star starts a server at an address.
func (w *world) star(addr string, o star.Options) *runningStar {
	w.t.Helper()
	if o.Drain == 0 {
		o.Drain = -1
	}
	srv, err := star.NewHandler(o)
	if err != nil {
		w.t.Fatal(err)
	}
	unserve := w.serve(addr, srv.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Run(ctx); err != nil {
			w.t.Errorf("star: %v", err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done; unserve() })
	w.atEnd(stop)
	return &runningStar{Server: srv, stop: stop}
}

// node is a transport with what a host gives it.
type node struct {
	t  testing.TB
	id peer.ID
	*transport.Transport
	listener libtransport.Listener

	mu    sync.Mutex
	found map[peer.ID]time.Duration
	told  atomic.Int64
	near  chan peer.ID
	conns chan libtransport.CapableConn // that came in
}

// keyOf gives a recorded key of a type.
func keyOf(t testing.TB, kind string) crypto.PrivKey {
	t.Helper()
	who := startest.Load(t).OfType(t, kind)
	raw, err := base64.StdEncoding.DecodeString(who.JSON.PrivKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// node makes a node; it listens nowhere yet.
func (w *world) node(o transport.Options) *node { return w.nodeWith(newKey(w.t), o) }

func (w *world) nodeWith(key crypto.PrivKey, o transport.Options) *node {
	w.t.Helper()
	return w.nodeGated(key, o, nil, nil)
}

func (w *world) nodeGated(key crypto.PrivKey, o transport.Options, limits network.ResourceManager, gater connmgr.ConnectionGater) *node {
	w.t.Helper()
	n := &node{t: w.t, found: make(map[peer.ID]time.Duration), near: make(chan peer.ID, 8), conns: make(chan libtransport.CapableConn, 256)}
	if o.Dialer == nil {
		o.Dialer = w.dial
	}
	o.Found = func(id peer.ID, _ ma.Multiaddr, life time.Duration) {
		n.told.Add(1)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.found[id] = life; life == 0 {
			delete(n.found, id)
		}
	}
	o.NearLimit = func(id peer.ID) { n.near <- id }
	t, err := transport.New(key, o)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Transport = t
	if n.id, err = peer.IDFromPrivateKey(key); err != nil {
		w.t.Fatal(err)
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		w.t.Fatal(err)
	}
	up, err := upgrader.New([]sec.SecureTransport{secure}, muxers, nil, &network.NullResourceManager{}, gater)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := t.Attach(up, limits, gater); err != nil {
		w.t.Fatal(err)
	}
	w.atEnd(func() {
		if err := t.Close(); err != nil {
			w.t.Errorf("close transport: %v", err)
		}
	})
	return n
}

// listen listens on a star, and takes what comes in.
func (n *node) listen(w *world, at string) *node {
	n.t.Helper()
	l, err := n.Listen(ma.StringCast(at))
	if err != nil {
		n.t.Fatal(err)
	}
	n.listener = l
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.atEnd(func() { _ = c.Close() })
			n.conns <- c
		}
	}()
	w.atEnd(func() { _ = l.Close(); <-done })
	return n
}

// state waits until the star at an address has a state.
func (n *node) state(at string, want transport.State) transport.Status {
	n.t.Helper()
	deadline := time.Now().Add(10 * time.Minute)
	for {
		for _, s := range n.Status() {
			if s.Address == at && s.State == want {
				return s
			}
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("never %s: %+v", want, n.Status())
		}
		pause(10 * time.Millisecond)
	}
}

// lost waits until a node is on no star any more. (A state may be over before a poll
// sees it: the wait before the next attempt is random.)
func (n *node) lost() {
	for len(n.Addrs()) > 0 {
		pause(10 * time.Millisecond)
	}
}

// pause waits in virtual time; outside of a bubble the tests that use it poll.
func pause(d time.Duration) { <-time.After(d) }

// seen waits until a node has heard of another.
func (n *node) seen(id peer.ID) time.Duration {
	n.t.Helper()
	for range 10_000 {
		n.mu.Lock()
		life, ok := n.found[id]
		n.mu.Unlock()
		if ok {
			return life
		}
		pause(10 * time.Millisecond)
	}
	n.t.Fatalf("never heard of %s", id)
	return 0
}

// connect dials another node over the star at an address.
func (n *node) connect(w *world, to *node, at string) (here, there libtransport.CapableConn) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, ma.StringCast(at), to.id)
	if err != nil {
		n.t.Fatalf("dial: %v", err)
	}
	w.atEnd(func() { _ = c.Close() })
	return c, <-to.conns
}

// echo sends text over a new stream and wants it back.
func echo(t testing.TB, here, there libtransport.CapableConn, text string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		s, err := there.AcceptStream()
		if err == nil {
			_, err = io.Copy(s, s)
			err = errors.Join(err, s.CloseWrite())
		}
		done <- err
	}()
	s, err := here.OpenStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(s, text)
		written <- errors.Join(err, s.CloseWrite())
	}()
	got, err := io.ReadAll(s)
	if err = errors.Join(err, <-written); err != nil || string(got) != text {
		t.Fatalf("echoed %d bytes, %v; want %d", len(got), err, len(text))
	}
	if err := <-done; err != nil {
		t.Fatalf("echoing: %v", err)
	}
	_ = s.Close()
}
