package channel

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/p2p"
)

// collector is a SystemHandler that keeps what it serves.
type collector struct {
	channels chan Channel
	contents chan string
}

func newCollector() *collector {
	return &collector{channels: make(chan Channel, 100), contents: make(chan string, 100)}
}

func (c *collector) ServeSystem(ctx context.Context, ch Channel) {
	c.channels <- ch
	for {
		msg, err := ch.Receive(ctx)
		if err != nil {
			return
		}
		c.contents <- string(msg)
	}
}

func useSystem(t *testing.T, m Member) (System, *collector) {
	t.Helper()
	c := newCollector()
	s, err := m.System(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestSystem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		alice, bob := two(t, nil)
		sa, ca := useSystem(t, alice)
		_, cb := useSystem(t, bob)
		_, err := alice.System(t.Context(), ca)
		wantErr(t, err, ErrDuplicate)

		if err := sa.Connect(t.Context(), bob.Agent()); err != nil {
			t.Fatal(err)
		}
		if err := sa.Connect(t.Context(), bob.Agent()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(ca.channels) != 1 || len(cb.channels) != 1 {
			t.Fatalf("%d and %d system channels", len(ca.channels), len(cb.channels))
		}
		near, far := <-ca.channels, <-cb.channels
		if i := far.Info(); i.Protocol != "" || i.Remote != alice.Agent() || !i.Verified || i.Packed {
			t.Errorf("info %+v", i)
		}
		if err := near.Send(t.Context(), make([]byte, 512<<10)); err != nil {
			t.Errorf("512 KiB: %v", err)
		}
		wantErr(t, near.Send(t.Context(), make([]byte, 512<<10+1)), ErrTooLarge)
		if n := len(<-cb.contents); n != 512<<10 {
			t.Errorf("received %d bytes", n)
		}
		if err := sa.Close(); err != nil {
			t.Fatal(err)
		}
		<-far.Done()
		again, _ := useSystem(t, alice)
		if err := again.Connect(t.Context(), bob.Agent()); err != nil {
			t.Errorf("a second user: %v", err)
		}
	})
}

// TestSystemBothAtOnce: when both sides create one at the same time, one is left.
func TestSystemBothAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		alice, bob := two(t, nil)
		sa, ca := useSystem(t, alice)
		sb, cb := useSystem(t, bob)
		alice.Open(t.Context(), bob.Agent(), "nothing") // so that there is one connection
		errs := make(chan error, 2)
		go func() { errs <- sa.Connect(t.Context(), bob.Agent()) }()
		go func() { errs <- sb.Connect(t.Context(), alice.Agent()) }()
		for range 2 {
			if err := <-errs; err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		synctest.Wait()
		open := 0
		for _, c := range []*collector{ca, cb} {
			for len(c.channels) > 0 {
				if ch := <-c.channels; !isDone(ch) {
					open++
				}
			}
		}
		if open != 2 { // both ends of one
			t.Errorf("%d ends are open", open)
		}
	})
}

func isDone(ch Channel) bool {
	select {
	case <-ch.Done():
		return true
	default:
		return false
	}
}

// TestSystemWithoutUser: contents that nobody reads are answered with an error,
// errors are not.
func TestSystemWithoutUser(t *testing.T) {
	bubble(t, func(t *testing.T) {
		alice, bob := two(t, nil)
		sa, ca := useSystem(t, alice)
		if err := sa.Connect(t.Context(), bob.Agent()); err != nil {
			t.Fatal(err)
		}
		ch := <-ca.channels
		fault := must(p2p.Append(nil, &p2p.Error{Text: "mine"}))
		if err := ch.Send(t.Context(), fault); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(ca.contents) != 0 {
			t.Error("an error was answered")
		}
		if err := ch.Send(t.Context(), must(p2p.Append(nil, &p2p.Handshake{StoreRadius: 1}))); err != nil {
			t.Fatal(err)
		}
		m, err := p2p.Decode([]byte(<-ca.contents))
		if e, ok := m.(*p2p.Error); !ok || err != nil || e.Text != "unknown message" {
			t.Errorf("answered %+v, %v", m, err)
		}
		// A user that comes later takes over: the old channel is closed.
		useSystem(t, bob)
		<-ch.Done()
	})
}

func TestSystemThroughRelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		_, ca := useSystem(t, r.alice)
		sc, cc := useSystem(t, r.charlie)
		if err := sc.Connect(t.Context(), r.alice.Agent()); err != nil {
			t.Fatal(err)
		}
		ch := <-cc.channels
		if err := ch.Send(t.Context(), make([]byte, 300_000)); err != nil {
			t.Fatal(err)
		}
		if n := len(<-ca.contents); n != 300_000 {
			t.Errorf("received %d bytes", n)
		}
	})
}

// TestUnproven: peers that can't prove who they are get in where policy lets
// them, and are shown as what they are.
func TestUnproven(t *testing.T) {
	join := func(t *testing.T, policy bool) (alice, bob Member) {
		n := newTestNet(t)
		a, b := n.start(t, 1, nil), n.start(t, 2, func(c *Config) { c.AllowUnproven = policy })
		x, y := pipe(), pipe()
		a.Node.start(func(ctx context.Context) {
			a.Serve(ctx, Carrier{Stream: &duplex{x, y}, Dialer: true, Claimed: b.key.PeerID(), Address: "b"})
		})
		b.Node.start(func(ctx context.Context) { b.Serve(ctx, Carrier{Stream: &duplex{y, x}, Address: "a"}) })
		synctest.Wait()
		return a.join(t, "chess", a.key), b.join(t, "chess", b.key)
	}
	t.Run("listener", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			alice, bob := join(t, false)
			listen(t, bob, "strict")
			l := listen(t, bob, "open", AllowUnverified())
			_, err := alice.Open(t.Context(), bob.Agent(), "strict")
			wantErr(t, err, ErrNotAllowed)
			ch := mustOpen(t, alice, bob, "open")
			far := mustAccept(t, l)
			if ch.Info().Verified || far.Info().Verified {
				t.Error("shown as verified")
			}
			send(t, ch, "hello")
			receive(t, far, "hello")
			sa, _ := useSystem(t, alice)
			wantErr(t, sa.Connect(t.Context(), bob.Agent()), ErrNotAllowed)
		})
	})
	t.Run("system", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			alice, bob := join(t, true)
			_, cb := useSystem(t, bob)
			sa, _ := useSystem(t, alice)
			if err := sa.Connect(t.Context(), bob.Agent()); err != nil {
				t.Fatal(err)
			}
			if i := (<-cb.channels).Info(); i.Verified {
				t.Errorf("info %+v", i)
			}
		})
	})
}

// duplex joins two directions in memory.
type duplex struct{ in, out *halfPipe }

type halfPipe struct {
	*io.PipeReader
	*io.PipeWriter
}

func pipe() *halfPipe {
	r, w := io.Pipe()
	return &halfPipe{r, w}
}

func (d *duplex) Read(p []byte) (int, error)  { return d.in.PipeReader.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.out.PipeWriter.Write(p) }
func (d *duplex) Close() error {
	d.in.PipeReader.Close()
	return d.out.PipeWriter.Close()
}

func TestLimitConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		b := n.start(t, 2, func(c *Config) { c.Limits.Connections, c.Limits.PerAddress = 3, 2 })
		try := func(address string) error {
			x, y := pipe(), pipe()
			err := make(chan error, 1)
			ok := b.Node.start(func(ctx context.Context) { err <- b.Serve(ctx, Carrier{Stream: &duplex{x, y}, Address: address}) })
			if !ok {
				t.Fatal("not running")
			}
			synctest.Wait()
			select {
			case e := <-err:
				return e
			default:
				return nil
			}
		}
		for i, want := range []error{nil, nil, ErrLimit} {
			if err := try("1.2.3.4"); want == nil && err != nil || want != nil && !errors.Is(err, want) {
				t.Errorf("connection %d of one address: %v", i, err)
			}
		}
		if err := try("5.6.7.8"); err != nil {
			t.Error(err)
		}
		wantErr(t, try("9.9.9.9"), ErrLimit)
		if m := b.Metrics(); m.Connections.Current != 3 || m.Refused["connections"] != 1 || m.Refused["address"] != 1 {
			t.Errorf("metrics %+v, %v", m.Connections, m.Refused)
		}
	})
}

func TestLimitMembers(t *testing.T) {
	n := newTestNet(t)
	a := n.start(t, 1, func(c *Config) { c.Limits.Members = 2 })
	a.join(t, "x", testKey(t, 11))
	m := a.join(t, "y", testKey(t, 11))
	_, err := a.Space("z").Join(t.Context(), testKey(t, 11))
	wantErr(t, err, ErrLimit)
	if err := m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.join(t, "z", testKey(t, 11))
}

var _ identity.Agent = identity.Key{}
