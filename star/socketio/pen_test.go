package socketio

import (
	"io"
	"net"
	"testing"

	"github.com/parley-p2p/parley/star/socketio/ws"
)

// onPipe makes a socket of a server on a WebSocket; what it writes is read from far.
func onPipe(t *testing.T) (s *Socket, far net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	c := &core{mem: &ws.Memory{}, limits: Limits{}.withDefaults(), times: Times{}.withDefaults()}
	s = newSocket(c, "id", nil)
	s.conn = ws.NewConn(near, true, nil, 1<<10, c.mem)
	return s, far
}

// The socket ends between a writer's look at the queue and its leaving, when no other
// can start: the close frame is still written.
func TestWriterThatLeavesSeesTheEnd(t *testing.T) {
	s, far := onPipe(t)
	p := s.claim()
	if ended := p.pop(); ended != nil || len(p.items) != 0 {
		t.Fatal("something waits already")
	}
	s.Close(ws.CodeGoingAway, ErrEnded)
	if other := s.claimCounted(); other != nil {
		t.Fatal("a second writer")
	}
	if p.mayLeave() {
		t.Fatal("the writer leaves without a word")
	}
	go p.finish()
	frame := make([]byte, 4)
	if _, err := io.ReadFull(far, frame); err != nil || frame[0] != 0x80|byte(ws.Close) {
		t.Fatalf("%x, %v", frame, err)
	}
	s.writers.Wait()
	if s.claim() != nil {
		t.Error("a writer after the close frame")
	}
}
