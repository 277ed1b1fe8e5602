package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The way of a chunk:
//
//	1. room is taken in the half's window and in the reader's budget; where there
//	   is none, the sender's socket is not read (S-4)
//	2. before the reader's accept, and without its credit, the half holds it
//	3. then it waits in the reader's socket, in order
//	4. when it has left, both kinds of room are given back, and credit is granted
//
// Between servers (far.go) the writer's server keeps to the credit that the
// reader's grants, to the byte; what it sends is taken without waiting.

// half is one stream of a dial.
type half struct {
	// Static after construction.
	d      *Dial
	kind   Kind
	writer party
	reader party
	window *flow.Window

	held     atomic.Int64 // bytes held, in the half and in the reader's socket
	progress atomic.Int64 // when the reader last took something, or since when something is held
	ungiven  atomic.Int64 // bytes that left and for which the writer has no credit yet
	owed     atomic.Int64 // what a writer that needs credit may still send
	weighs   atomic.Int64 // what is held of a writer at another server, as its credit counts

	// Guarded by d.mu.
	text     []byte // the event of each chunk, for the reader; nil before the first
	accepted bool
	ended    bool   // the writer has ended it
	end      string // how, until the reader is told
	done     bool   // the reader was told, or the stream is reset
	pending  []socketio.Msg
	credit   int64              // of a reader that gives it
	total    int64              // bytes of the stream
	waiting  context.CancelFunc // of the sender that waits for room
}

func (h *half) init(d *Dial, kind Kind, writer, reader party) {
	h.d, h.kind, h.writer, h.reader = d, kind, writer, reader
	h.window = flow.NewWindow(int64(d.eng.limits.Stream))
	h.credit = Window
	h.owed.Store(Window)
	if reader.far() {
		h.credit = 0 // until its server tells
	}
	if writer.far() {
		h.owed.Store(farWindow(reader.farStreams(1), d.eng.limits.Socket))
	}
}

// leave is the last call for a half.
func (h *half) leave() {
	if h.writer.far() {
		h.reader.farStreams(-1)
	}
}

// writerIsDialer says in which role the writer knows the dial.
func (h *half) writerIsDialer() bool { return h.kind == Dialer }

// chunk takes one chunk from the writer, data with its leading 0x04. Where buf
// holds it, it is kept and *buf set to nil; otherwise it is copied. s is the
// writer's socket, which waits where there is no room.
func (h *half) chunk(s *socketio.Socket, data []byte, buf **ws.Buf) {
	var own *ws.Buf
	if buf != nil && *buf != nil {
		own, *buf = *buf, nil
	} else {
		own = h.d.eng.mem.Copy(data)
		data = own.Bytes()
	}
	if !h.take(s, own.Size()) {
		own.Free()
		return
	}
	h.put(s.Flusher(), own, data)
}

// put takes a chunk for which room was found.
func (h *half) put(by *socketio.Flusher, own *ws.Buf, data []byte) {
	d, e := h.d, h.d.eng
	size, n := own.Size(), len(data)-1
	m := socketio.Msg{Bin: data, Bufs: [2]*ws.Buf{own}, Receipt: h, Note: n, By: by}
	d.mu.Lock()
	var wrong Reason
	switch {
	case d.state == over || h.ended || h.done:
		d.mu.Unlock()
		own.Free()
		h.Sent(size, n, false)
		return
	case h.writer.credits() && h.owed.Add(-h.cost(n)) < 0:
		wrong = StreamFailed
	case e.limits.DialBytes > 0 && h.total+int64(n) > e.limits.DialBytes:
		wrong = ByteLimit
	}
	h.total += int64(n)
	if h.text == nil {
		h.text = QueueText(d.idOf(h.kind == Listener), h.kind)
	}
	m.Text = h.text
	if len(h.pending) > 0 || !h.mayPass() || !h.pass(&m) {
		h.pending = append(h.pending, m)
	}
	d.mu.Unlock()
	if wrong == ByteLimit {
		e.hooks.Limit(LimitDialBytes)
	}
	if wrong.Text != "" {
		d.reset(wrong)
	}
}

// take takes room for size bytes; false when the stream ended meanwhile.
func (h *half) take(s *socketio.Socket, size int) bool {
	e, room := h.d.eng, h.reader.room()
	if h.held.Add(int64(size)) == int64(size) {
		h.progress.Store(e.clock.Load()) // from now on something is held
	}
	e.held.Add(int64(size))
	limit := LimitStream
	if h.window.TryTake(h.weight(size)) {
		if room.tryTake(size) {
			return true
		}
		h.window.Give(h.weight(size), int64(e.limits.Stream))
		limit = LimitSocket
	}
	e.hooks.Limit(limit)
	if h.wait(s, room, size) {
		return true
	}
	h.held.Add(-int64(size))
	e.held.Add(-int64(size))
	return false
}

// weight is what size bytes take of the window: a chunk larger than it takes all,
// and a writer that is bounded by its credit nothing.
func (h *half) weight(size int) int64 {
	if h.writer.credits() {
		return 0
	}
	return int64(min(size, h.d.eng.limits.Stream))
}

// wait waits for room while the sender's socket is not read.
func (h *half) wait(s *socketio.Socket, room *budget, size int) bool {
	e := h.d.eng
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	h.d.mu.Lock()
	if h.d.state == over || h.done {
		h.d.mu.Unlock()
		return false
	}
	h.waiting = cancel
	h.d.mu.Unlock()
	e.paused.Add(1)
	s.Hold()
	ok := h.window.Take(ctx, h.weight(size)) == nil
	if ok && room.take(ctx, size) != nil {
		h.window.Give(h.weight(size), int64(e.limits.Stream))
		ok = false
	}
	s.Release()
	e.paused.Add(-1)
	h.d.mu.Lock()
	h.waiting = nil
	h.d.mu.Unlock()
	return ok
}

