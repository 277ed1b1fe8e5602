package socketio

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The server's polling transport (star.md §3.3): one GET at a time waits for what
// there is to say, one POST at a time brings what the client says.

// pollState is guarded by Socket.mu, but for its channel.
type pollState struct {
	getting, posting bool
	probing          bool          // a WebSocket is about to take over
	left             time.Time     // when the last GET ended
	wake             chan struct{} // capacity 1: look again
	last             chan struct{} // closed when the close packet was given out
	lastOnce         bool
}

// probeTick is how often a waiting GET is released while a WebSocket probes.
const probeTick = 100 * time.Millisecond

var (
	errOverlap  = &identity.Error{Code: identity.CodeMalformed, Text: "two requests of one kind at once"}
	errTooLarge = &identity.Error{Code: identity.CodeTooLarge, Text: "the request's body is above the limit"}
	errGone     = &identity.Error{Code: identity.CodeClosed, Text: "a poll ended before it was answered"}
)

func (srv *Server) openPolling(w http.ResponseWriter, s *Socket, open []byte) {
	s.poll = &pollState{left: s.core.now(), wake: make(chan struct{}, 1), last: make(chan struct{})}
	if !srv.register(s, nil) {
		s.end(ws.CodeGoingAway, errDraining)
		s.leave(errDraining)
		unavailable(w, errDraining)
		return
	}
	body := wire.AppendText(nil, wire.Packet{Type: wire.Open, Data: open[1:]})
	body = wire.AppendText(body, wire.Packet{Type: wire.Message, Data: connectPacket[1:]})
	if err := s.answer(w, wire.TextType, body); err != nil {
		s.Close(ws.CodeNormal, errGone)
	}
}

// enterPoll marks a request as the one of its kind. gone is true where the
// session does not poll any more.
func (s *Socket) enterPoll(get bool) (p *pollState, gone, overlap bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = s.poll
	if p == nil {
		return nil, true, false
	}
	busy := &p.posting
	if get {
		busy = &p.getting
	}
	overlap = *busy
	*busy = true
	return p, false, overlap
}

func (s *Socket) leavePoll(p *pollState, get bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if get {
		p.getting, p.left = false, s.core.now()
	} else {
		p.posting = false
	}
}

// refuseOverlap answers the second request of a kind and ends the session.
func (s *Socket) refuseOverlap(w http.ResponseWriter) {
	s.Close(ws.CodeProtocol, errOverlap)
	w.WriteHeader(http.StatusInternalServerError)
}

func (s *Socket) servePoll(w http.ResponseWriter, r *http.Request) {
	p, gone, overlap := s.enterPoll(true)
	switch {
	case gone:
		refuseRequest.write(w, r)
		return
	case overlap:
		s.refuseOverlap(w)
		return
	}
	s.seen()
	items, ok := s.nextPoll(r, p)
	s.leavePoll(p, true) // before the answer, which the next GET may follow at once
	if !ok {
		s.Close(ws.CodeNormal, errGone)
		return
	}
	contentType, body := s.encodePoll(items)
	err := s.answer(w, contentType, body)
	for _, it := range items {
		s.settle(it, err == nil)
	}
	s.progress.Store(s.core.clock.Load())
	if err != nil {
		s.Close(ws.CodeNormal, errGone)
	}
}

// nextPoll waits for items to send. None means a noop, or a close packet where the
// socket ends; ok is false when the request was given up.
func (s *Socket) nextPoll(r *http.Request, p *pollState) (items []*item, ok bool) {
	for {
		items, end, probing := s.popPoll(p)
		if len(items) > 0 || end {
			return items, true
		}
		var tick <-chan time.Time
		if probing {
			tick = time.After(probeTick)
		}
		select {
		case <-s.out.Ready():
		case <-p.wake:
		case <-tick:
			return nil, true
		case <-r.Context().Done():
			return nil, false
		}
	}
}

// popPoll takes what one response may carry. end is true when there will be no
// more on this transport.
func (s *Socket) popPoll(p *pollState) (items []*item, end, probing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll != p {
		return nil, true, false // a WebSocket has taken over
	}
	items, err := s.out.TryPop(s.core.limits.Message, nil)
	if err != nil && !p.lastOnce {
		p.lastOnce = true
		close(p.last)
	}
	return items, err != nil, p.probing
}

