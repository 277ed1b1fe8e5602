package star_test

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/parley-p2p/parley/star"
)

// span is where bytes lie in memory.
type span struct{ from, to uintptr }

func spanOf(b []byte) span {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return span{at, at + uintptr(len(b))}
}

// watched notes where the server's connections read to and write from.
type watched struct {
	net.Listener

	mu            sync.Mutex
	read, written []span
}

func (w *watched) Accept() (net.Conn, error) {
	nc, err := w.Listener.Accept()
	return watchedConn{nc, w}, err
}

// took gives what was noted since the last call.
func (w *watched) took() (read, written []span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	read, written = w.read, w.written
	w.read, w.written = nil, nil
	return read, written
}

type watchedConn struct {
	net.Conn
	w *watched
}

func (c watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.read = append(c.w.read, spanOf(b[:n]))
	return n, err
}

func (c watchedConn) Write(b []byte) (int, error) {
	c.w.mu.Lock()
	c.w.written = append(c.w.written, spanOf(b))
	c.w.mu.Unlock()
	return c.Conn.Write(b)
}

// S-17: between two WebSocket sessions a chunk is written from the memory that it
// was read into.
func TestS_17_ChunksAreNotCopied(t *testing.T) {
	over := &watched{}
	w := newWorldOver(t, open, func(l net.Listener) net.Listener { over.Listener = l; return over })
	a, b := w.at(addrA), w.at(addrB)
	a.dial(addrA, addrB, "d")
	data := bytes.Repeat([]byte("0123456789abcdef"), 60<<10/16)
	a.chunk("d.dialer", data) // the first of a connection grows as its bytes come
	b.received("d.dialer", len(data))
	over.took()
	a.chunk("d.dialer", data)
	if got := b.received("d.dialer", 2*len(data)); !bytes.Equal(got[len(data):], data) {
		t.Fatal("the bytes differ")
	}
	read, written := over.took()
	inPlace := 0
	for _, out := range written {
		if slices.ContainsFunc(read, func(in span) bool { return in.from < out.to && out.from < in.to }) {
			inPlace += int(out.to - out.from)
		}
	}
	if inPlace < len(data) {
		t.Errorf("%d of %d bytes were written from where they were read: %d reads, %d writes", inPlace, len(data), len(read), len(written))
	}
}

// S-5: an announcement is encoded once; all who are told send the same bytes.
func TestS_5_OneFrameForAll(t *testing.T) {
	o := open
	o.Announce = star.AnnounceAll
	over := &watched{}
	w := newWorldOver(t, o, func(l net.Listener) net.Listener { over.Listener = l; return over })
	var hearers []*peer
	for i := range 8 {
		hearers = append(hearers, w.at(place(i)))
	}
	for _, p := range hearers[:7] {
		p.wait(`["ws-peer","` + place(7) + `"]`)
	}
	over.took()
	newest := place(1000)
	w.at(newest)
	for _, p := range hearers {
		p.wait(`["ws-peer","` + newest + `"]`)
	}
	_, written := over.took()
	same := map[uintptr]int{}
	for _, out := range written {
		same[out.from]++
	}
	most := 0
	for _, n := range same {
		most = max(most, n)
	}
	if most < len(hearers) {
		t.Errorf("the same bytes were sent %d times, to %d members", most, len(hearers))
	}
}
