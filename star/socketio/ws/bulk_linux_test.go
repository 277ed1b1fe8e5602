package ws

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// tcp is two ends of a connection of loopback.
func tcp(t *testing.T) (here, away net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if away, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if here, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); away.Close() })
	return here, away
}

// What is read ahead behind a large message is not lost: many of them, of changing
// lengths, each behind a text as events are, and small ones between.
func TestReadsAheadBehindLargeMessages(t *testing.T) {
	here, away := tcp(t)
	var mem Memory
	c, peer := NewConn(here, true, nil, 4<<20, &mem), NewConn(away, false, nil, 4<<20, &mem)
	var want [][]byte
	for i, n := range []int{5000, 64 << 10, 64<<10 + 1, 512 << 10, 70, 80, 90, 64 << 10, 1<<20 + 3, 1 << 20, 3 << 20, 4097, 0, 1, 65000, 65000} {
		want = append(want, []byte("451-[\"event\"]"), bytes.Repeat([]byte{byte(i), 7, 'x'}, n/3+1)[:n])
	}
	sent := make(chan error, 1)
	go func() {
		b := peer.Batch()
		defer b.Done()
		for i, data := range want {
			b.Add([]Opcode{Text, Binary}[i%2], data)
			if b.Full() || i == len(want)/2 {
				if err := b.Flush(nil); err != nil {
					sent <- err
					return
				}
			}
		}
		sent <- b.Flush(nil)
	}()
	for i, data := range want {
		m, err := c.Read()
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if !bytes.Equal(m.Data, data) {
			t.Fatalf("message %d of %d bytes is another, of %d bytes", i, len(data), len(m.Data))
		}
		m.Buf.Free()
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	c.Release()
	peer.Release()
	if n := mem.Used(); n != 0 {
		t.Errorf("%d bytes are still lent", n)
	}
}

// A message that ends early behind a large one is an error, and nothing is held.
func TestEndBehindLargeMessage(t *testing.T) {
	here, away := tcp(t)
	var mem Memory
	c, peer := NewConn(here, true, nil, 4<<20, &mem), NewConn(away, false, nil, 4<<20, &Memory{})
	b := peer.Batch()
	b.Add(Binary, make([]byte, 64<<10))
	b.Add(Binary, make([]byte, 64<<10))
	b.cut()
	all := bytes.Join(b.parts, nil)
	sent := make(chan error, 1)
	go func() {
		_, err := away.Write(all[:len(all)-1])
		away.Close()
		sent <- err
	}()
	m, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	m.Buf.Free()
	if _, err = c.Read(); err == nil {
		t.Error("a message that misses a byte was given")
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	c.Release()
	if n := mem.Used(); n != 0 {
		t.Errorf("%d bytes are still lent", n)
	}
}

// TryFlush never waits, keeps what the connection did not take, in order, and
// Flush sends that.
func TestTryFlushKeepsTheRest(t *testing.T) {
	here, away := tcp(t)
	c, peer := NewConn(here, true, nil, 4<<20, &Memory{}), NewConn(away, false, nil, 64<<20, &Memory{})
	b, told, size := c.Batch(), 0, 0
	for i := range 32 {
		size += b.Add(Binary, bytes.Repeat([]byte{byte(i)}, 1<<20))
	}
	count := func(n int) { told += n }
	whole, err := b.TryFlush(count)
	if whole || err != nil || told == 0 || b.Size() != size-told {
		t.Fatalf("whole %v, %v; %d of %d bytes went, %d are left", whole, err, told, size, b.Size())
	}
	if err := here.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	size += b.Add(Text, []byte("last"))
	go func() { sent <- b.Flush(count) }()
	for i := range 33 {
		m, err := peer.Read()
		if err != nil {
			t.Fatal(err)
		}
		if i < 32 && (len(m.Data) != 1<<20 || m.Data[0] != byte(i) || m.Data[1<<20-1] != byte(i)) || i == 32 && string(m.Data) != "last" {
			t.Fatalf("message %d is another: %d bytes", i, len(m.Data))
		}
		m.Buf.Free()
	}
	if err := <-sent; err != nil || told != size {
		t.Errorf("%v, %d of %d bytes went", err, told, size)
	}
	if whole, err := b.TryFlush(nil); !whole || err != nil {
		t.Errorf("an empty batch: %v, %v", whole, err)
	}
	b.Done()
	peer.Release()
}
