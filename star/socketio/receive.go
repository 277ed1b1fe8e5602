package socketio

import (
	"bytes"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The way in:
//
//	1. a packet arrives, from a frame or a polling body: it is a sign of life
//	2. heartbeat and noops are answered here
//	3. a message with attachments waits until they are whole
//	4. the Handler is offered it raw (Binary), or gets it parsed (Event)
//	5. answers go to whoever asked (Expect)
//
// All of it runs in one goroutine at a time: the WebSocket's reader, or the
// request that holds turn.

// Event is something the other side said. It is valid until the Handler returns.
type Event struct {
	Name string
	Args [][]byte // raw JSON, at most wire.MaxArgs; use Text for strings
	Data [][]byte // the attachments

	ack    int64
	socket *Socket
}

// Text is argument i as a string; ok is false where it is missing or no string.
func (e *Event) Text(i int) (text string, ok bool) {
	if i >= len(e.Args) {
		return "", false
	}
	return wire.String(e.Args[i])
}

// Bytes is the attachment that stands for argument i.
func (e *Event) Bytes(i int) (data []byte, ok bool) {
	if i >= len(e.Args) {
		return nil, false
	}
	num, ok := wire.Placeholder(e.Args[i])
	if !ok || num >= len(e.Data) {
		return nil, false
	}
	return e.Data[num], true
}

// AckID is the id to answer to, wire.NoAck where no answer is wanted.
func (e *Event) AckID() int64 { return e.ack }

// Answer is what came back for Expect: arguments, or why there is none. Args is
// valid until the callback returns.
type Answer struct {
	Args [][]byte
	Err  error
}

// Expect takes an id for an event that wants an answer and calls fn with it once:
// in the receive path when it comes, or when the socket ends.
func (s *Socket) Expect(fn func(Answer)) (id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acks == nil {
		s.acks = make(map[int64]func(Answer))
	}
	id = s.nextAck
	s.nextAck++
	s.acks[id] = fn
	return id
}

// Forget gives up on an answer; false when it has come already. A late one is
// ignored.
func (s *Socket) Forget(id int64) bool { return s.takeAck(id) != nil }

func (s *Socket) takeAck(id int64) func(Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn := s.acks[id]
	delete(s.acks, id)
	if len(s.acks) == 0 {
		s.acks = nil // a burst must not keep its memory
	}
	return fn
}

// failAcks answers everything still open with err.
func (s *Socket) failAcks(err error) {
	s.mu.Lock()
	acks := s.acks
	s.acks = nil
	s.mu.Unlock()
	for _, fn := range acks {
		fn(Answer{Err: err})
	}
}

// halfEvent is a message whose attachments are not all here; without a text there
// is none.
type halfEvent struct {
	header wire.Header
	text   *ws.Buf // the packet, with its leading 4
	data   []*ws.Buf
}

func (h *halfEvent) free() {
	h.text.Free()
	for _, d := range h.data {
		d.Free()
	}
}

var (
	errOrder     = &identity.Error{Code: identity.CodeMalformed, Text: "packets between an event and its attachments"}
	errStray     = &identity.Error{Code: identity.CodeMalformed, Text: "an attachment without an event"}
	errLong      = &identity.Error{Code: identity.CodeMalformed, Text: "the text of an event is too long"}
	errPacket    = &identity.Error{Code: identity.CodeMalformed, Text: "a packet that doesn't belong here"}
	errNamespace = &identity.Error{Code: identity.CodeRefused, Text: "the server refused the namespace"}
)

// receiveText takes one text packet. buf, if not nil, holds it and belongs to the
// socket from now on.
func (s *Socket) receiveText(text []byte, buf *ws.Buf) error {
	defer buf.Free()
	s.seen()
	if len(text) > 1 && text[0] == 'b' {
		p, err := wire.ParseBase64(text)
		if err != nil {
			return err
		}
		return s.receiveData(p.Raw, nil)
	}
	p, err := wire.ParsePacket(text)
	if err != nil {
		return err
	}
	switch {
	case p.Type == wire.Message:
		return s.receiveMessage(text)
	case p.Type == wire.Ping && !s.client:
		s.answerPing(p.Data)
	case p.Type == wire.Close:
		return ErrGoodbye
	case p.Type == wire.Pong || p.Type == wire.Noop || p.Type == wire.Ping:
	default:
		return errPacket
	}
	return s.relief()
}

func (s *Socket) answerPing(data []byte) {
	text := append(append(make([]byte, 0, 1+len(data)), byte(wire.Pong)), data...)
	_ = s.Send(flow.Control, Msg{Text: text, By: &s.flusher}) // an ending socket needs none
}

func (s *Socket) seen() {
	if watch := s.watch.Load(); watch != nil && s.watch.CompareAndSwap(watch, nil) {
		close(*watch)
	}
	if s.client {
		s.lastSeen.Store(s.core.now().UnixNano())
		return
	}
	s.lastSeen.Store(s.core.clock.Load())
}

// relief waits while too many answers of this socket wait to be taken.
func (s *Socket) relief() error {
	if s.control.Load() <= int64(s.core.limits.Control) {
		return nil
	}
	relieved := make(chan struct{}, 1)
	s.relieved.Store(&relieved) // before the look at what is left
	defer s.relieved.Store(nil)
	s.Hold()
	defer s.Release()
	for s.control.Load() > int64(s.core.limits.Control)/2 {
		select {
		case <-relieved:
		case <-s.done:
			return s.Err()
		}
	}
	return nil
}

// receiveMessage takes a Socket.IO message; text has its leading 4.
func (s *Socket) receiveMessage(text []byte) error {
	h, err := wire.ParseHeader(text[1:])
	if err != nil {
		return err
	}
	if s.half.text != nil {
		return errOrder
	}
	if len(text) > s.core.limits.Text && !s.mayBeLong(h) {
		return errLong
	}
	if h.Attachments > 0 {
		held := s.core.mem.Copy(text)
		h.Body = held.Bytes()[len(text)-len(h.Body):]
		s.half = halfEvent{header: h, text: held}
		return nil
	}
	return s.dispatch(h, nil)
}

func (s *Socket) mayBeLong(h wire.Header) bool {
	if s.client && (h.Kind == wire.Ack || h.Kind == wire.BinaryAck) {
		return true // a list of addresses has no bound but that of the message
	}
	long := s.core.limits.LongEvents
	return long != "" && bytes.HasPrefix(h.Body, []byte(`["`+long))
}

// receiveData takes one attachment with its leading 0x04. buf as in receiveText.
func (s *Socket) receiveData(data []byte, buf *ws.Buf) error {
	s.seen()
	if s.half.text == nil {
		buf.Free()
		return errStray
	}
	if _, err := wire.ParseBinary(data); err != nil {
		buf.Free()
		return err
	}
	if s.half.header.Attachments == 1 && s.half.header.Kind == wire.BinaryEvent && s.live(s.half.header) {
		return s.receiveOne(data, buf)
	}
	if buf == nil {
		buf = s.core.mem.Copy(data)
	}
	if s.half.data = append(s.half.data, buf); len(s.half.data) < s.half.header.Attachments {
		return nil
	}
	half := s.half
	s.half = halfEvent{}
	defer half.free()
	var all [][]byte
	for _, d := range half.data {
		all = append(all, d.Bytes()[1:])
	}
	return s.dispatch(half.header, all)
}

// receiveOne takes the only attachment of an event: the way of every chunk.
func (s *Socket) receiveOne(data []byte, buf *ws.Buf) error {
	half := s.half
	s.half = halfEvent{}
	defer half.text.Free()
	taken := s.handler.Binary(s, half.text.Bytes(), data, &buf)
	defer buf.Free()
	if taken {
		return s.relief()
	}
	return s.dispatch(half.header, [][]byte{data[1:]})
}

// live says whether events still count: on the root namespace, before a goodbye.
func (s *Socket) live(h wire.Header) bool { return h.Namespace == "" && !s.goodbye }

// dispatch gives a whole message to whom it is for.
func (s *Socket) dispatch(h wire.Header, data [][]byte) error {
	if h.Namespace != "" {
		return s.foreign(h)
	}
	switch h.Kind {
	case wire.Connect:
		return nil
	case wire.Error:
		if s.client {
			return identity.Errorf(identity.CodeRefused, "the server reported an error: %.200q", h.Body)
		}
		return errPacket
	case wire.Disconnect:
		s.goodbye = true
		s.goodAt.Store(max(s.core.clock.Load(), 1))
		s.leave(ErrGoodbye)
		s.failAcks(ErrGoodbye)
		if s.client {
			return ErrGoodbye // a server that says so means the connection
		}
		return nil
	}
	var array [wire.MaxArgs][]byte
	args, _, err := wire.Array(h.Body, array[:0], wire.MaxArgs, wire.Limits{Attachments: len(data)})
	if err != nil {
		return err
	}
	if h.Kind == wire.Ack || h.Kind == wire.BinaryAck {
		if fn := s.takeAck(h.ID); fn != nil {
			fn(Answer{Args: args})
		}
		return s.relief()
	}
	name, err := wire.EventName(args)
	if err != nil || s.goodbye {
		return err
	}
	e := Event{Name: name, Args: args[1:], Data: data, ack: h.ID, socket: s}
	if err := s.handler.Event(s, &e); err != nil {
		return err
	}
	return s.relief()
}

// foreign answers what is for a namespace other than the root.
func (s *Socket) foreign(h wire.Header) error {
	if s.client {
		if h.Kind == wire.Error {
			return errNamespace
		}
		return nil
	}
	if h.Kind == wire.Connect {
		text := append([]byte{byte(wire.Message), byte(wire.Error)}, h.Namespace...)
		text = append(text, `,"Invalid namespace"`...)
		s.packetText(text)
		return s.relief()
	}
	return nil
}

// idle is how long nothing came, by the coarse clock; zero while the reader is
// held back. A client that takes bytes while more wait for it is not silent: the
// pong that its next ping waits for is behind them.
func (s *Socket) idle(now int64) time.Duration {
	if s.held.Load() != 0 {
		return 0
	}
	return time.Duration(now - max(s.lastSeen.Load(), s.taking.Load()))
}
