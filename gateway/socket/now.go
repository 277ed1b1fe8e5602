package socket

import (
	"net"
	"syscall"
)

// What is written without waiting: a lone message leaves from whoever brings it,
// where it would cost as much again to wake the goroutine that writes.
//
//	if s.Hold() {
//		err := s.WriteParts(kind, parts)     returns at once
//		if s.Release() { … s.Settle() }      by who may wait
//	}

// NowLimit is the largest message, in bytes, that is worth writing while the
// socket is held: what the system doesn't take of it is copied.
const NowLimit = 8 << 10

// Hold makes Write and WriteParts return at once until Release: what the system
// doesn't take then is kept, and leaves before anything else. It is false, and
// nothing is held, where somebody writes now, something is kept already, or a
// write can't be tried: over TLS, and on systems other than Unix. Only the
// writer may call it. It never blocks.
func (s *Socket) Hold() bool {
	c := s.conn
	if c.raw == nil || !c.mu.TryLock() {
		return false
	}
	if c.closing || c.broken != nil || len(c.rest) > 0 {
		c.mu.Unlock()
		return false
	}
	c.held = true
	return true
}

// Release ends Hold, and reports whether something was kept: Settle writes it.
func (s *Socket) Release() (owing bool) {
	c := s.conn
	owing = len(c.rest) > 0
	c.held = false
	c.mu.Unlock()
	return owing
}

// Settle writes what was kept, under the rules of Write.
func (s *Socket) Settle() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.conn.out(nil)
}

// trial is one try to write, made once so that trying costs no memory.
type trial struct {
	try func(fd uintptr) (done bool)
	buf []byte // what is written; its memory is used again
	n   int
	err error
}

// prepare makes trying possible, where it is.
func (c *corked) prepare() {
	tcp, plain := c.Conn.(*net.TCPConn)
	if !plain || !canTry {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	c.raw = raw
	c.trial.try = func(fd uintptr) bool {
		c.trial.n, c.trial.err = tryWrite(fd, c.trial.buf)
		return true // whatever came of it: never wait
	}
}

// outNow is out without waiting. The caller holds mu.
func (c *corked) outNow(parts [][]byte) error {
	t := &c.trial
	t.buf = t.buf[:0]
	for _, p := range parts {
		t.buf = append(t.buf, p...)
	}
	if len(c.rest) > 0 { // behind what is kept already
		c.rest = append(c.rest, t.buf...)
		return nil
	}
	c.allow()
	t.n, t.err = 0, nil
	if err := c.raw.Write(t.try); err != nil {
		t.err = err
	}
	if t.err != nil && t.err != syscall.EAGAIN && t.err != syscall.EINTR {
		c.broken = t.err
		return t.err
	}
	if left := t.buf[max(t.n, 0):]; len(left) > 0 {
		c.rest = append([]byte(nil), left...)
	}
	if cap(t.buf) > 2*NowLimit {
		t.buf = nil
	}
	return nil
}
