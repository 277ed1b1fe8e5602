package conn

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/wire/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// acceptAll is a handler that accepts every channel and hands it over.
type acceptAll struct {
	accepted chan *Stream
	accept   func(m *mux.Message) (Accepting, *Error)
}

func newAcceptAll() *acceptAll { return &acceptAll{accepted: make(chan *Stream, 20_000)} }

func (h *acceptAll) Hello(*Conn) {}

func (h *acceptAll) Create(c *Conn, m *mux.Message) {
	var a Accepting
	if h.accept != nil {
		var err *Error
		if a, err = h.accept(m); err != nil {
			c.Refuse(m, err.Code, err.Text)
			return
		}
	}
	h.accepted <- c.Accept(m, a)
}

func (h *acceptAll) Accepted(*Stream, []byte) *Error { return nil }
func (h *acceptAll) Relay(*Conn, *mux.Message)       {}

// pair is two connections with their handlers.
type pair struct {
	a, b   *Conn // a is the dialer
	ha, hb *acceptAll
}

func newConfig(dialer bool, l Limits) Config {
	cfg := Config{Dialer: dialer, Limits: l, Metrics: &Metrics{}, Buffers: &Buffers{}, Features: mux.FeatureFlow}
	cfg.Nonce[0] = 1
	if dialer {
		cfg.Nonce[0] = 2
	}
	return cfg
}

// connect runs two connections over carriers until the test ends.
func connect(t testing.TB, ca, cb io.ReadWriteCloser, l Limits) *pair {
	t.Helper()
	p := &pair{ha: newAcceptAll(), hb: newAcceptAll()}
	p.a = New(ca, newConfig(true, l), p.ha)
	p.b = New(cb, newConfig(false, l), p.hb)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 2)
	go func() { done <- p.a.Run(ctx) }()
	go func() { done <- p.b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
	})
	return p
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed := make(chan net.Conn, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
		}
		dialed <- c
	}()
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return <-dialed, b
}

var ids = Opening{SpaceHash: []byte("space"), To: []byte("bob"), From: []byte("alice")}

func (p *pair) open(t testing.TB, o Opening) (near, far *Stream) {
	t.Helper()
	near, err := p.a.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := near.WaitAccepted(t.Context()); err != nil {
		t.Fatal(err)
	}
	return near, <-p.hb.accepted
}

func TestEcho(t *testing.T) {
	a, b := net.Pipe()
	p := connect(t, a, b, Limits{})
	near, far := p.open(t, ids)
	for _, n := range []int{0, 1, 31, 32, 1000, 1024, 1025, 5000, 65536} {
		msg := make([]byte, n)
		for i := range msg {
			msg[i] = byte(i * n)
		}
		if err := near.Send(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		got, err := far.Receive(t.Context())
		if err != nil || string(got) != string(msg) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	if err := near.Send(t.Context(), make([]byte, 65537)); !errors.Is(err, &Error{Code: TooLarge}) {
		t.Errorf("65,537 bytes: %v", err)
	}
	if err := near.Send(t.Context(), []byte("last")); err != nil {
		t.Fatal(err)
	}
	near.Close()
	if got, err := io.ReadAll(far); err != nil || string(got) != "last" {
		t.Errorf("read %q, %v", got, err)
	}
	<-far.Done()
	if far.Err() != nil {
		t.Errorf("ended with %v", far.Err())
	}
}
