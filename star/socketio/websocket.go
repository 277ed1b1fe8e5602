package socketio

import (
	"errors"
	"net"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// serve reads a WebSocket until it ends, and sees to its end. One that hears nothing
// for long goes on in another goroutine, by rest.
func (s *Socket) serve(conn *ws.Conn) {
	s.awake.Store(true)
	conn.BeforeWait(s.flush)
	err := s.readFrames(conn)
	if err == ws.ErrTired {
		s.flush()
		s.core.running.Go(func() { s.rest(conn) }) // this one's stack has grown
		return
	}
	s.over(conn, err)
}

// over sees to the end of a connection that is not read any more because of err: the
// last words of the writer, the close frame of the other side, the Handler. It
// returns when nothing of the socket is left.
func (s *Socket) over(conn *ws.Conn, err error) {
	if ended := s.Err(); ended != nil {
		err = ended
	}
	s.end(closeCode(err), err)
	s.depart()
	if p := s.claimCounted(); p != nil {
		go p.finish()
	}
	stop := time.AfterFunc(s.core.times.Linger, func() { _ = conn.NetConn().Close() })
	s.writers.Wait()
	linger(conn)
	stop.Stop()
	_ = conn.NetConn().Close()
	conn.Release()
	s.finish()
}

// readFrames gives every frame to the receive path. It returns why it stopped.
func (s *Socket) readFrames(conn *ws.Conn) error {
	for {
		m, err := conn.Read()
		if err != nil {
			return err
		}
		if err := s.receiveFrame(m); err != nil {
			return err
		}
	}
}

func (s *Socket) receiveFrame(m ws.Message) error {
	s.turn <- struct{}{}
	defer func() {
		if !s.flusher.mayWait() {
			s.flusher.Flush()
		}
		<-s.turn
	}()
	switch m.Op {
	case ws.Text:
		return s.receiveText(m.Data, m.Buf)
	case ws.Binary:
		return s.receiveData(m.Data, m.Buf)
	case ws.Ping:
		return s.pong(m.Data)
	case ws.Close:
		code, _, err := ws.ParseClose(m.Data)
		if err != nil {
			return err
		}
		return &closedError{code: code}
	}
	s.seen()
	return nil
}

// pong answers a ping of the WebSocket itself, which no browser and no npm client
// sends.
func (s *Socket) pong(data []byte) error {
	s.seen()
	it := &item{Msg: Msg{Text: append([]byte(nil), data...)}, op: ws.Pong, size: len(data) + 2, class: flow.Control}
	if err := s.push(it); err != nil {
		return err
	}
	return s.relief()
}

// closedError says that the other side closed with a code.
type closedError struct{ code int }

func (e *closedError) Error() string { return "the other side closed the connection" }

func (e *closedError) Unwrap() error { return ErrGoodbye }

// closeCode is the code that a connection is closed with because of err.
func closeCode(err error) int {
	var ce *ws.CloseError
	var closed *closedError
	switch {
	case errors.As(err, &ce):
		return ce.Code
	case errors.As(err, &closed):
		if closed.code < ws.CodeNormal || closed.code == ws.CodeNone {
			return ws.CodeNormal
		}
		return closed.code // echoed (RFC 6455 §5.5.1)
	case errors.Is(err, ErrGoodbye):
		return ws.CodeNormal
	case identity.CodeOf(err) == identity.CodeMalformed:
		return ws.CodeProtocol
	}
	return ws.CodeNormal
}

// lingerBytes is how much is still read of a connection that ends.
const lingerBytes = 1 << 20

// linger reads and forgets what still comes, so that the close frame is not lost
// to a reset. It is bounded by the caller's timer.
func linger(conn *ws.Conn) {
	nc := conn.NetConn()
	if half, ok := nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	_ = nc.SetReadDeadline(time.Time{})
	drain(nc)
}

func drain(nc net.Conn) {
	var buf [4096]byte
	for left := lingerBytes; left > 0; {
		n, err := nc.Read(buf[:])
		if err != nil {
			return
		}
		left -= n
	}
}