// encodePoll makes a body of items: a noop of none, a close packet where the
// socket ends.
func (s *Socket) encodePoll(items []*item) (contentType string, body []byte) {
	encode, contentType := wire.AppendText, wire.TextType
	for _, it := range items {
		if it.Bin != nil && !s.noBinary.Load() {
			encode, contentType = wire.AppendBinary, wire.BinaryType
		}
	}
	for _, it := range items {
		for _, text := range it.Texts {
			body = encode(body, wire.Packet{Type: wire.Type(text[0]), Data: text[1:]})
		}
		if it.Text != nil {
			body = encode(body, wire.Packet{Type: wire.Type(it.Text[0]), Data: it.Text[1:]})
		}
		if it.Bin != nil {
			body = encode(body, wire.Packet{Type: wire.Message, Binary: true, Data: it.Bin[1:]})
		}
	}
	if len(items) == 0 {
		last := wire.Noop
		if err := s.Err(); err != nil && !errors.Is(err, ErrGoodbye) {
			last = wire.Close
		}
		body = encode(body, wire.Packet{Type: last})
	}
	return contentType, body
}

// answer writes one polling response.
func (s *Socket) answer(w http.ResponseWriter, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Set-Cookie", "io="+s.id+"; Path=/; HttpOnly; SameSite=Strict")
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(s.core.times.Stuck)) // a bound where the server can set one
	_, err := w.Write(body)
	if err == nil {
		err = rc.Flush()
	}
	_ = rc.SetWriteDeadline(time.Time{})
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

func (s *Socket) servePost(w http.ResponseWriter, r *http.Request) {
	p, gone, overlap := s.enterPoll(false)
	switch {
	case gone:
		refuseRequest.write(w, r)
		return
	case overlap:
		s.refuseOverlap(w)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.core.times.Stuck)) // a bound where the server can set one
	body, err := s.readBody(r)
	_ = rc.SetReadDeadline(time.Time{})
	if err == nil {
		err = s.receiveBody(r, body.Bytes())
		body.Free()
	}
	s.leavePoll(p, false) // before the answer, which the next POST may follow at once
	switch {
	case err == errTooLarge:
		s.Close(ws.CodeTooLarge, err)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		s.Close(closeCode(err), err)
		if !errors.Is(err, ErrGoodbye) {
			refuseRequest.write(w, r)
			return
		}
	}
	_ = s.answer(w, "text/html", []byte("ok")) // the next request shows where this one got lost
}

// readBody reads a body up to the limit; it grows with what comes.
func (s *Socket) readBody(r *http.Request) (*ws.Buf, error) {
	limit := s.core.limits.Message
	if r.ContentLength > int64(limit) {
		return nil, errTooLarge
	}
	buf, have := s.core.mem.Get(8<<10), 0
	for {
		n, err := r.Body.Read(buf.Bytes()[have:])
		have += n
		switch {
		case have > limit:
			buf.Free()
			return nil, errTooLarge
		case err == io.EOF:
			buf.Trim(have)
			return buf, nil
		case err != nil:
			buf.Free()
			return nil, errGone
		case have == len(buf.Bytes()):
			bigger := s.core.mem.Get(min(4*have, limit+1))
			copy(bigger.Bytes(), buf.Bytes())
			buf.Free()
			buf = bigger
		}
	}
}

// receiveBody gives every packet of a POST to the receive path. While that is held
// back the request stays open, and ends with the client.
func (s *Socket) receiveBody(r *http.Request, body []byte) error {
	stop := context.AfterFunc(r.Context(), func() { s.Close(ws.CodeNormal, errGone) })
	defer stop()
	s.turn <- struct{}{}
	defer func() { s.flusher.Flush(); <-s.turn }()
	decode := wire.DecodeText
	if r.Header.Get("Content-Type") == wire.BinaryType {
		decode = wire.DecodeBinary
	}
	return decode(body, func(p wire.Packet) error {
		if err := s.Err(); err != nil {
			return err
		}
		if p.Binary {
			return s.receiveData(p.Raw, nil)
		}
		return s.receiveText(p.Raw, nil)
	})
}
