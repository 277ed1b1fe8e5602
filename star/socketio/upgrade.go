package socketio

import (
	"net/http"
	"time"

	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The upgrade of a polling session (star.md §3.4):
//
//	1. a WebSocket comes with the session's id and sends 2probe; 3probe answers
//	2. waiting polls are released every 100 ms
//	3. 5 comes: from here on everything goes by WebSocket
//	4. without it the WebSocket is closed and polling goes on

const probe = "probe"

func (srv *Server) upgrade(w http.ResponseWriter, r *http.Request, s *Socket) {
	p := s.startProbe()
	if p == nil {
		refuseRequest.write(w, r)
		return
	}
	conn, err := ws.Accept(w, r, srv.core.limits.Message, srv.core.mem)
	if err != nil {
		s.stopProbe(p)
		return
	}
	b64 := noBinary(r)
	if !srv.track(func() { s.serveProbe(conn, p, b64) }) {
		_ = conn.NetConn().Close()
	}
}

// track runs f as one of the goroutines that Run waits for; false when it is too
// late.
func (srv *Server) track(f func()) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.over {
		return false
	}
	srv.core.running.Go(f)
	return true
}

// startProbe marks the session as probing; nil where it does not poll, or does so
// already.
func (s *Socket) startProbe() *pollState {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.poll
	if p == nil || p.probing || s.err != nil {
		return nil
	}
	p.probing = true
	p.look()
	return p
}

func (s *Socket) stopProbe(p *pollState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.probing = false
}

// look makes a waiting GET look again.
func (p *pollState) look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// serveProbe runs the upgrade and, when it succeeds, the session.
func (s *Socket) serveProbe(conn *ws.Conn, p *pollState, b64 bool) {
	if !s.probe(conn) || !s.takeOver(conn, p, b64) {
		s.stopProbe(p)
		_ = conn.NetConn().Close()
		conn.Release()
		return
	}
	s.startWriter()
	s.serve(conn)
}

// probe speaks the first part, up to the upgrade packet.
func (s *Socket) probe(conn *ws.Conn) bool {
	nc := conn.NetConn()
	late := func() {
		if s.core.hit != nil {
			s.core.hit(LimitUpgrade)
		}
	}
	defer time.AfterFunc(s.core.times.Upgrade, late).Stop()
	if err := nc.SetDeadline(time.Now().Add(s.core.times.Upgrade)); err != nil {
		return false
	}
	hello := conn.Batch()
	err := hello.Flush(nil) // the answer to the handshake
	hello.Done()
	if err != nil || !readProbe(conn, byte(wire.Ping), probe) {
		return false
	}
	b := conn.Batch()
	b.Add(ws.Text, append([]byte{byte(wire.Pong)}, probe...))
	err = b.Flush(nil)
	b.Done()
	if err != nil || !readProbe(conn, byte(wire.Upgrade), "") {
		return false
	}
	return nc.SetDeadline(time.Time{}) == nil
}

// readProbe reads one text packet and says whether it is the one expected.
func readProbe(conn *ws.Conn, t byte, data string) bool {
	m, err := conn.Read()
	if err != nil {
		return false
	}
	defer m.Buf.Free()
	return m.Op == ws.Text && len(m.Data) == 1+len(data) && m.Data[0] == t && string(m.Data[1:]) == data
}

// takeOver moves the session to the WebSocket, between two responses of the poll.
func (s *Socket) takeOver(conn *ws.Conn, p *pollState, b64 bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.poll != p {
		return false
	}
	s.poll, s.conn = nil, conn
	s.noBinary.Store(b64)
	p.look()
	return true
}
