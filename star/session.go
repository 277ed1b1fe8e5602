package star

import (
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// session is one socket as the star sees it.
type session struct {
	// Static after construction.
	srv    *Server
	sock   *socketio.Socket
	side   *proxy.Side
	ip     netip.Prefix // /64 for IPv6
	ext    bool         // speaks the extensions (star.md §8)
	since  string       // the version that an extended client had before
	number uint64       // of this server's sessions

	// Owned by the receive path.
	challenges challenges
	joins      rate
	dials      rate
	events     rate
	bytes      rate

	// Guarded by roster.mu.
	members []*member
	at      int // in roster.receivers
	hear    hearing

	idleSince atomic.Int64 // without address and stream; 0: it has one
}

// rate is a token bucket for one goroutine. Its zero value is full.
type rate struct {
	spent float64
	at    int64
}

// take takes n tokens where there are enough, and says otherwise how long it takes
// until there are.
func (r *rate) take(n, perSecond, burst float64, now time.Time) (wait time.Duration) {
	at := now.UnixNano()
	if r.at != 0 && at > r.at {
		r.spent = max(0, r.spent-perSecond*float64(at-r.at)/1e9)
	}
	r.at = at
	if over := r.spent + n - burst; over > 0 && r.spent > 0 {
		return time.Duration(over / perSecond * 1e9)
	}
	r.spent += n
	return 0
}

// only is the session's member where it has just one. The caller holds roster.mu.
func (s *session) only() *member {
	if len(s.members) != 1 {
		return nil
	}
	return s.members[0]
}

// full says that the session takes no more announcements for now.
func (s *session) full() bool {
	_, control := s.sock.Waiting()
	return control > fullQueue
}

// Binary gives chunks to their streams, undecoded.
func (srv *Server) Binary(sock *socketio.Socket, text, data []byte, buf **ws.Buf) bool {
	return sock.User.(*session).side.Chunk(text, data, buf)
}

// Event serves every other event (star.md §6).
func (srv *Server) Event(sock *socketio.Socket, e *socketio.Event) error {
	s := sock.User.(*session)
	switch e.Name {
	case eventJoin:
		s.onJoin(e)
		return nil
	case eventDial:
		s.onDial(e)
		return nil
	}
	if !strings.HasPrefix(e.Name, proxy.Queue) { // chunks are bounded by their bytes, whichever way they go
		s.slow(&s.events, 1, srv.limits.Events, srv.limits.EventBurst, limitEvents)
	}
	switch {
	case e.Name == eventLeave:
		s.onLeave(e)
	case s.side.Event(e):
		s.ack(e, "") // nobody asks for that; who does is answered (S-12)
	case e.AckID() != wire.NoAck:
		s.ack(e, sayBadArguments)
	}
	return nil
}

// slow holds the reader back until a rate allows n more.
func (s *session) slow(r *rate, n, perSecond, burst float64, limit string) {
	for {
		wait := r.take(n, perSecond, burst, time.Now())
		if wait <= 0 {
			return
		}
		s.srv.metrics.limit(limit)
		s.sock.Hold()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.sock.Context().Done():
			timer.Stop()
			s.sock.Release()
			return
		}
		s.sock.Release()
	}
}

// Disconnected takes the session out of everything: O(own) (S-16).
func (srv *Server) Disconnected(sock *socketio.Socket, reason error) {
	s := sock.User.(*session)
	left := srv.roster.leaveAll(s)
	why := proxy.PeerDisconnected
	if srv.draining.Load() {
		why = proxy.ShuttingDown
	}
	s.side.Leave(why)
	if limit := socketio.LimitOf(reason); limit != "" {
		srv.metrics.limit(limit)
	}
	srv.admission.release(s.ip)
	if len(left) > 0 {
		srv.left(left...)
		srv.announcer.changed(time.Now())
	}
	srv.log.Debug("session ended", "session", sock.Tag(), "addresses", len(left), "reason", reason)
}

// ack answers an event with arguments; a string, raw JSON, or none at all.
func (s *session) ack(e *socketio.Event, say string) {
	if say != "" {
		s.srv.metrics.refused(e.Name, say)
	}
	s.answer(s.sock.Flusher(), e.AckID(), say)
}

// answer is ack, with what flushes it, if anything does.
func (s *session) answer(by *socketio.Flusher, id int64, say string) {
	if id == wire.NoAck {
		return
	}
	var b wire.Builder
	b.Ack(nil, id)
	if say != "" {
		b.Str(say)
	}
	_ = s.sock.Send(flow.Control, socketio.Msg{Text: b.Done(), By: by}) // one that ends needs no answer
}

func (s *session) onLeave(e *socketio.Event) {
	addr, ok := e.Text(0)
	if !ok {
		s.ack(e, sayBadArguments)
		return
	}
	addr, err := address.Canonical(addr)
	if err != nil {
		s.ack(e, err.Error())
		return
	}
	if m := s.srv.roster.leave(s, addr); m != nil {
		s.srv.left(m)
		s.srv.announcer.changed(time.Now())
	}
	s.ack(e, "")
}

// onDial is ss-dial (from, to, dialId, ack).
func (s *session) onDial(e *socketio.Event) {
	id, start := e.AckID(), time.Now()
	refuse := func(say string) {
		s.srv.metrics.dial(false)
		s.ack(e, say)
	}
	from, ok1 := e.Text(0)
	to, ok2 := e.Text(1)
	dialID, ok3 := e.Text(2)
	if !ok1 || !ok2 || !ok3 || id == wire.NoAck {
		refuse(sayBadArguments)
		return
	}
	from, err1 := address.Canonical(from)
	to, err2 := address.Canonical(to)
	l := s.srv.limits
	switch {
	case err1 != nil || err2 != nil:
		refuse(address.ErrInvalid.Text)
	case s.srv.draining.Load():
		refuse(sayShutdown)
	case s.dials.take(1, l.Dials, l.DialBurst, start) > 0:
		s.srv.metrics.limit(limitDials)
		refuse(sayRate)
	case !s.srv.roster.holds(s, from):
		refuse(sayNotYours)
	default:
		s.dial(from, to, dialID, id)
	}
}

func (s *session) dial(from, to, dialID string, ack int64) {
	srv := s.srv
	answer := func(by *socketio.Flusher, say string) {
		srv.metrics.dial(say == "")
		if say != "" {
			srv.metrics.refused(eventDial, say)
		}
		s.answer(by, ack, say)
	}
	m := srv.roster.find(to)
	switch {
	case m == nil:
		answer(s.sock.Flusher(), sayNotFound)
	case m.sess == nil:
		srv.dialElsewhere(s, m, proxy.Request{From: from, To: to, ID: dialID, Answer: answer})
	default:
		srv.engine.Dial(s.side, m.sess.side, proxy.Request{From: from, To: to, ID: dialID, Answer: answer})
	}
}

// tellLost tells a session with extensions that an address is no longer its own.
func (s *session) tellLost(addr, reason string) {
	if !s.ext {
		return
	}
	var b wire.Builder
	_ = s.sock.Send(flow.Control, socketio.Msg{Text: b.Event(nil, wire.NoAck, eventLost).Str(addr).Str(reason).Done()})
}

// tellDrain tells a session with extensions that the server ends.
func (s *session) tellDrain(in time.Duration) {
	if !s.ext {
		return
	}
	var b wire.Builder
	text := b.Event(nil, wire.NoAck, eventDrain).Raw(strconv.Itoa(int(in / time.Second))).Done()
	_ = s.sock.Send(flow.Control, socketio.Msg{Text: text})
}
