package proxy

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Side is one socket's part in all its dials. Its methods are called in the
// socket's receive path.
type Side struct {
	// Static after construction.
	eng     *Engine
	sock    *socketio.Socket
	ext     bool
	strings bool // told of vanished peers by a string, too
	budget  *budget

	// Pace, if not nil, is called with the length of each chunk before it is
	// taken, and may wait: a rate limit. It is set before the first event.
	Pace func(n int)

	// Guarded by mu.
	mu       sync.Mutex
	asDialer map[string]*Dial
	asCallee map[string]*Dial
	gone     bool
	fresh    int // makes ids that are new to this socket

	unanswered atomic.Int64 // dials of this socket
	fromAfar   atomic.Int64 // streams that come to it from other servers
}

// NewSide makes the side of a socket. ext says that it speaks the extensions of
// star.md §8; resetStrings that it is told of a vanished peer by a string anyway.
func (e *Engine) NewSide(sock *socketio.Socket, ext, resetStrings bool) *Side {
	return &Side{eng: e, sock: sock, ext: ext, strings: ext || resetStrings, budget: newBudget(e.limits.Socket)}
}

// Counts says how many dials the socket has, as dialer and as callee.
func (s *Side) Counts() (asDialer, asCallee int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asDialer), len(s.asCallee)
}

// Dial starts a dial from s, in its receive path, to callee. Its outcome, at once or
// later, goes to req.Answer; it must not be called with locks that Answer takes.
func (e *Engine) Dial(s, callee *Side, req Request) {
	if !s.mayDial(&req) {
		return
	}
	d, reason := e.enter(s, callee, req)
	if d == nil {
		req.Answer(s.sock.Flusher(), reason)
		return
	}
	d.start(s.sock.Flusher())
}

// mayDial checks the limits of a dialer, and counts the dial as unanswered until
// its answer; where it may not, that is answered.
func (s *Side) mayDial(req *Request) bool {
	l := &s.eng.limits
	if !ValidID(req.ID) {
		req.Answer(s.sock.Flusher(), DialIDBad)
		return false
	}
	s.mu.Lock()
	_, used := s.asDialer[req.ID]
	open, unanswered := len(s.asDialer), int(s.unanswered.Load())
	s.mu.Unlock()
	switch {
	case used:
		req.Answer(s.sock.Flusher(), DialIDInUse)
		return false
	case open >= l.DialsOfDialer:
		s.eng.hooks.Limit(LimitOpenDials)
		req.Answer(s.sock.Flusher(), DialTooMany)
		return false
	case unanswered >= l.Unanswered:
		s.eng.hooks.Limit(LimitUnanswered)
		req.Answer(s.sock.Flusher(), DialTooMany)
		return false
	}
	s.unanswered.Add(1) // the receive path alone adds
	tell := req.Answer
	req.Answer = func(by *socketio.Flusher, reason string) {
		s.unanswered.Add(-1)
		tell(by, reason)
	}
	return true
}

// enter puts a new dial into all tables, or says why not.
func (e *Engine) enter(s, callee *Side, req Request) (*Dial, string) {
	d, reason := callee.enterCallee(s, req)
	if d == nil {
		return nil, reason
	}
	if !s.enterDialer(d) { // its end has looked at the table before
		callee.forget(d, false)
		return nil, PeerDisconnected.Text
	}
	if !e.add(d) {
		s.forget(d, true)
		callee.forget(d, false)
		return nil, DialTooMany
	}
	return d, ""
}

// enterCallee makes a dial and puts it into the callee's table, or says why not.
func (s *Side) enterCallee(dialer party, req Request) (*Dial, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, PeerDisconnected.Text
	}
	if len(s.asCallee) >= s.eng.limits.DialsOfCallee {
		s.eng.hooks.Limit(LimitCalleeDials)
		return nil, DialTooMany
	}
	d := newDial(s.eng, dialer, s, s.freshID(req.ID), req)
	put(&s.asCallee, d.calleeID, d)
	return d, ""
}

// enterDialer puts a dial into the dialer's table; false where that has ended.
func (s *Side) enterDialer(d *Dial) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	put(&s.asDialer, d.id, d)
	return true
}

func put(m *map[string]*Dial, id string, d *Dial) {
	if *m == nil {
		*m = make(map[string]*Dial)
	}
	(*m)[id] = d
}

// maxFreshHead is how much of an id a fresh one begins with, so that it is an id.
const maxFreshHead = 100

// freshID gives the id that a callee knows a dial by: the dialer's, unless it is
// in use here (S-11). The caller holds mu.
func (s *Side) freshID(id string) string {
	head := id
	if len(head) > maxFreshHead {
		head = strings.ToValidUTF8(head[:maxFreshHead], "") // no half character at its end
	}
	for own := id; ; own = head + "~" + strconv.Itoa(s.fresh) {
		if _, used := s.asCallee[own]; !used {
			return own
		}
		s.fresh++
	}
}

