package transport_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/transport"
)

// What one connection keeps to: windows, ends, deadlines, budgets. They are tested
// below Noise and the muxer, whose own windows would hide it.

// answering is a node whose connections come without a handshake.
type answering struct {
	*node
	arrived <-chan *transport.Conn
}

func (w *world) answering(o transport.Options, at string) answering {
	w.t.Helper()
	n := w.node(o)
	arrived, stop, err := n.ListenRaw(ma.StringCast(at))
	if err != nil {
		w.t.Fatal(err)
	}
	w.atEnd(stop)
	n.state(at, transport.Joined)
	return answering{n, arrived}
}

// raw connects two nodes without a handshake.
func (n *node) raw(w *world, to answering, at string) (here, there *transport.Conn) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	here, err := n.DialRaw(ctx, ma.StringCast(at), to.id)
	if err != nil {
		n.t.Fatalf("dial: %v", err)
	}
	there = <-to.arrived
	w.atEnd(func() { _ = here.Reset(); _ = there.Reset() })
	return here, there
}

// rawPair is a star with two nodes and a connection.
func rawPair(w *world, so star.Options, o transport.Options) (a *node, here, there *transport.Conn) {
	w.star("star.test:80", so)
	a = w.node(o)
	here, there = a.raw(w, w.answering(transport.Options{}, where), where)
	return a, here, there
}

// A reader that doesn't read holds the writer back: what waits is a window here, one
// in the star, one at the reader. When it reads, nothing is missing.
func TestWindowHoldsTheWriter(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, here, there := rawPair(w, star.Options{}, transport.Options{})
		const size = 4 << 20
		data := strings.Repeat("0123456789abcdef", size/16)
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := io.WriteString(here, data); n != size || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			_ = here.CloseWrite()
		})
		pause(10 * time.Second) // less than a stall
		if out := a.Status()[0].Out; out < 256<<10 || out > 3*256<<10+64<<10 {
			t.Errorf("%d bytes left to a reader that doesn't read", out)
		}
		got, err := io.ReadAll(there)
		if err != nil || string(got) != data {
			t.Errorf("%d bytes came, %v", len(got), err)
		}
		wg.Wait()
	})
}

// S-4: a reader that takes nothing for 20 s loses the connection, and both sides are
// told why; others over the same sockets go on.
func TestS_4_StalledReaderLosesTheStream(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		a, b := w.node(transport.Options{}), w.answering(transport.Options{}, where)
		here, there := a.raw(w, b, where)
		other, otherThere := a.raw(w, b, where)
		began := time.Now()
		_, err := here.Write(make([]byte, 4<<20))
		if took := time.Since(began); !errors.Is(err, transport.ErrStreamStalled) || took < 19*time.Second || took > 25*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		pause(time.Second)
		if _, err := io.ReadAll(there); !errors.Is(err, transport.ErrStreamStalled) {
			t.Errorf("the reader is told %v", err)
		}
		_, _ = other.Write([]byte("x"))
		if n, err := otherThere.Read(make([]byte, 8)); n != 1 || err != nil {
			t.Errorf("another connection: %d, %v", n, err)
		}
	})
}

// Each direction ends on its own; a connection whose both have ended is forgotten.
func TestHalfClose(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, here, there := rawPair(w, star.Options{}, transport.Options{})
		_, _ = here.Write([]byte("question"))
		_ = here.CloseWrite()
		if _, err := here.Write([]byte("more")); err == nil {
			t.Error("written after the end")
		}
		if got, err := io.ReadAll(there); string(got) != "question" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		pause(5 * time.Minute) // a half-open connection stays
		_, _ = there.Write([]byte("answer"))
		_ = there.CloseWrite()
		if got, err := io.ReadAll(here); string(got) != "answer" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		pause(time.Second) // read before the connection is out of the tables
		if n := a.Status()[0].Streams; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// Reset ends both directions with an error; what was read before stays true.
func TestReset(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, here, there := rawPair(w, star.Options{}, transport.Options{})
		_, _ = here.Write([]byte("x"))
		if n, err := there.Read(make([]byte, 8)); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		_ = here.Reset()
		if _, err := there.Read(make([]byte, 8)); !errors.Is(err, transport.ErrStreamFailed) {
			t.Errorf("read: %v", err)
		}
		if _, err := here.Read(make([]byte, 8)); err == nil {
			t.Error("read after an own reset")
		}
		pause(time.Second)
		if _, err := there.Write([]byte("x")); err == nil {
			t.Error("written after a reset")
		}
	})
}

