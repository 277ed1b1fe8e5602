package proxy

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Limits of dials and streams (star.md §11.2). Zero values are the defaults; a
// negative number of dials lifts that limit.
type Limits struct {
	Stream int   // bytes a stream holds; 256 KiB
	Socket int   // bytes held for one socket; 1 MiB
	Server int64 // bytes held in all; 512 MiB

	DialsOfDialer int // open; 1,024
	Unanswered    int // of one dialer; 128
	DialsOfCallee int // open; 1,024
	Dials         int // open in all; 50,000

	Answer time.Duration // for the callee; 15 s
	Stall  time.Duration // a reader that takes nothing; 20 s

	DialBytes int64         // of a dial and direction; 0: no limit
	DialLife  time.Duration // 0: no limit
}

// The limits by the names that metrics give them.
const (
	LimitOpenDials   = "open_dials"
	LimitUnanswered  = "unanswered_dials"
	LimitCalleeDials = "callee_dials"
	LimitServerDials = "server_dials"
	LimitAnswer      = "dial_answer"
	LimitStall       = "stall"
	LimitServerBytes = "server_bytes"
	LimitStream      = "stream_bytes"
	LimitSocket      = "session_bytes"
	LimitDialBytes   = "dial_bytes"
	LimitDialLife    = "dial_life"
)

// Window is the credit that a writer with extensions begins with (star.md §8).
const Window = 256 << 10

func (l Limits) withDefaults() Limits {
	set(&l.Stream, Window)
	set(&l.Socket, 1<<20)
	set(&l.Server, 512<<20)
	for _, n := range []struct {
		v *int
		d int
	}{{&l.DialsOfDialer, 1024}, {&l.Unanswered, 128}, {&l.DialsOfCallee, 1024}, {&l.Dials, 50_000}} {
		if set(n.v, n.d); *n.v < 0 {
			*n.v = math.MaxInt
		}
	}
	set(&l.Answer, 15*time.Second)
	set(&l.Stall, 20*time.Second)
	return l
}

func set[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Hooks are told what happens, for metrics. None may block; nil ones are left
// out.
type Hooks struct {
	Reset    func(reason string)                // a stream ended by the server
	Answered func(after time.Duration, ok bool) // a dial
	Dropped  func(what string)                  // something that belongs to no stream, or can't be read
	Limit    func(name string)                  // a limit was met
}

// Stats are counters of an Engine, as of now.
type Stats struct {
	Dials, Streams int
	Held           int64 // bytes
	Paused         int   // senders that are not read
	Bytes          int64 // carried since the start
}

// Engine has all dials of a server.
type Engine struct {
	// Static after construction.
	limits Limits
	hooks  Hooks
	mem    *ws.Memory

	clock   atomic.Int64 // coarse time, Unix nanoseconds
	held    atomic.Int64
	paused  atomic.Int64
	bytes   atomic.Int64
	count   atomic.Int64 // dials
	numbers atomic.Int64 // dials ever made
	dials   sync.Map     // of *Dial to nothing
}

// New makes an Engine whose buffers come from mem.
func New(limits Limits, hooks Hooks, mem *ws.Memory) *Engine {
	if hooks.Reset == nil {
		hooks.Reset = func(string) {}
	}
	if hooks.Answered == nil {
		hooks.Answered = func(time.Duration, bool) {}
	}
	if hooks.Dropped == nil {
		hooks.Dropped = func(string) {}
	}
	if hooks.Limit == nil {
		hooks.Limit = func(string) {}
	}
	e := &Engine{limits: limits.withDefaults(), hooks: hooks, mem: mem}
	e.clock.Store(time.Now().UnixNano())
	return e
}

// Limits gives the limits in force.
func (e *Engine) Limits() Limits { return e.limits }

// Stats gives the counters.
func (e *Engine) Stats() Stats {
	st := Stats{Dials: int(e.count.Load()), Held: e.held.Load(), Paused: int(e.paused.Load()), Bytes: e.bytes.Load()}
	for _, d := range e.list() {
		st.Streams += d.open()
	}
	return st
}

// add counts a dial in; false where there are too many.
func (e *Engine) add(d *Dial) bool {
	if e.count.Add(1) > int64(e.limits.Dials) {
		e.count.Add(-1)
		e.hooks.Limit(LimitServerDials)
		return false
	}
	e.dials.Store(d, nil)
	return true
}

func (e *Engine) remove(d *Dial) {
	if _, there := e.dials.LoadAndDelete(d); there {
		e.count.Add(-1)
	}
}

func (e *Engine) list() []*Dial {
	all := make([]*Dial, 0, e.count.Load())
	e.dials.Range(func(d, _ any) bool {
		all = append(all, d.(*Dial))
		return true
	})
	return all
}

// Sweep sees to all time limits, and to the bytes held in all: where there are too
// many, the streams whose readers took nothing for the longest time are ended.
func (e *Engine) Sweep(now time.Time) {
	at := now.UnixNano()
	e.clock.Store(at)
	all := e.list()
	for _, d := range all {
		d.sweep(at)
	}
	for e.held.Load() > e.limits.Server {
		worst := longestStalled(all)
		if worst == nil {
			return
		}
		e.hooks.Limit(LimitServerBytes)
		worst.d.reset(StreamStalled)
	}
}

func longestStalled(all []*Dial) (worst *half) {
	for _, d := range all {
		for i := range d.halves {
			h := &d.halves[i]
			if h.held.Load() > 0 && !h.d.isOver() && (worst == nil || h.progress.Load() < worst.progress.Load()) {
				worst = h
			}
		}
	}
	return worst
}

// EndAll ends every dial with a reason: the last act of a server that drains.
func (e *Engine) EndAll(reason Reason) {
	for _, d := range e.list() {
		d.reset(reason)
	}
}
