package socket

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/parley-p2p/parley/gateway/lend"
)

// hijackKeeper keeps the connection under a WebSocket, so that frames can leave
// in as few system calls as possible and a close can be bounded in time.
type hijackKeeper struct {
	http.ResponseWriter
	heard func()
	conn  *corked
}

// writeBuffer holds any control frame, and the library writes nothing else.
const writeBuffer = 512

// Hijack is called once, by the library.
func (h *hijackKeeper) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = &corked{Conn: conn, heard: h.heard}
	h.conn.prepare()
	return h.conn, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.conn, writeBuffer)), nil
}

// corked is a connection to which two write: the session's writer whole data
// frames, in as few system calls as it can, and the library, in the reading
// goroutine, pongs and close frames. One never lands inside the other.
type corked struct {
	net.Conn
	heard func()          // something came
	raw   syscall.RawConn // nil where a write can't be tried

	end atomic.Int64 // when writing ends, in Unix nanoseconds; 0 while it goes on

	mu      sync.Mutex  // guards writing, and all below
	broken  error       // why the last write failed; no frame may follow half a frame
	closing bool        // a close frame has been written: nothing may follow it
	late    time.Time   // the deadline that was set for writing
	piece   net.Buffers // what is written now
	rest    []byte      // what a write without waiting left over: the next one begins with it
	trial   trial

	held bool // owned by the session's writer: it has mu and doesn't wait
}

// pieceLimit is how much is written at a time: a message of 64 KiB with what is
// around it.
const pieceLimit = 80 << 10

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

// Write writes what the library wants to: the answer to the upgrade, and control
// frames, each whole.
func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > 0 && p[0] == finClose {
		c.closing = true
	}
	if err := c.out([][]byte{p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeFrames writes whole frames that stand in parts, and changes the list.
func (c *corked) writeFrames(parts [][]byte) error {
	if c.held { // by the caller: only the writer gets here
		return c.outNow(parts)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return net.ErrClosed
	}
	return c.out(parts)
}

// out writes in pieces, each of which has writeWait to get away: a slow page is
// not a stuck one.
func (c *corked) out(parts [][]byte) error {
	if len(c.rest) > 0 && c.broken == nil {
		c.allow()
		_, c.broken = c.Conn.Write(c.rest)
		c.rest = nil
	}
	for len(parts) > 0 && c.broken == nil {
		parts = c.take(parts)
		c.allow()
		c.broken = c.writePiece()
	}
	return c.broken
}

// take makes the next piece of parts and returns the rest.
func (c *corked) take(parts [][]byte) [][]byte {
	c.piece = c.piece[:0]
	for room := pieceLimit; len(parts) > 0 && room > 0; {
		p := parts[0]
		if len(p) > room {
			c.piece = append(c.piece, p[:room])
			parts[0] = p[room:]
			return parts
		}
		c.piece = append(c.piece, p)
		parts, room = parts[1:], room-len(p)
	}
	return parts
}

// writePiece writes the piece in one call, over TLS in one record after another.
func (c *corked) writePiece() (err error) {
	piece := c.piece
	defer clear(piece)
	if len(piece) == 1 {
		_, err = c.Conn.Write(piece[0])
		return err
	}
	if _, plain := c.Conn.(*net.TCPConn); plain {
		rest := piece // it is consumed
		_, err = rest.WriteTo(c.Conn)
		return err
	}
	whole := lend.Get(pieceLimit)
	for _, p := range piece {
		whole = append(whole, p...)
	}
	_, err = c.Conn.Write(whole)
	lend.Put(whole)
	return err
}

// allow moves the deadline for writing. To set one costs nearly as much as a
// small write, so it is set for a second more and not moved within it.
func (c *corked) allow() {
	if now := time.Now(); c.late.Sub(now) < writeWait {
		c.late = now.Add(writeWait + time.Second)
		_ = c.Conn.SetWriteDeadline(c.late)
	}
	if end := c.end.Load(); end != 0 { // set meanwhile, or before: it holds
		_ = c.Conn.SetWriteDeadline(time.Unix(0, end))
	}
}

// deadlines end reading and writing at these times, for good unless they are
// moved.
func (c *corked) deadlines(read, write time.Time) {
	c.end.Store(write.UnixNano())
	_ = c.Conn.SetReadDeadline(read)
	_ = c.Conn.SetWriteDeadline(write)
}

// goodbye writes a close frame, unless there has been one, and ends writing where
// the connection can end on one side.
func (c *corked) goodbye(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.closing = true
		_ = c.out([][]byte{frame}) // a connection that is broken has nobody to tell
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// cut closes the connection. Over TLS that would wait for a last word, which has
// no place here.
func (c *corked) cut() {
	conn := c.Conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close() // the library closes it again
}
