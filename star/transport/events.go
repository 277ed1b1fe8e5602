package transport

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Event takes what a star says. Nothing of it is believed; what makes no sense is
// passed over, or ends the connection that it is about.
func (s *session) Event(_ *socketio.Socket, e *socketio.Event) error {
	switch e.Name {
	case eventIncoming:
		s.onIncoming(e)
	case eventPeer:
		if addr, ok := e.Text(0); ok {
			s.star.book.saw(addr)
		}
	case eventPeers:
		s.onPeers(e)
	case eventLost:
		s.onLost(e)
	case eventDrain:
		if s.ext {
			s.move(errDrained)
		}
	default:
		s.onStream(e)
	}
	return nil
}

// onIncoming is somebody who dials this node (star.md §6.5).
func (s *session) onIncoming(e *socketio.Event) {
	if e.AckID() == wire.NoAck {
		return
	}
	c, refuse := s.incoming(e)
	if refuse == "" {
		// The reader accepts before it answers; the handler runs after.
		s.event(c, proxy.Accept, proxy.Dialer)
	}
	var b wire.Builder
	b.Ack(nil, e.AckID())
	if refuse != "" {
		b.Str(refuse)
	}
	_ = s.sock.Send(flow.Control, socketio.Msg{Text: b.Done()})
	if refuse == "" && !s.handOver(c) {
		_ = c.Reset()
	}
}

func (s *session) incoming(e *socketio.Event) (c *Conn, refuse string) {
	id, ok1 := e.Text(0)
	from, ok2 := e.Text(1)
	if !ok1 || !ok2 || !proxy.ValidID(id) {
		return nil, ErrInvalidArguments.Text
	}
	claim, _, ok := claimed(from, s.star.at)
	if !ok || claim == s.star.t.id {
		return nil, ErrDialRefused.Text
	}
	if !s.listening() {
		return nil, ErrDialRefused.Text
	}
	c = newConn(s, id, false, claim)
	if err := s.enter(c); err != nil {
		return nil, quote(err.Error())
	}
	return c, ""
}

// listening says whether there is room for one more incoming connection.
func (s *session) listening() bool {
	t := s.star.t
	t.mu.Lock()
	defer t.mu.Unlock()
	l := s.star.listener
	return l != nil && len(l.arrived) < cap(l.arrived)
}

func (s *session) handOver(c *Conn) bool {
	t := s.star.t
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.star.listener != nil && s.star.listener.offer(c)
}

// onPeers is a difference of the member list (star.md §8).
func (s *session) onPeers(e *socketio.Event) {
	version, ok := e.Text(0)
	if !s.ext || !ok || len(version) > 128 || len(e.Args) < 3 {
		return
	}
	most := s.star.t.opts.Limits.Discovered
	added, _ := stringsOf(e.Args[1], most)
	removed, _ := stringsOf(e.Args[2], most)
	for _, a := range added {
		s.star.book.saw(a)
	}
	for _, a := range removed {
		s.star.book.left(a)
	}
	s.star.book.setVersion(version)
}

// onLost says that the address is no longer this session's. What runs, runs on.
func (s *session) onLost(e *socketio.Event) {
	addr, _ := e.Text(0)
	if !s.ext || addr != s.star.own {
		return
	}
	reason, _ := e.Text(1)
	s.move(identity.Errorf(identity.CodeRefused, "the star gave the address to another connection: %s", quote(reason)))
}

// onStream is about one stream of a connection. Unknown ones have ended, or never
// were.
func (s *session) onStream(e *socketio.Event) {
	verb, id, kind, ok := proxy.SplitName(e.Name)
	if !ok {
		return
	}
	reads := verb == proxy.Queue || verb == proxy.Error
	c := s.find(id, kind, reads)
	if c == nil {
		return
	}
	switch verb {
	case proxy.Queue:
		if data, ok := e.Bytes(0); ok {
			c.in.push(data, nil)
		}
	case proxy.Error:
		c.in.finish(endError(e))
	case proxy.Accept:
		c.out.accept()
	case proxy.Credit:
		if s.ext && !c.out.give(credit(e)) {
			c.fail(ErrStreamFailed, ErrStreamFailed.Text)
		}
	case proxy.Stop:
		if s.ext {
			c.out.stopped(stopError(e))
		}
	}
}

// credit reads a number of bytes; 0 for what is none.
func credit(e *socketio.Event) int {
	if len(e.Args) == 0 {
		return 0
	}
	n, err := strconv.Atoi(string(e.Args[0]))
	if err != nil {
		return 0
	}
	return n
}

// stopError is why nobody reads any more.
func stopError(e *socketio.Event) error {
	if len(e.Args) == 0 || !wire.Truthy(e.Args[0]) {
		return ErrStreamFailed
	}
	if text, ok := wire.String(e.Args[0]); ok && said[text] != nil {
		return said[text]
	}
	return errConnClosed
}

// newDialID is 128 random bits.
func newDialID() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
