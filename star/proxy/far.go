package proxy

import (
	"sync"

	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// A dial whose two ends are at different servers (star.md §12) is a Dial on each,
// with a Far in the place of the socket that the other server has:
//
//	dialer ─▶ Side ─ Dial ─ Far ══ Wire ══ Far ─ Dial ─ Side ─▶ callee
//
//	1. DialFar at the dialer's server asks, with the first credit for what comes back
//	2. AcceptFar at the callee's runs the dial with its client and answers, with the
//	   first credit for the dialer's bytes
//	3. pieces, credit, ends and stops, each of one stream; a reset ends both
//
// Credit is counted in bytes and pieceCost for each piece, so that empty pieces
// are bounded, too. A server never sends more than it was given.

// pieceCost is what a piece costs beside its bytes; maxPiece its most bytes.
const (
	pieceCost = 256
	maxPiece  = Window - pieceCost
)

// MinWindow is the least credit that a stream between servers begins with.
const MinWindow = 16 << 10

// farWindow is the credit of a stream from another server: what its reader's
// socket may hold, shared by the streams there are.
func farWindow(streams int64, socket int) int64 {
	return min(max(int64(socket)/max(streams, 1), MinWindow), Window)
}

// Wire takes what is to be told to the server that has the other end of a dial. It
// keeps the order, and none of its methods blocks. They may be called with the
// dial locked: a Wire must not call its Far from within them. After Close they do
// nothing, but for Data, which settles its piece.
type Wire interface {
	// Open comes before anything else: from now on f may be told things.
	Open(f *Far)
	// Ask asks the callee's server. credit is for the listener's stream.
	Ask(req Request, credit int64)
	// Answer is the callee's, or its server's; "" is success. credit is for the
	// dialer's stream.
	Answer(reason string, credit int64)
	// Data is one piece, m.Bin with its leading 0x04. The Wire frees its buffers
	// and tells its receipt when it has left, or was dropped.
	Data(k Kind, m socketio.Msg)
	// End is the end of a stream by its writer, as JSON.
	End(k Kind, end string)
	// Credit lets the stream's writer send n more.
	Credit(k Kind, n int64)
	// Stop tells the stream's writer that nobody reads.
	Stop(k Kind, reason string)
	// Reset ends the dial.
	Reset(reason Reason)
	// Close ends it: nothing more is wanted.
	Close()
}

// Far is the end of a dial that another server has. Its methods tell what came
// from there; they are called one at a time and don't block.
type Far struct {
	// Static after construction.
	wire   Wire
	dial   *Dial // set before Wire.Open
	dialer bool  // the other server has the dialer
	budget *budget
	opened bool // set before the dial starts

	// Guarded by Dial.mu.
	answered func(by *socketio.Flusher, a socketio.Answer)
	silent   bool // it was told of the end

	closed sync.Once
}

// DialFar starts a dial from s, in its receive path, to a callee at another server.
// Its outcome goes to req.Answer, as with Dial.
func (e *Engine) DialFar(s *Side, w Wire, req Request) {
	if !s.mayDial(&req) {
		return
	}
	f := &Far{wire: w, budget: newBudget(e.limits.Socket)}
	f.dial = newDial(e, s, f, req.ID, req)
	switch {
	case !s.enterDialer(f.dial):
		f.dial.remove()
		req.Answer(s.sock.Flusher(), PeerDisconnected.Text)
		return
	case !e.add(f.dial):
		f.dial.remove()
		req.Answer(s.sock.Flusher(), DialTooMany)
		return
	}
	f.open()
	f.dial.start(s.sock.Flusher())
}

// AcceptFar runs a dial for a dialer at another server. credit is what that server
// takes of the listener's stream. Where the dial can't begin, the reason is given
// back and w is not used; otherwise w.Answer follows.
func (e *Engine) AcceptFar(callee *Side, w Wire, req Request, credit int64) (refused string) {
	if !ValidID(req.ID) {
		return DialIDBad
	}
	f := &Far{wire: w, dialer: true, budget: newBudget(e.limits.Socket)}
	var d *Dial
	req.Answer = func(_ *socketio.Flusher, reason string) { w.Answer(reason, d.halves[Dialer].owed.Load()) }
	if d, refused = callee.enterCallee(f, req); d == nil {
		return refused
	}
	f.dial = d
	if !e.add(d) {
		d.remove()
		return DialTooMany
	}
	h := &d.halves[Listener]
	h.accepted, h.credit = true, max(0, min(credit, Window))
	f.open()
	d.start(nil)
	return ""
}

func (f *Far) open() {
	f.opened = true
	f.wire.Open(f)
}

// What comes from the other server.

// Answered is the outcome of a dial; "" is success.
func (f *Far) Answered(reason string, credit int64) {
	f.dial.mu.Lock()
	answered := f.answered
	f.answered = nil
	f.dial.mu.Unlock()
	switch {
	case f.dialer || answered == nil:
	case reason != "":
		answered(nil, socketio.Answer{Args: [][]byte{wire.AppendQuote(nil, reason)}})
	default:
		answered(nil, socketio.Answer{})
		f.dial.halves[Dialer].begin(credit)
	}
}

// Data is a piece of a stream.
func (f *Far) Data(k Kind, data []byte) {
	if h := f.writes(k); h != nil {
		h.arrive(f.dial.eng.mem.Copy([]byte{4}, data))
	}
}

// Ended is the end of a stream by its writer.
func (f *Far) Ended(k Kind, end string) {
	if h := f.writes(k); h != nil {
		h.onEnd(nil, end)
	}
}

// Credit is the reader's.
func (f *Far) Credit(k Kind, n int64) {
	if h := f.reads(k); h != nil {
		h.onCredit(nil, n)
	}
}

// Stopped tells that nobody reads a stream.
func (f *Far) Stopped(k Kind, reason string) {
	if h := f.reads(k); h != nil {
		h.onStop(reason)
	}
}

// Reset tells that the other server ended the dial.
func (f *Far) Reset(reason Reason) { f.dial.end(reason, f) }

// Broken ends the dial because something was lost between the servers, and tells
// the other.
func (f *Far) Broken() { f.dial.reset(ServerLost) }

// Lost ends the dial because the other server is gone.
func (f *Far) Lost() { f.dial.end(ServerLost, f) }

// Unknown tells that the other server has no such dial: it is over there. Where
// something was still to come from it, or to go there, that was lost.
func (f *Far) Unknown() {
	d := f.dial
	d.mu.Lock()
	lost := false
	for i := range d.halves {
		h := &d.halves[i]
		lost = lost || h.writer == party(f) && !h.ended || h.reader == party(f) && !h.done
	}
	asked := d.state == asking
	d.mu.Unlock()
	if lost && !asked {
		f.Lost()
	}
}

// Running says that the dial was answered and isn't over.
func (f *Far) Running() bool {
	f.dial.mu.Lock()
	defer f.dial.mu.Unlock()
	return f.dial.state == running
}

// writes and reads give the half in which the other server's client does so; nil
// where a message is about the wrong one.
func (f *Far) writes(k Kind) *half {
	if k > Listener || f.dialer != (k == Dialer) {
		return nil
	}
	return &f.dial.halves[k]
}

func (f *Far) reads(k Kind) *half {
	if k > Listener || f.dialer == (k == Dialer) {
		return nil
	}
	return &f.dial.halves[k]
}

// The Far as a party.

func (f *Far) ask(_ *socketio.Flusher, d *Dial, answered func(*socketio.Flusher, socketio.Answer)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.answered = answered
	if d.state == asking {
		f.wire.Ask(Request{From: d.from, To: d.to, ID: d.id}, d.halves[Listener].owed.Load())
	}
	return nil
}

func (f *Far) hush(*Dial)                      {}
func (f *Far) accept(*socketio.Flusher, *half) {} // its own server has told it

func (f *Far) deliver(h *half, m socketio.Msg) { f.wire.Data(h.kind, m) }

func (f *Far) finish(_ *socketio.Flusher, h *half, end string) {
	if !f.silent {
		f.wire.End(h.kind, end)
	}
}

func (f *Far) abort(_ *half, reason Reason) {
	if !f.silent {
		f.silent = true
		f.wire.Reset(reason)
	}
}

func (f *Far) grant(h *half, n int) { f.wire.Credit(h.kind, int64(n)) }

func (f *Far) stop(h *half, reason string) {
	if !f.silent {
		f.wire.Stop(h.kind, reason)
	}
}

func (f *Far) room() *budget { return f.budget }

func (f *Far) forget(*Dial, bool) {
	if f.opened {
		f.closed.Do(f.wire.Close)
	}
}

func (f *Far) credits() bool              { return true }
func (f *Far) far() bool                  { return true }
func (f *Far) farStreams(int) (all int64) { return 0 }

// What halves do with a Far.

// cost is what n bytes take of a writer's credit.
func (h *half) cost(n int) int64 {
	if h.writer.far() {
		return int64(n) + pieceCost
	}
	return int64(n)
}

// low is the credit below which a writer waits for the reader.
func (h *half) low() int64 {
	if h.writer.far() {
		return MinWindow / 4
	}
	return Window / 4
}

// begin tells that the other server takes the stream, with its first credit.
func (h *half) begin(credit int64) {
	d := h.d
	d.mu.Lock()
	if !h.accepted {
		h.accepted, h.credit = true, max(0, min(credit, Window))
	}
	h.flush(nil)
	done := d.checkDone()
	d.mu.Unlock()
	if done {
		d.remove()
	}
}

// arrive takes a piece from another server. It does not wait: the credit bounds
// what comes, and who exceeds it is reset by put.
func (h *half) arrive(own *ws.Buf) {
	e, size := h.d.eng, own.Size()
	if h.held.Add(int64(size)) == int64(size) {
		h.progress.Store(e.clock.Load())
	}
	e.held.Add(int64(size))
	h.weighs.Add(h.cost(len(own.Bytes()) - 1)) // before put takes it from owed: never granted twice
	h.put(nil, own, own.Bytes())
}

// grantFar gives the writer's server credit up to the stream's window, when there
// is a good part of it to give.
func (h *half) grantFar() {
	window := farWindow(h.reader.farStreams(0), h.d.eng.limits.Socket)
	for {
		owed := h.owed.Load()
		n := window - owed - h.weighs.Load()
		if n < window/4 {
			return
		}
		if h.owed.CompareAndSwap(owed, owed+n) {
			h.writer.grant(h, int(n))
			return
		}
	}
}

// passFar gives another server as much of a chunk as there is credit for. Pieces
// of one chunk are pieces like others: boundaries mean nothing (star.md §5). The
// caller holds d.mu.
func (h *half) passFar(m *socketio.Msg) (whole bool) {
	for {
		n := len(m.Bin) - 1
		room := int(min(h.credit-pieceCost, maxPiece))
		switch {
		case room < 0 || room == 0 && n > 0:
			return false
		case n <= room:
			h.credit -= int64(n) + pieceCost
			h.reader.deliver(h, *m)
			return true
		}
		h.credit -= int64(room) + pieceCost
		piece := h.d.eng.mem.Copy(m.Bin[:1+room])
		h.reader.deliver(h, socketio.Msg{Bin: piece.Bytes(), Bufs: [2]*ws.Buf{piece}})
		m.Bin = m.Bin[room:]
		m.Bin[0] = 4
	}
}