// find gives the half of a stream in which s is the writer, or the reader.
func (s *Side) find(id []byte, kind Kind, writer bool) *half {
	s.mu.Lock()
	table := s.asCallee
	if writer == (kind == Dialer) {
		table = s.asDialer
	}
	d := table[string(id)]
	s.mu.Unlock()
	if d == nil {
		return nil
	}
	return &d.halves[kind]
}

// Chunk is offered every event with one attachment, raw; true means that it was
// one of a stream.
func (s *Side) Chunk(text, data []byte, buf **ws.Buf) bool {
	id, kind, ok := Route(text)
	if !ok {
		return false
	}
	s.chunk(id, kind, data, buf)
	return true
}

func (s *Side) chunk(id []byte, kind Kind, data []byte, buf **ws.Buf) {
	h := s.find(id, kind, true)
	if h == nil {
		s.eng.hooks.Dropped("chunk")
		return
	}
	if s.Pace != nil {
		s.Pace(len(data))
	}
	h.chunk(s.sock, data, buf)
}

// Event is given every other event; false means that it is not about a stream.
func (s *Side) Event(e *socketio.Event) bool {
	verb, id, kind, ok := SplitName(e.Name)
	if !ok {
		return false
	}
	if verb == Queue {
		s.queue(e, id, kind)
		return true
	}
	h := s.find([]byte(id), kind, verb == Error)
	if h == nil {
		s.eng.hooks.Dropped("event")
		return true
	}
	by := s.sock.Flusher()
	switch verb {
	case Accept:
		h.onAccept(by)
	case Error:
		h.onEnd(by, endArgument(e))
	case Credit:
		if s.ext {
			h.onCredit(by, number(e))
		}
	case Stop:
		if s.ext {
			h.onStop(stopArgument(e))
		}
	}
	return true
}

// queue takes a chunk that the fast way does not know: another form of JSON, a
// string, an array of numbers.
func (s *Side) queue(e *socketio.Event, id string, kind Kind) {
	data, ok := e.Bytes(0)
	if !ok && len(e.Args) > 0 {
		data, ok = convert(e.Args[0])
	}
	if !ok {
		s.eng.hooks.Dropped("chunk")
		return
	}
	s.chunk([]byte(id), kind, append([]byte{4}, data...), nil)
}

// convert makes bytes of a string, or of an array of numbers from 0 to 255.
func convert(arg []byte) ([]byte, bool) {
	if text, ok := wire.String(arg); ok {
		return []byte(text), true
	}
	if arg[0] != '[' {
		return nil, false
	}
	return numbers(arg[1 : len(arg)-1])
}

// numbers reads whole numbers from 0 to 255 with commas between them. That it is
// JSON was checked before.
func numbers(list []byte) ([]byte, bool) {
	if len(bytes.TrimSpace(list)) == 0 {
		return nil, true
	}
	data := make([]byte, 0, (len(list)+1)/2)
	for list, more := list, true; more; {
		var item []byte
		item, list, more = bytes.Cut(list, []byte{','})
		n, err := strconv.ParseUint(string(bytes.TrimSpace(item)), 10, 8)
		if err != nil {
			return nil, false
		}
		data = append(data, byte(n))
	}
	return data, true
}

// maxEnd is how much of an end's argument is passed on.
const maxEnd = 1 << 10

// endArgument is what an error event ends its stream with: a value that is not
// truthy, or too long, becomes a string.
func endArgument(e *socketio.Event) string {
	if len(e.Args) == 0 || !wire.Truthy(e.Args[0]) || len(e.Args[0]) > maxEnd || len(e.Data) > 0 {
		return StreamFailed.quoted()
	}
	return string(e.Args[0])
}

func number(e *socketio.Event) int64 {
	if len(e.Args) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(string(e.Args[0]), 10, 64) // 0 is refused by who asks
	return n
}

func stopArgument(e *socketio.Event) string {
	if text, ok := e.Text(0); ok && len(text) <= maxRefusal {
		return text
	}
	return ""
}

// Leave ends everything that touches the socket: it is gone.
func (s *Side) Leave(reason Reason) {
	s.mu.Lock()
	s.gone = true
	all := make([]*Dial, 0, len(s.asDialer)+len(s.asCallee))
	for _, d := range s.asDialer {
		all = append(all, d)
	}
	for _, d := range s.asCallee {
		all = append(all, d)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *Dial) int { return cmp.Compare(a.number, b.number) })
	for _, d := range all {
		d.end(reason, s)
	}
}
