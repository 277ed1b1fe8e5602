package peertest

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// pipeLimit is how many bytes one direction holds before writes block, as the
// window of a real muxer would.
const pipeLimit = 256 << 10

// pipe is one direction of a stream.
type pipe struct {
	mu       sync.Mutex
	cond     *sync.Cond
	delay    time.Duration
	segments []segment
	size     int
	blocked  bool
	eof      bool  // the writer is done
	deaf     bool  // the reader is done: what is written is thrown away
	err      error // reset
	readBy   deadline
	writeBy  deadline
}

type segment struct {
	data []byte
	at   time.Time // when it may be read; zero at once
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func newPipe(delay time.Duration, blocked bool) *pipe {
	p := &pipe{delay: delay, blocked: blocked}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.deaf:
			return 0, io.ErrClosedPipe
		case p.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		}
		if len(b) == 0 {
			return 0, nil
		}
		if n := p.ready(b); n > 0 {
			p.cond.Broadcast()
			return n, nil
		}
		if p.eof && len(p.segments) == 0 && !p.blocked {
			return 0, io.EOF
		}
		p.cond.Wait()
	}
}

// ready copies what may be read now; where the first segment is still on its
// way, it sees to a wake-up. The caller holds mu.
func (p *pipe) ready(b []byte) (n int) {
	if p.blocked {
		return 0
	}
	for len(p.segments) > 0 && n < len(b) {
		s := &p.segments[0]
		if !s.at.IsZero() {
			if wait := time.Until(s.at); wait > 0 {
				if n == 0 {
					time.AfterFunc(wait, p.wake)
				}
				break
			}
		}
		k := copy(b[n:], s.data)
		n += k
		s.data = s.data[k:]
		if len(s.data) == 0 {
			p.segments[0] = segment{}
			p.segments = p.segments[1:]
		}
	}
	p.size -= n
	return n
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for len(b) > 0 {
		switch {
		case p.err != nil:
			return written, p.err
		case p.eof:
			return written, io.ErrClosedPipe
		case p.writeBy.passed():
			return written, os.ErrDeadlineExceeded
		case p.deaf:
			return written + len(b), nil
		case p.size >= pipeLimit:
			p.cond.Wait()
			continue
		}
		n := min(len(b), pipeLimit-p.size)
		s := segment{data: append([]byte(nil), b[:n]...)}
		if p.delay > 0 {
			s.at = time.Now().Add(p.delay)
		}
		p.segments = append(p.segments, s)
		p.size += n
		written += n
		b = b[n:]
		p.cond.Broadcast()
	}
	return written, nil
}

func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cond.Broadcast()
}

func (p *pipe) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.cond.Broadcast()
}

func (p *pipe) setBlocked(blocked bool) { p.set(func() { p.blocked = blocked }) }

func (p *pipe) reset() {
	p.set(func() {
		if p.err == nil && !(p.eof && p.deaf) {
			p.err, p.segments, p.size = ErrReset, nil, 0
		}
		p.readBy.stop()
		p.writeBy.stop()
	})
}

func (p *pipe) setDeadline(d *deadline, at time.Time) {
	p.set(func() {
		d.stop()
		d.at = at
		if wait := time.Until(at); !at.IsZero() && wait > 0 {
			d.timer = time.AfterFunc(wait, p.wake)
		}
	})
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// Stream is one end of a stream in a Cluster.
type Stream struct {
	cluster  *Cluster
	local    *Host
	remote   *Host
	protocol network.Protocol
	in, out  *pipe
	other    *Stream
}

var _ network.Stream = (*Stream)(nil)

func (s *Stream) Read(b []byte) (int, error)  { return s.in.read(b) }
func (s *Stream) Write(b []byte) (int, error) { return s.out.write(b) }

// CloseWrite ends the own direction.
func (s *Stream) CloseWrite() error {
	s.out.set(func() { s.out.eof = true })
	return nil
}

// Close ends both directions; bytes under way to the other side arrive.
func (s *Stream) Close() error {
	s.out.set(func() { s.out.eof = true })
	s.in.set(func() {
		s.in.deaf, s.in.segments, s.in.size = true, nil, 0
	})
	s.cluster.forget(s)
	return nil
}

// Reset ends both directions at once.
func (s *Stream) Reset() error {
	s.in.reset()
	s.out.reset()
	s.cluster.forget(s)
	s.cluster.forget(s.other)
	return nil
}

// ended reports whether this end was closed or reset.
func (s *Stream) ended() bool {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.err != nil || s.in.deaf
}

// SetReadDeadline bounds reads; the zero time is no bound.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(&s.in.readBy, t)
	return nil
}

// SetWriteDeadline bounds writes; the zero time is no bound.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.out.setDeadline(&s.out.writeBy, t)
	return nil
}

// Local is the own id.
func (s *Stream) Local() identity.PeerID { return s.local.id }

// Remote is the other side's id.
func (s *Stream) Remote() identity.PeerID { return s.remote.id }

// Protocol is what was agreed on.
func (s *Stream) Protocol() network.Protocol { return s.protocol }

// Path is always direct.
func (s *Stream) Path() network.Path { return network.PathDirect }
