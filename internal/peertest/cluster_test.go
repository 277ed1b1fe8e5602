package peertest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testKey(t testing.TB, n byte) identity.Key {
	t.Helper()
	k, err := identity.KeyFromSeed([ed25519.SeedSize]byte{n})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pair is two hosts, the second of which hands its streams out.
func pair(t *testing.T) (c *Cluster, a, b *Host, streams chan network.Stream) {
	c = New()
	a, b = c.Host(testKey(t, 1)), c.Host(testKey(t, 2))
	streams = make(chan network.Stream, 1)
	b.Handle("/p", func(ctx context.Context, s network.Stream) {
		streams <- s
		<-ctx.Done()
	})
	return c, a, b, streams
}

func open(t *testing.T, a, b *Host, streams chan network.Stream) (near, far network.Stream) {
	t.Helper()
	near, err := a.Open(context.Background(), b.Local(), "/unknown", "/p")
	if err != nil {
		t.Fatal(err)
	}
	return near, <-streams
}

func TestStreamsCarryBytesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b, streams := pair(t)
		defer c.Close()
		c.SetDelay(100 * time.Millisecond)
		near, far := open(t, a, b, streams)
		if near.Protocol() != "/p" || far.Remote() != a.Local() || near.Path() != network.PathDirect {
			t.Fatalf("stream is %v from %v by %v", near.Protocol(), far.Remote(), near.Path())
		}
		start := time.Now()
		data := make([]byte, 3*pipeLimit)
		data[len(data)-1] = 7
		go func() {
			if _, err := near.Write(data); err != nil {
				t.Error(err)
			}
			_ = near.CloseWrite()
		}()
		got, err := io.ReadAll(far)
		if err != nil || len(got) != len(data) || got[len(got)-1] != 7 {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if d := time.Since(start); d < 100*time.Millisecond || d > time.Second {
			t.Fatalf("took %v", d)
		}
	})
}

func TestCutBlockHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b, streams := pair(t)
		defer c.Close()
		near, far := open(t, a, b, streams)
		c.Block(a.Local(), b.Local())
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read through a blocked link: %v", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		c.Heal(a.Local(), b.Local())
		if _, err := far.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if n := c.Streams(a.Local(), b.Local()); n != 1 {
			t.Fatalf("%d streams", n)
		}
		c.Cut(a.Local(), b.Local())
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Fatalf("read on a cut link: %v", err)
		}
		if _, err := a.Open(context.Background(), b.Local(), "/p"); identity.CodeOf(err) != identity.CodeUnreachable {
			t.Fatalf("open on a cut link: %v", err)
		}
		c.Heal(a.Local(), b.Local())
		if _, err := a.Open(context.Background(), b.Local(), "/q"); identity.CodeOf(err) != identity.CodeNotStarted {
			t.Fatalf("open of what nobody handles: %v", err)
		}
		open(t, a, b, streams)
	})
}

func TestRestartedHostIsANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b, streams := pair(t)
		defer c.Close()
		near, _ := open(t, a, b, streams)
		c.Host(testKey(t, 2))
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Fatal("stream outlived its host")
		}
		if _, err := a.Open(context.Background(), b.Local(), "/p"); identity.CodeOf(err) != identity.CodeNotStarted {
			t.Fatalf("the new host has the old one's handlers: %v", err)
		}
	})
}