// Close gives the last bytes some seconds to leave, and no more.
func TestCloseLingers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, here, there := rawPair(w, star.Options{}, transport.Options{})
		_, _ = here.Write([]byte("last words"))
		_ = here.Close()
		if got, err := io.ReadAll(there); string(got) != "last words" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		_ = there.Close()
		pause(time.Second)
		if n := a.Status()[0].Streams; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// A deadline ends a wait, also one under way, and can be moved.
func TestDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, here, there := rawPair(w, star.Options{}, transport.Options{})
		began := time.Now()
		_ = here.SetReadDeadline(began.Add(time.Second))
		if _, err := here.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("read after %v: %v", time.Since(began), err)
		}
		_ = here.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { _ = here.SetReadDeadline(time.Now()) })
		if _, err := here.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read with a deadline set meanwhile: %v", err)
		}
		_ = here.SetDeadline(time.Now().Add(time.Second))
		if n, err := here.Write(make([]byte, 4<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = there.Reset()
	})
}

// withBudget are options of a node with a budget on every star.
func withBudget(b transport.Budget) transport.Options {
	return transport.Options{Star: func(string) transport.StarOptions { return transport.StarOptions{Budget: b} }}
}

// A connection that has used its budget is cut, with notice at four fifths.
func TestBudgetOfADial(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		a, b := w.node(withBudget(transport.Budget{Dial: 1 << 20})), w.answering(transport.Options{}, where)
		here, there := a.raw(w, b, where)
		if !here.Stat().Limited {
			t.Error("not marked as limited")
		}
		go func() { _, _ = io.Copy(io.Discard, there) }()
		if _, err := here.Write(make([]byte, 800<<10)); err != nil || len(a.near) != 0 {
			t.Fatalf("%v; told %d times", err, len(a.near))
		}
		_, err := here.Write(make([]byte, 1<<20))
		if identity.CodeOf(err) != identity.CodeLimit {
			t.Errorf("above the budget: %v", err)
		}
		if id := <-a.near; id != b.id {
			t.Errorf("near its end: %s", id)
		}
		next, _ := a.raw(w, b, where)
		if _, err := next.Write([]byte("a new one has its own")); err != nil {
			t.Error(err)
		}
	})
}

// A budget of a day is of all connections over the star.
func TestBudgetOfADay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		a, b := w.node(withBudget(transport.Budget{Day: 1 << 20})), w.answering(transport.Options{}, where)
		for i, want := range []bool{true, false} {
			here, there := a.raw(w, b, where)
			if !here.Stat().Limited {
				t.Error("not marked as limited")
			}
			go func() { _, _ = io.Copy(io.Discard, there) }()
			_, err := here.Write(make([]byte, 700<<10))
			if (err == nil) != want || err != nil && identity.CodeOf(err) != identity.CodeLimit {
				t.Errorf("use %d: %v", i, err)
			}
			_ = here.Reset()
		}
	})
}

// A rate makes the writer wait.
func TestBudgetOfASecond(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, here, there := rawPair(w, star.Options{}, withBudget(transport.Budget{Second: 100 << 10}))
		if here.Stat().Limited {
			t.Error("a rate is no limit of bytes")
		}
		go func() { _, _ = io.Copy(io.Discard, there) }()
		began := time.Now()
		_, err := here.Write(make([]byte, 1<<20))
		if took := time.Since(began); err != nil || took < 8*time.Second || took > 12*time.Second {
			t.Errorf("1 MiB at 100 KiB/s took %v, %v", took, err)
		}
	})
}

// The star's own limits are known before a dial, and its end of a stream is its own
// error.
func TestPolicyOfTheStar(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		so := star.Options{Policy: star.PolicyPublic, Limits: star.Limits{SessionRate: -1, IPRate: -1}, Streams: proxy.Limits{DialBytes: 1 << 20}}
		a, here, there := rawPair(w, so, withBudget(transport.Budget{}))
		if !here.Stat().Limited || !a.Status()[0].Limited {
			t.Error("not marked as limited")
		}
		go func() { _, _ = io.Copy(io.Discard, there) }()
		var err error
		for n := 0; err == nil && n < 4<<20; n += 64 << 10 {
			_, err = here.Write(make([]byte, 64<<10))
		}
		if !errors.Is(err, transport.ErrByteLimit) {
			t.Errorf("above the star's limit: %v", err)
		}
		if len(a.near) != 1 {
			t.Errorf("told %d times that it nears its end", len(a.near))
		}
	})
}
