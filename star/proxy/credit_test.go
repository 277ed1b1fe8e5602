package proxy

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Two servers with a dial between them, in one goroutine: messages wait in two
// queues until the test lets them through.
type twoServers struct {
	here, there     *Engine
	dialer, callee  *testParty
	far, other      *Far // the callee's server at the dialer's, and the reverse
	toHere, toThere []func()
	resets          []string
}

func newTwoServers(limits Limits) *twoServers {
	w := &twoServers{dialer: &testParty{budget: newBudget(1 << 20)}, callee: &testParty{budget: newBudget(1 << 20)}}
	hooks := Hooks{Reset: func(reason string) { w.resets = append(w.resets, reason) }}
	w.here, w.there = New(limits, hooks, &ws.Memory{}), New(limits, hooks, &ws.Memory{})
	w.far = &Far{budget: newBudget(w.here.limits.Socket)}
	w.far.wire = &testWire{out: &w.toThere, far: &w.other, ask: func(credit int64) {
		w.other = &Far{dialer: true, budget: newBudget(w.there.limits.Socket)}
		back := &testWire{out: &w.toHere, far: &w.far}
		w.other.wire = back
		var d *Dial
		d = newDial(w.there, w.other, w.callee, "d", Request{Answer: func(_ *socketio.Flusher, reason string) { back.Answer(reason, d.halves[Dialer].owed.Load()) }})
		w.other.dial = d
		h := &d.halves[Listener]
		h.accepted, h.credit = true, credit
		w.other.open()
		d.start(nil)
		d.halves[Dialer].onAccept(nil)
	}}
	w.far.dial = newDial(w.here, w.dialer, w.far, "d", Request{Answer: func(*socketio.Flusher, string) {}})
	w.far.open()
	w.far.dial.start(nil)
	return w
}

// step lets one message through; false where there is none.
func (w *twoServers) step(queue *[]func()) bool {
	if len(*queue) == 0 {
		return false
	}
	next := (*queue)[0]
	*queue = (*queue)[1:]
	next()
	return true
}

// write is a chunk of the dialer's, if there is room for it.
func (w *twoServers) write(data []byte) bool {
	h := &w.far.dial.halves[Dialer]
	own := w.here.mem.Copy([]byte{4}, data)
	size := own.Size()
	if !h.window.TryTake(h.weight(size)) {
		own.Free()
		return false
	}
	if !h.reader.room().tryTake(size) {
		h.window.Give(h.weight(size), int64(w.here.limits.Stream))
		own.Free()
		return false
	}
	h.held.Add(int64(size))
	w.here.held.Add(int64(size))
	h.put(nil, own, own.Bytes())
	return true
}

// testWire is the way to the other server.
type testWire struct {
	out *[]func()
	far **Far
	ask func(credit int64)
}

func (w *testWire) push(f func())                 { *w.out = append(*w.out, f) }
func (w *testWire) Open(*Far)                     {}
func (w *testWire) Ask(_ Request, credit int64)   { w.push(func() { w.ask(credit) }) }
func (w *testWire) Answer(reason string, n int64) { w.push(func() { (*w.far).Answered(reason, n) }) }
func (w *testWire) End(k Kind, end string)        { w.push(func() { (*w.far).Ended(k, end) }) }
func (w *testWire) Credit(k Kind, n int64)        { w.push(func() { (*w.far).Credit(k, n) }) }
func (w *testWire) Stop(k Kind, reason string)    { w.push(func() { (*w.far).Stopped(k, reason) }) }
func (w *testWire) Reset(reason Reason)           { w.push(func() { (*w.far).Reset(reason) }) }
func (w *testWire) Close()                        {}
func (w *testWire) Data(k Kind, m socketio.Msg) {
	data := bytes.Clone(m.Bin[1:])
	leave(m)
	w.push(func() { (*w.far).Data(k, data) })
}

// leave is what a socket does with a message that it has sent.
func leave(m socketio.Msg) {
	size := m.Size()
	for _, b := range m.Bufs {
		b.Free()
	}
	if m.Receipt != nil {
		m.Receipt.Sent(size, m.Note, true)
	}
}

