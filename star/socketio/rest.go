package socketio

import (
	"time"

	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// restAfter is how long nothing came before a server's reader rests (ws.Conn.Rest):
// what it has needed of memory is given back, and pings alone need less.
const restAfter = 2 * time.Second

// rest waits for a socket whose reader has left, and becomes that when more than a
// ping comes. What it calls itself is shallow, so that its stack stays small.
func (s *Socket) rest(conn *ws.Conn) {
	s.awake.Store(false)
	for {
		if err := conn.Rest(); err != nil {
			s.over(conn, err)
			return
		}
		if text, ok := conn.Lone(); !ok || text != byte(wire.Ping) || !s.pongNow(conn) {
			s.serve(conn)
			return
		}
	}
}

// pongFrame is the answer to a ping without data.
var pongFrame = []byte{0x80 | byte(ws.Text), 1, byte(wire.Pong)}

// pongNow answers a ping where nothing waits to be sent before it.
func (s *Socket) pongNow(conn *ws.Conn) bool {
	if s.waiting.Load() > 0 || !s.writing.CompareAndSwap(false, true) {
		return false
	}
	s.seen()
	done := conn.Answer(pongFrame)
	s.writing.Store(false)
	if s.out.Len() > 0 || s.ending() { // that has come meanwhile, and saw a writer
		s.startWriter()
	}
	if done {
		s.progress.Store(s.core.clock.Load())
	}
	return done
}
