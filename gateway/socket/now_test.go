//go:build unix

package socket_test

import (
	"bytes"
	"testing"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/socket"
)

// TestHold_NeverWaitsAndLosesNothing writes to a page that reads nothing until
// the system takes no more, and goes on when it reads again.
func TestHold_NeverWaitsAndLosesNothing(t *testing.T) {
	const size = socket.NowLimit - 100
	full := make(chan int, 1)
	server := serve(t, func(s *socket.Socket) {
		wrote := 0
		for owing := false; !owing; wrote++ {
			if !s.Hold() {
				t.Error("nobody else writes")
				break
			}
			if err := s.WriteParts(socket.Binary, [][]byte{{byte(wrote)}, bytes.Repeat([]byte{1}, size)}); err != nil {
				t.Errorf("write %d: %v", wrote, err)
			}
			owing = s.Release()
		}
		if s.Hold() {
			t.Error("held though half a message is kept")
		}
		full <- wrote
		if err := s.Settle(); err != nil {
			t.Errorf("settle: %v", err)
		}
		if err := s.Write(socket.Binary, []byte("behind")); err != nil {
			t.Errorf("write: %v", err)
		}
		_, _, _ = s.Read(nil)
	})
	ws, _ := dial(t, server)
	ws.SetReadLimit(1 << 20)
	n := <-full
	for i := range n {
		_, msg, err := ws.Read(t.Context())
		if err != nil || len(msg) != size+1 || msg[0] != byte(i) {
			t.Fatalf("message %d of %d: %d bytes: %v", i, n, len(msg), err)
		}
	}
	if _, msg, err := ws.Read(t.Context()); err != nil || string(msg) != "behind" {
		t.Errorf("%q %v", msg, err)
	}
}

// TestHold_NothingFollowsACloseFrame is what holds for Write.
func TestHold_NothingFollowsACloseFrame(t *testing.T) {
	held := make(chan bool, 1)
	server := serve(t, func(s *socket.Socket) {
		_, _, _ = s.Read(nil) // gets the close frame and answers it
		held <- s.Hold()
	})
	ws, _ := dial(t, server)
	_ = ws.Close(websocket.StatusNormalClosure, "")
	if <-held {
		t.Error("may write behind a close frame")
	}
}
