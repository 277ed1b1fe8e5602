package secure

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"runtime"
	"testing"
)

// link is a Stream between two goroutines of a test.
type link struct{ in, out chan []byte }

func links() (a, b *link) {
	x, y := make(chan []byte, 100), make(chan []byte, 100)
	return &link{x, y}, &link{y, x}
}

func (l *link) Take(ctx context.Context, _ int) error { return ctx.Err() }

func (l *link) Put(p []byte) error {
	l.out <- bytes.Clone(p)
	return nil
}

func (l *link) Fill(n int, fill func([]byte)) error {
	p := make([]byte, n)
	fill(p)
	l.out <- p
	return nil
}

func (l *link) Borrow(ctx context.Context) ([]byte, error) {
	select {
	case p := <-l.in:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Recycle spoils what nobody should use any more.
func (l *link) Recycle(p []byte) {
	for i := range p {
		p[i] = 0xee
	}
}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func party(initiator bool, own, other ed25519.PrivateKey, prologue string) Party {
	return Party{Initiator: initiator, Prologue: []byte(prologue),
		Sign:   func(static []byte) []byte { return ed25519.Sign(own, static) },
		Verify: func(static, sig []byte) bool { return ed25519.Verify(other.Public().(ed25519.PublicKey), static, sig) }}
}

// shake runs both sides of a handshake.
func shake(t *testing.T, a, b *link, pa, pb Party) (sa, sb *Session, errA, errB error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if sb, errB = Handshake(ctx, b, pb); errB != nil {
			cancel() // the other side would wait for ever
		}
	}()
	if sa, errA = Handshake(ctx, a, pa); errA != nil {
		cancel()
	}
	<-done
	cancel()
	return sa, sb, errA, errB
}

func TestSession(t *testing.T) {
	a, b := links()
	sa, sb, errA, errB := shake(t, a, b, party(true, key(1), key(2), "p"), party(false, key(2), key(1), "p"))
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	for _, n := range []int{0, 1, MaxData - 1, MaxData, MaxData + 1, 3 * MaxData, 3*MaxData + 1} {
		msg := bytes.Repeat([]byte{byte(n)}, n)
		if begun, err := sa.Send(t.Context(), msg); err != nil || !begun {
			t.Fatal(begun, err)
		}
		for _, part := range drain(a.out) { // which is b.in
			if len(part) > MaxPart {
				t.Errorf("a part of %d bytes", len(part))
			}
			b.in <- part
		}
		got, whole, err := sb.Receive(t.Context(), nil, 1<<20)
		if err != nil || !whole || !bytes.Equal(got, msg) {
			t.Errorf("%d bytes: got %d, %v, %v", n, len(got), whole, err)
		}
	}
	if _, err := sa.Send(t.Context(), make([]byte, 3*MaxData)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sb.Receive(t.Context(), nil, 2*MaxData); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
}

func drain(c chan []byte) (out [][]byte) {
	for {
		select {
		case p := <-c:
			out = append(out, p)
		default:
			return out
		}
	}
}

// TestReceiveGoesOn: a context that ends between two parts loses nothing.
func TestReceiveGoesOn(t *testing.T) {
	a, b := links()
	sa, sb, _, _ := shake(t, a, b, party(true, key(1), key(2), "p"), party(false, key(2), key(1), "p"))
	msg := bytes.Repeat([]byte("x"), 2*MaxData)
	if _, err := sa.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	second := drain(a.out)
	b.in <- second[0]
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan []byte)
	go func() {
		rest, whole, err := sb.Receive(ctx, nil, 1<<20)
		if whole || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", whole, err)
		}
		got <- rest
	}()
	for len(b.in) > 0 { // until the first part was taken
		runtime.Gosched()
	}
	cancel()
	rest := <-got
	b.in <- second[1]
	if all, whole, err := sb.Receive(t.Context(), rest, 1<<20); err != nil || !whole || !bytes.Equal(all, msg) {
		t.Errorf("got %d bytes, %v, %v", len(all), whole, err)
	}
}

func TestHandshakeRefuses(t *testing.T) {
	silent := party(true, key(1), key(2), "p")
	silent.Sign = func([]byte) []byte { return nil }
	tests := []struct {
		name       string
		a, b       Party
		errA, errB error
	}{
		{"target is another", party(true, key(1), key(2), "p"), party(false, key(3), key(1), "p"), ErrIdentity, nil},
		{"creator is another", party(true, key(3), key(2), "p"), party(false, key(2), key(1), "p"), nil, ErrIdentity},
		{"another channel", party(true, key(1), key(2), "p"), party(false, key(2), key(1), "q"), ErrIdentity, nil},
		{"an agent that does not sign", silent, party(false, key(2), key(1), "p"), nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := links()
			_, _, errA, errB := shake(t, a, b, tt.a, tt.b)
			if errA == nil && errB == nil {
				t.Fatal("the handshake went through")
			}
			if tt.errA != nil && !errors.Is(errA, tt.errA) || tt.errB != nil && !errors.Is(errB, tt.errB) {
				t.Errorf("errors %v, %v", errA, errB)
			}
		})
	}
}

// FuzzResponder: whatever comes instead of a handshake, it ends in an error.
func FuzzResponder(f *testing.F) {
	f.Add(make([]byte, 32), make([]byte, 64))
	f.Add([]byte{}, []byte{1})
	f.Fuzz(func(t *testing.T, first, third []byte) {
		a, b := links()
		a.out <- first
		a.out <- third
		if _, err := Handshake(t.Context(), b, party(false, key(2), key(1), "p")); err == nil {
			t.Error("the handshake went through")
		}
	})
}

// FuzzReceive: only what the other end sealed is opened.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 1, 2}, 0)
	f.Fuzz(func(t *testing.T, part []byte, at int) {
		a, b := links()
		sa, sb, errA, errB := shake(t, a, b, party(true, key(1), key(2), "p"), party(false, key(2), key(1), "p"))
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		b.in <- bytes.Clone(part) // it is opened in place
		if _, _, err := sb.Receive(t.Context(), nil, 1<<20); !errors.Is(err, ErrTampered) {
			t.Errorf("made up: %v", err)
		}
		if _, err := sa.Send(t.Context(), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		sealed := <-a.out
		if at >= 0 && at < 8*len(sealed) {
			sealed[at/8] ^= 1 << (at % 8)
			b.in <- sealed
			if _, _, err := sb.Receive(t.Context(), nil, 1<<20); !errors.Is(err, ErrTampered) {
				t.Errorf("bit %d changed: %v", at, err)
			}
		}
	})
}
