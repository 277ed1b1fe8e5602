package socket

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// hijackKeeper keeps the connection under a WebSocket, so that several frames
// can leave in one system call and a close can be bounded in time.
type hijackKeeper struct {
	http.ResponseWriter
	heard func()
	conn  *corked
}

// writeBuffer is small because corked gathers what is written anyway.
const writeBuffer = 512

// Hijack is called once, by the library.
func (h *hijackKeeper) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = &corked{Conn: conn, heard: h.heard}
	return h.conn, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.conn, writeBuffer)), nil
}

// corked is a connection that gathers writes between cork and uncork. Pongs and
// close frames, which the reading goroutine writes, go the same way and so
// never land inside another frame's system call.
type corked struct {
	net.Conn
	heard func() // something came

	end atomic.Int64 // when writing ends, in Unix nanoseconds; 0 while it goes on

	mu     sync.Mutex
	buf    *[]byte // gathered; nil when not corked
	broken error   // why the last write failed; no frame may follow half a frame
}

// gatherLimit is what is gathered before it is written after all.
const gatherLimit = 64 << 10

var gatherPool = sync.Pool{New: func() any {
	b := make([]byte, 0, 4<<10)
	return &b
}}

// Read tells that something came: the bytes of a large message count too, in
// whose middle no pong can come. A connection that ends is never io.EOF: the
// library takes that for the end of a message when it comes between two reads of
// its payload, and would hand out half a message as a whole one.
func (c *corked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard()
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *corked) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		c.buf = gatherPool.Get().(*[]byte)
	}
}

func (c *corked) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		return c.broken
	}
	err := c.flush()
	if cap(*c.buf) <= 2*gatherLimit {
		gatherPool.Put(c.buf)
	}
	c.buf = nil
	return err
}

// Write gathers small pieces and passes large ones on.
func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		return c.out(p)
	}
	if len(*c.buf)+len(p) <= gatherLimit {
		*c.buf = append(*c.buf, p...)
		return len(p), c.broken
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.out(p)
}

func (c *corked) flush() error {
	if len(*c.buf) == 0 {
		return c.broken
	}
	_, err := c.out(*c.buf)
	*c.buf = (*c.buf)[:0]
	return err
}

// out writes in pieces, each of which has writeWait to get away: a slow page is
// not a stuck one.
func (c *corked) out(p []byte) (int, error) {
	total := 0
	for len(p) > 0 && c.broken == nil {
		piece := p[:min(len(p), gatherLimit)]
		_ = c.Conn.SetWriteDeadline(time.Now().Add(writeWait))
		if end := c.end.Load(); end != 0 { // set meanwhile, or before: it holds
			_ = c.Conn.SetWriteDeadline(time.Unix(0, end))
		}
		n, err := c.Conn.Write(piece)
		total += n
		p = p[n:]
		c.broken = err
	}
	return total, c.broken
}

// deadlines end reading and writing at these times, for good unless they are
// moved.
func (c *corked) deadlines(read, write time.Time) {
	c.end.Store(write.UnixNano())
	_ = c.Conn.SetReadDeadline(read)
	_ = c.Conn.SetWriteDeadline(write)
}
