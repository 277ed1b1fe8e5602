package ws

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// A goroutine's stack grows with what it does and does not become small again, and
// most connections are idle but for pings. So a reader that has waited for long is
// told to leave (Tire), and a new one waits in its place, with little below it
// (Rest), as long as nothing but pings comes.

// ErrTired is what Read gives after Tire: nothing is lost, and Read may be called
// again, or Rest.
var ErrTired = &identity.Error{Code: identity.CodeTimeout, Text: "nothing came for long"}

// resting is what Rest has read, and what Answer writes.
type resting struct {
	first [16]byte
	n     int
	frame []byte
	torn  bool // a part of frame was written
	try   func(fd uintptr) bool
}

// Tire makes a Read that waits for a message, now or the next time, give ErrTired,
// where that can be waited for with Rest. It may be called by any goroutine.
func (c *Conn) Tire() {
	if c.raw == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tired = true
	c.wake()
}

// Interrupt ends reading: Read and Rest give an error, now and from now on. It may
// be called by any goroutine.
func (c *Conn) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	c.wake()
}

// wake wakes the reader, and lets it not wait. The caller holds mu.
func (c *Conn) wake() {
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // a connection that has ended wakes its reader anyway
}

// goOn says whether err is Tire's, and takes its deadline back.
func (c *Conn) goOn(err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.tired || c.ending {
		return false
	}
	c.tired = false
	_ = c.nc.SetReadDeadline(time.Time{}) // as in wake
	return true
}

// more is nc.Read, in the middle of a message or where it is not seen whether that
// waits.
func (c *Conn) more(b []byte) (n int, err error) {
	c.beforeWait()
	for {
		if n, err = c.nc.Read(b); n > 0 || !c.goOn(err) {
			return n, err
		}
	}
}

// Rest waits, after ErrTired, until something comes, for Lone or the next Read.
func (c *Conn) Rest() error {
	if c.rest.try == nil {
		c.rest.try = c.tryRest
	}
	for c.rest.n == 0 {
		if err := c.raw.Read(c.rest.try); err != nil && !c.goOn(err) {
			return err
		}
		if c.waitErr != nil {
			return c.waitErr
		}
	}
	return nil
}

// tryRest is given the descriptor to read from or, while there is a frame, to write
// to, which does not wait.
func (c *Conn) tryRest(fd uintptr) bool {
	r := &c.rest
	if r.frame != nil {
		n, _, err := writeOne(fd, r.frame)
		if err == nil && n == len(r.frame) {
			r.n = 0
		}
		r.torn = n > 0 && n < len(r.frame)
		return true
	}
	again := false
	r.n, again, c.waitErr = readNow(fd, r.first[:])
	if !again && r.n == 0 && c.waitErr == nil {
		c.waitErr = io.EOF
	}
	return !again
}

// Lone says whether what Rest has read is one whole text message of one byte, and
// which.
func (c *Conn) Lone() (text byte, ok bool) {
	f := &c.rest.first
	if c.rest.n != 7 || f[0] != 0x80|byte(Text) || f[1] != 0x81 || !c.server {
		return 0, false
	}
	return f[6] ^ f[2], true
}

// Answer writes an unfragmented frame at once, after Lone, whose message is done
// with by that; false where the connection does not take it now. One that takes a
// part ends: no frame could follow. It needs the writer's turn.
func (c *Conn) Answer(frame []byte) bool {
	c.rest.frame = frame
	err := c.raw.Write(c.rest.try)
	c.rest.frame = nil
	if c.rest.torn {
		_ = c.nc.Close() // the next Read tells
	}
	return err == nil && c.rest.n == 0
}
