package proxy

import (
	"strconv"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// The Side as a party: what an end of a dial is asked to do, as events on its socket.

func (s *Side) ask(by *socketio.Flusher, d *Dial, answered func(*socketio.Flusher, socketio.Answer)) error {
	id := s.sock.Expect(func(a socketio.Answer) { answered(s.sock.Flusher(), a) })
	d.ack.Store(id + 1)
	var b wire.Builder
	text := b.Event(nil, id, "ss-incomming").Str(d.calleeID).Str(d.from).Done()
	err := s.sock.Send(flow.Control, socketio.Msg{Text: text, By: by})
	if err != nil || d.isOver() {
		s.sock.Forget(id)
	}
	return err
}

func (s *Side) hush(d *Dial) {
	if id := d.ack.Load(); id > 0 {
		s.sock.Forget(id - 1)
	}
}

// send sends a control event about a stream; a socket that ends needs none.
func (s *Side) send(by *socketio.Flusher, class flow.Class, h *half, dialer bool, verb, arg string) {
	_ = s.sock.Send(class, socketio.Msg{Text: EventText(verb, h.d.idOf(dialer), h.kind, arg), By: by})
}

func (s *Side) accept(by *socketio.Flusher, h *half) {
	s.send(by, flow.Control, h, h.writerIsDialer(), Accept, "")
}

func (s *Side) deliver(_ *half, m socketio.Msg) { _ = s.sock.Send(flow.Bulk, m) } // on failure the receipt tells

func (s *Side) finish(by *socketio.Flusher, h *half, end string) {
	s.send(by, flow.Bulk, h, !h.writerIsDialer(), Error, end)
}

func (s *Side) grant(h *half, n int) {
	s.send(nil, flow.Control, h, h.writerIsDialer(), Credit, strconv.Itoa(n))
}

func (s *Side) stop(h *half, reason string) {
	if s.ext {
		s.send(nil, flow.Control, h, h.writerIsDialer(), Stop, string(wire.AppendQuote(nil, reason)))
	}
}

func (s *Side) room() *budget { return s.budget }

func (s *Side) abort(h *half, reason Reason) {
	if reason.Vanish && !s.strings {
		s.finish(nil, h, cleanEnd)
		return
	}
	s.finish(nil, h, reason.quoted())
}

func (s *Side) credits() bool                { return s.ext }
func (s *Side) far() bool                    { return false }
func (s *Side) farStreams(n int) (all int64) { return s.fromAfar.Add(int64(n)) }

func (s *Side) forget(d *Dial, asDialer bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table, id := &s.asCallee, d.calleeID
	if asDialer {
		table, id = &s.asDialer, d.id
	}
	if (*table)[id] == d {
		delete(*table, id)
	}
	if len(*table) == 0 {
		*table = nil // a burst must not keep its memory
	}
}