// Sent is told when a chunk has left, or was dropped.
func (h *half) Sent(size, note int, left bool) {
	e := h.d.eng
	h.progress.Store(e.clock.Load())
	h.held.Add(-int64(size))
	e.held.Add(-int64(size))
	if h.writer.far() {
		h.weighs.Add(-h.cost(note))
		if left {
			e.bytes.Add(int64(note))
			h.grantFar()
		}
		return
	}
	h.window.Give(h.weight(size), int64(e.limits.Stream))
	h.reader.room().give(size)
	if !left {
		return
	}
	e.bytes.Add(int64(note))
	if h.writer.credits() && h.ungiven.Add(int64(note)) >= Window/4 {
		if n := h.ungiven.Swap(0); n > 0 {
			h.owed.Add(n)
			h.writer.grant(h, int(n))
		}
	}
}

// mayPass says whether the reader takes a chunk now. The caller holds d.mu.
func (h *half) mayPass() bool {
	return h.accepted && !h.done && (h.credit > 0 || !h.reader.credits())
}

// pass gives the reader a chunk, or as much of it as another server gives credit
// for; false where some of it is left. The caller holds d.mu.
func (h *half) pass(m *socketio.Msg) (whole bool) {
	if h.reader.far() {
		return h.passFar(m)
	}
	h.credit -= int64(m.Note) // may fall below zero by one chunk
	h.reader.deliver(h, *m)
	return true
}

// flush passes on what may go, and the end behind it. The caller holds d.mu.
func (h *half) flush(by *socketio.Flusher) {
	if !h.accepted || h.done {
		return
	}
	sent := 0
	for sent < len(h.pending) && h.mayPass() {
		m := &h.pending[sent]
		if m.By = by; !h.pass(m) {
			break
		}
		sent++
	}
	rest := copy(h.pending, h.pending[sent:])
	clear(h.pending[rest:])
	if h.pending = h.pending[:rest]; rest == 0 {
		if cap(h.pending) > keepPending {
			h.pending = nil
		}
		if h.ended {
			h.reader.finish(by, h, h.end)
			h.done = true
		}
	}
}

// keepPending is how many slots an empty list keeps.
const keepPending = 4

// drop frees what the half holds itself, and wakes its sender. The caller holds
// d.mu.
func (h *half) drop() {
	for _, m := range h.pending {
		size := m.Size()
		m.Bufs[0].Free()
		h.Sent(size, m.Note, false)
	}
	h.pending = nil
	if h.waiting != nil {
		h.waiting()
	}
}

// stalled says whether the reader takes nothing although somebody waits for it.
// The caller holds d.mu.
func (h *half) stalled(now int64) bool {
	idle := time.Duration(now-h.progress.Load()) > h.d.eng.limits.Stall
	switch {
	case h.done || h.d.state != running:
		return false
	case h.held.Load() == 0 && !h.ended || !idle:
		return false
	}
	return !h.accepted || h.waiting != nil || h.reader.room().wanted() || h.writer.credits() && h.owed.Load() < h.low()
}

// The events of the two sides about this half.

func (h *half) onAccept(by *socketio.Flusher) {
	d := h.d
	d.mu.Lock()
	h.accepted = true
	h.flush(by)
	done := d.checkDone()
	d.mu.Unlock()
	if done {
		d.remove()
	}
}

// onEnd is the writer's end; end is JSON and truthy.
func (h *half) onEnd(by *socketio.Flusher, end string) {
	d := h.d
	d.mu.Lock()
	if h.ended || h.done {
		d.mu.Unlock()
		return
	}
	h.ended, h.end = true, end
	if h.held.Load() == 0 {
		h.progress.Store(d.eng.clock.Load())
	}
	h.flush(by)
	done := d.checkDone()
	d.mu.Unlock()
	if done {
		d.remove()
	}
}

// maxCredit is the most credit a reader may have given.
const maxCredit = 16 << 20

// onCredit is the reader's credit; a number that makes no sense ends the dial.
func (h *half) onCredit(by *socketio.Flusher, n int64) {
	d := h.d
	d.mu.Lock()
	most := int64(maxCredit)
	if h.reader.far() {
		most = Window
	}
	sensible := n > 0 && n <= most && h.credit+n <= most
	if sensible {
		h.credit += n
		h.flush(by)
	}
	done := d.checkDone()
	d.mu.Unlock()
	switch {
	case !sensible:
		d.reset(StreamFailed)
	case done:
		d.remove()
	}
}

// onStop is the reader's: nobody reads any more.
func (h *half) onStop(reason string) {
	d := h.d
	d.mu.Lock()
	if h.done {
		d.mu.Unlock()
		return
	}
	h.done = true
	h.drop()
	if !h.ended {
		h.writer.stop(h, reason)
	}
	done := d.checkDone()
	d.mu.Unlock()
	if done {
		d.remove()
	}
}

// budget bounds the bytes on their way to one party.
type budget struct {
	limit  int
	window *flow.Window
	want   atomic.Int64 // who waits
}

func newBudget(limit int) *budget { return &budget{limit: limit, window: flow.NewWindow(int64(limit))} }

func (b *budget) tryTake(size int) bool { return b.window.TryTake(int64(min(size, b.limit))) }

func (b *budget) take(ctx context.Context, size int) error {
	b.want.Add(1)
	defer b.want.Add(-1)
	return b.window.Take(ctx, int64(min(size, b.limit)))
}

func (b *budget) give(size int) { b.window.Give(int64(min(size, b.limit)), int64(b.limit)) }

func (b *budget) wanted() bool { return b.want.Load() > 0 }
