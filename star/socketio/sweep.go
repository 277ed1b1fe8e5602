package socketio

import (
	"time"

	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The server's time limits. One pass a second over all sessions replaces timers
// of their own; clock is what they compare with.

// sweep looks at every session once.
func (srv *Server) sweep(now time.Time) {
	at := now.UnixNano()
	srv.core.clock.Store(at)
	for _, s := range srv.Sockets() {
		s.sweep(at)
	}
}

func (s *Socket) sweep(now int64) {
	t := &s.core.times
	if s.waiting.Load() > 0 {
		s.taking.Store(now) // Stuck sees to one that takes nothing
	}
	if s.ending() {
		return
	}
	switch good := s.goodAt.Load(); {
	case good != 0 && time.Duration(now-good) > t.Linger:
		s.Close(ws.CodeNormal, ErrGoodbye)
	case s.idle(now) > t.PingInterval+t.PingTimeout:
		s.Close(ws.CodeNormal, ErrSilent)
	case s.waiting.Load() > 0 && time.Duration(now-s.progress.Load()) > t.Stuck:
		s.kill(ErrStuck)
	case s.held.Load() != 0:
		s.comfort(now)
	case s.awake.Load() && s.idle(now) > restAfter:
		s.tire()
	}
}

// tire makes a reader that has heard nothing for a while rest.
func (s *Socket) tire() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		conn.Tire()
	}
}

// comfort keeps the heartbeat of a session alive whose reader is held back: its
// pings are not read, or come late behind what it has sent, so noops stand for the
// pongs (S-4). A reader that goes on now and then changes nothing of that: what
// counts is how long the other side heard nothing.
func (s *Socket) comfort(now int64) {
	last := max(s.noopAt.Load(), s.progress.Load())
	if time.Duration(now-last) < s.core.times.PingTimeout/2-sweepInterval {
		return
	}
	s.noopAt.Store(now)
	s.packetText([]byte{byte(wire.Noop)})
}

// kill ends a socket whose connection takes nothing: no last words.
func (s *Socket) kill(reason error) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		s.Close(ws.CodeNormal, reason)
		return
	}
	s.fail(conn, reason)
}
