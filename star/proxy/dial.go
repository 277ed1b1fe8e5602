package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// The life of a dial (star.md §6.1, §6.4):
//
//	1. Dial checks, enters it into the tables of both, and tells the dialer that it
//	   may write
//	2. the callee is asked; an answer, the end of either, or time decides
//	3. answered without error: the callee may write, then the dialer hears
//	4. chunks, until each stream has ended by itself or both are reset
//	5. gone from all tables

// party is one end of a dial. None of its methods blocks, but for take. by flushes
// what is sent, nil where nobody does (socketio.Msg.By).
type party interface {
	// ask asks a callee; answered is called once.
	ask(by *socketio.Flusher, d *Dial, answered func(by *socketio.Flusher, a socketio.Answer)) error
	// hush gives up on the answer.
	hush(d *Dial)

	accept(by *socketio.Flusher, h *half)             // tell the writer that it may send
	deliver(h *half, m socketio.Msg)                  // give the reader a chunk
	finish(by *socketio.Flusher, h *half, end string) // tell the reader of the end; end is JSON
	abort(h *half, reason Reason)                     // tell the reader that the stream is over
	grant(h *half, n int)                             // give the writer credit
	stop(h *half, reason string)                      // tell the writer that nobody reads
	room() *budget                                    // what bounds the bytes on their way to the reader
	forget(d *Dial, asDialer bool)
	credits() bool                // speaks credit
	far() bool                    // is at another server
	farStreams(n int) (all int64) // adds n to, and gives, the streams that come to it from other servers
}

// Dial is one dial.
type Dial struct {
	// Static after construction.
	eng      *Engine
	dialer   party
	callee   party
	id       string // as the dialer knows it
	calleeID string // as the callee knows it
	from, to string
	number   int64 // in the order of their beginning
	started  int64
	answer   func(by *socketio.Flusher, reason string) // tells the dialer; "" is success
	ack      atomic.Int64                              // the id that the callee answers to

	// Guarded by mu.
	mu     sync.Mutex
	state  state
	halves [2]half
}

type state uint8

const (
	asking state = iota
	running
	over
)

// Request is what a dialer asks for.
type Request struct {
	From, To, ID string

	// Answer is called once; "" is success. by is as in socketio.Msg.By. It must not
	// block.
	Answer func(by *socketio.Flusher, reason string)
}

func newDial(e *Engine, dialer, callee party, calleeID string, req Request) *Dial {
	d := &Dial{eng: e, dialer: dialer, callee: callee, id: req.ID, calleeID: calleeID, from: req.From, to: req.To,
		number: e.numbers.Add(1), started: e.clock.Load(), answer: req.Answer}
	d.halves[Dialer].init(d, Dialer, dialer, callee)
	d.halves[Listener].init(d, Listener, callee, dialer)
	return d
}

// idOf is the dial's id as p knows it, in the role that it has in a half.
func (d *Dial) idOf(dialer bool) string {
	if dialer {
		return d.id
	}
	return d.calleeID
}

// start is steps 1 to 3, after the tables have the dial.
func (d *Dial) start(by *socketio.Flusher) {
	d.dialer.accept(by, &d.halves[Dialer])
	if err := d.callee.ask(by, d, d.answered); err != nil {
		d.fail(PeerDisconnected.Text, PeerDisconnected)
	}
}

// answered is given the callee's acknowledgement.
func (d *Dial) answered(by *socketio.Flusher, a socketio.Answer) {
	switch {
	case a.Err != nil:
		d.fail(PeerDisconnected.Text, PeerDisconnected)
	case len(a.Args) > 0 && wire.Truthy(a.Args[0]):
		d.fail(refusal(a.Args[0]), Reason{})
	default:
		d.run(by)
	}
}

func (d *Dial) run(by *socketio.Flusher) {
	d.mu.Lock()
	if d.state != asking {
		d.mu.Unlock()
		return
	}
	d.state = running
	d.callee.accept(by, &d.halves[Listener])
	d.answer(by, "")
	done := d.checkDone()
	d.mu.Unlock()
	d.eng.hooks.Answered(time.Duration(d.eng.clock.Load()-d.started), true)
	if done {
		d.remove()
	}
}

// fail ends a dial that was not answered well. tell, where it has a text, is what
// the callee hears on the stream it may have accepted already.
func (d *Dial) fail(text string, tell Reason) {
	d.mu.Lock()
	if d.state != asking {
		d.mu.Unlock()
		return
	}
	d.state = over
	d.callee.hush(d)
	for i := range d.halves {
		h := &d.halves[i]
		h.drop()
		if h.kind == Dialer && tell.Text != "" && !h.done {
			d.callee.abort(h, tell)
		}
		h.done = true
	}
	d.answer(nil, text)
	d.mu.Unlock()
	d.eng.hooks.Answered(time.Duration(d.eng.clock.Load()-d.started), false)
	d.remove()
}

// reset ends the dial: both sides are told, what is held is dropped.
func (d *Dial) reset(reason Reason) { d.end(reason, nil) }

// end is reset, without telling gone.
func (d *Dial) end(reason Reason, gone party) {
	d.mu.Lock()
	if d.state == over {
		d.mu.Unlock()
		return
	}
	asked := d.state == asking
	d.state = over
	if asked {
		d.callee.hush(d)
	}
	ended := 0
	for i := range d.halves {
		h := &d.halves[i]
		h.drop()
		if h.done {
			continue
		}
		h.done = true
		ended++
		if h.reader != gone && !(asked && h.kind == Listener) {
			h.reader.abort(h, reason)
		}
		if h.writer != gone && !h.ended {
			h.writer.stop(h, reason.Text)
		}
	}
	if asked && d.dialer != gone {
		d.answer(nil, reason.Text)
	}
	d.mu.Unlock()
	if asked {
		d.eng.hooks.Answered(time.Duration(d.eng.clock.Load()-d.started), false)
	}
	for range ended {
		d.eng.hooks.Reset(reason.Text)
	}
	d.remove()
}

// remove takes the dial out of all tables.
func (d *Dial) remove() {
	for i := range d.halves {
		d.halves[i].leave()
	}
	d.dialer.forget(d, true)
	d.callee.forget(d, false)
	d.eng.remove(d)
}

// checkDone says whether both streams have ended; the caller holds mu, and calls
// remove afterwards.
func (d *Dial) checkDone() bool {
	if d.state != running || !d.halves[0].done || !d.halves[1].done {
		return false
	}
	d.state = over
	return true
}

func (d *Dial) isOver() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state == over
}

// open counts the streams that go on.
func (d *Dial) open() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.halves {
		if !d.halves[i].done && d.state == running {
			n++
		}
	}
	return n
}

// sweep sees to the dial's time limits.
func (d *Dial) sweep(now int64) {
	l := &d.eng.limits
	age := time.Duration(now - d.started)
	d.mu.Lock()
	asking := d.state == asking
	stalled := d.halves[0].stalled(now) || d.halves[1].stalled(now)
	d.mu.Unlock()
	switch {
	case asking && age > l.Answer:
		d.eng.hooks.Limit(LimitAnswer)
		d.fail(DialTimedOut, Reason{Text: DialTimedOut})
	case stalled:
		d.eng.hooks.Limit(LimitStall)
		d.reset(StreamStalled)
	case l.DialLife > 0 && age > l.DialLife:
		d.eng.hooks.Limit(LimitDialLife)
		d.reset(TimeLimit)
	}
}
