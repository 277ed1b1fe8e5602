package ws

import (
	"errors"
	"net"
	"testing"
)

// Tire makes a Read that waits for a message leave; one in the middle of a message
// goes on; nothing is lost either way, and Interrupt ends both.
func TestTire(t *testing.T) {
	here, away := tcp(t)
	c, peer := NewConn(here, true, nil, 1<<20, &Memory{}), NewConn(away, false, nil, 1<<20, &Memory{})
	defer c.Release()
	defer peer.Release()
	c.Tire()
	if _, err := c.Read(); err != ErrTired {
		t.Fatalf("a tired reader gives %v", err)
	}
	whole := make([]byte, 32<<10)
	b := peer.Batch()
	b.Add(Binary, whole)
	b.cut()
	raw := b.parts[0]
	if _, err := away.Write(raw[:9000]); err != nil {
		t.Fatal(err)
	}
	if err := c.Rest(); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Lone(); ok {
		t.Error("the begin of a chunk is taken for a lone byte")
	}
	c.Tire()
	got := make(chan error, 1)
	go func() {
		m, err := c.Read()
		if err == nil && len(m.Data) != len(whole) {
			err = errors.New("the message is another")
		}
		m.Buf.Free()
		got <- err
	}()
	for tired := true; tired; { // until it was in the middle of the message
		c.mu.Lock()
		tired = c.tired
		c.mu.Unlock()
		select {
		case err := <-got:
			t.Fatalf("the reader left: %v", err)
		default:
		}
	}
	if _, err := away.Write(raw[9000:]); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	c.Tire()
	c.Interrupt()
	if _, err := c.Read(); err == nil || err == ErrTired {
		t.Errorf("after its end a tired reader gives %v", err)
	}
	if err := c.Rest(); err == nil {
		t.Error("a reader rests after its end")
	}
}

// An answer of which the connection takes a part ends it: what else would be written
// would stand in the middle of a frame.
func TestAnswerInPart(t *testing.T) {
	here, away := tcp(t)
	c := NewConn(here, true, nil, 1<<20, &Memory{})
	defer c.Release()
	if _, err := away.Write([]byte("\x81\x81\x00\x00\x00\x002")); err != nil {
		t.Fatal(err)
	}
	if err := c.Rest(); err != nil {
		t.Fatal(err)
	}
	if text, ok := c.Lone(); !ok || text != '2' {
		t.Fatalf("%q, %v", text, ok)
	}
	if c.Answer(make([]byte, 64<<20)) {
		t.Fatal("64 MiB went at once")
	}
	if _, err := here.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("more is written behind the part: %v", err)
	}
}