// testParty is a client that takes chunks when the test says so.
type testParty struct {
	budget  *budget
	waiting []socketio.Msg
	got     []byte
	end     string
	streams int64
}

func (p *testParty) take() bool {
	if len(p.waiting) == 0 {
		return false
	}
	m := p.waiting[0]
	p.waiting = p.waiting[1:]
	p.got = append(p.got, m.Bin[1:]...)
	leave(m)
	return true
}

func (p *testParty) ask(_ *socketio.Flusher, _ *Dial, answered func(*socketio.Flusher, socketio.Answer)) error {
	answered(nil, socketio.Answer{})
	return nil
}
func (p *testParty) hush(*Dial)                                      {}
func (p *testParty) accept(*socketio.Flusher, *half)                 {}
func (p *testParty) deliver(_ *half, m socketio.Msg)                 { p.waiting = append(p.waiting, m) }
func (p *testParty) finish(_ *socketio.Flusher, _ *half, end string) { p.end = end }
func (p *testParty) abort(_ *half, r Reason)                         { p.end = r.Text }
func (p *testParty) grant(*half, int)                                {}
func (p *testParty) stop(*half, string)                              {}
func (p *testParty) room() *budget                                   { return p.budget }
func (p *testParty) forget(*Dial, bool)                              {}
func (p *testParty) credits() bool                                   { return false }
func (p *testParty) far() bool                                       { return false }
func (p *testParty) farStreams(n int) int64                          { p.streams += int64(n); return p.streams }

// TestCreditBetweenServers: whatever the order in which chunks are written, messages
// arrive and the reader takes them, and however many other streams come and go at
// the reader: what is held stays within the window, no server sends what it has no
// credit for, nothing stands still for ever, and all bytes come in order.
func TestCreditBetweenServers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTwoServers(Limits{})
		var sent []byte
		size := rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 300), rapid.IntRange(1, 200<<10))
		steps := rapid.IntRange(1, 300).Draw(t, "steps")
		for range steps {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				data := bytes.Repeat([]byte{byte(len(sent))}, size.Draw(t, "size"))
				if w.write(data) {
					sent = append(sent, data...)
				}
			case 1:
				w.step(&w.toThere)
			case 2:
				w.step(&w.toHere)
			case 3:
				w.callee.take()
			case 4: // other streams to the same reader
				n := rapid.Int64Range(-3, 8).Draw(t, "streams")
				w.callee.streams = max(1, w.callee.streams+n)
			}
			if w.other == nil {
				continue
			}
			h := &w.other.dial.halves[Dialer]
			if owed, weighs := h.owed.Load(), h.weighs.Load(); owed < 0 || owed+weighs > Window {
				t.Fatalf("credit %d is out, and %d are held, of a window of %d", owed, weighs, Window)
			}
		}
		w.far.dial.halves[Dialer].onEnd(nil, "true")
		for w.step(&w.toThere) || w.step(&w.toHere) || w.callee.take() {
		}
		if len(w.resets) > 0 || w.callee.end != "true" || !bytes.Equal(w.callee.got, sent) {
			t.Fatalf("%d of %d bytes came, the end is %q, resets %v", len(w.callee.got), len(sent), w.callee.end, w.resets)
		}
		if here, there := w.here.held.Load(), w.there.held.Load(); here != 0 || there != 0 {
			t.Fatalf("%d and %d bytes are still held", here, there)
		}
	})
}

// A server that sends what it has no credit for loses the dial.
func TestAbuse39_CreditBetweenServersExceeded(t *testing.T) {
	w := newTwoServers(Limits{})
	for w.step(&w.toThere) || w.step(&w.toHere) {
	}
	for range Window/pieceCost + 1 { // empty pieces count, too
		w.other.Data(Dialer, nil)
	}
	if len(w.resets) == 0 || w.resets[0] != StreamFailed.Text || w.callee.end != StreamFailed.Text {
		t.Errorf("resets %v, the reader hears %q", w.resets, w.callee.end)
	}
}
