package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/socket"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
)

// closing is why a link ends, and so how its socket is closed.
type closing struct {
	code   socket.Code
	reason string
	theirs bool // the page sent the close frame; its code is code
	flush  bool // what waits is written first
	bye    *identity.Error
}

func (c *closing) Error() string { return fmt.Sprintf("closed with %d: %s", c.code, c.reason) }

// The ends that don't depend on what came.
var (
	errLost     = &closing{reason: "the connection broke"}
	errReplaced = &closing{code: socket.GoingAway, reason: "another socket took the session"}
	errSilent   = &closing{code: socket.GoingAway, reason: "no answer to pings for 60 s"}
	errStuck    = &closing{code: socket.Overloaded, reason: "reads too slowly: nothing moved for 30 s"}
	errFlooded  = &closing{code: socket.Overloaded, reason: "reads too slowly: too much waits for it"}
	errPings    = &closing{code: socket.Policy, reason: "too many pings, limit 10 a second"}
	errPanic    = &closing{code: socket.Internal, reason: "internal error"}
	errStopping = &closing{code: socket.GoingAway, reason: "the node stops", flush: true,
		bye: &identity.Error{Code: identity.CodeClosed, Text: "the node stops"}}
)

func violation(code socket.Code, reason string) *closing {
	return &closing{code: code, reason: reason}
}

// asClosing gives the closing in err; anything else is a lost connection.
func asClosing(err error) *closing {
	var c *closing
	if errors.As(err, &c) {
		return c
	}
	return errLost
}

// link is one socket while it serves a session: the handler's goroutine reads,
// a second one writes.
type link struct {
	// static after construction
	sock  *socket.Socket
	log   *slog.Logger
	ctx   context.Context // ends with the link; its cause is a *closing
	end   context.CancelCauseFunc
	wake  chan struct{} // capacity 1: the writer has something besides its queue
	pings *flow.Bucket

	work    sync.WaitGroup // pings
	pingCtx context.Context
	noPings context.CancelFunc

	heard    atomic.Int64 // when something came last, in Unix nanoseconds
	reading  atomic.Bool  // the reader waits for the page, and not the page for it
	pinging  atomic.Bool
	greeting atomic.Bool // there is no session yet, so nobody writes
}

func newLink(log *slog.Logger) *link {
	l := &link{log: log, wake: make(chan struct{}, 1), pings: flow.NewBucket(pingsPerSecond, pingBurst)}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	l.pingCtx, l.noPings = context.WithCancel(context.Background())
	l.hear()
	return l
}

// options are what Accept needs to know of the link. They are used once sock is
// set, by the reader.
func (l *link) options() socket.Options {
	return socket.Options{Subprotocols: []string{v2.Subprotocol}, Limit: firstFrame, Heard: l.hear, PongOK: func() bool {
		ok, _ := l.pings.Allow(1, time.Now())
		if !ok {
			l.drop(errPings)
		}
		return ok
	}}
}

func (l *link) hear() { l.heard.Store(time.Now().UnixNano()) }

// nudge wakes the writer. It never blocks.
func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// drop ends the link at once, whatever is being written.
func (l *link) drop(why *closing) {
	l.end(why)
	l.sock.Interrupt(0)
}

// read waits for the page's next message. The error is a *closing.
func (l *link) read(buf []byte) (socket.Kind, []byte, error) {
	l.hear() // however long the page had to wait, it was not silent
	l.reading.Store(true)
	kind, msg, err := l.sock.Read(buf)
	l.reading.Store(false)
	if err == nil {
		return kind, msg, nil
	}
	code, theirs := socket.CloseCode(err)
	switch {
	case theirs:
		return 0, msg, &closing{code: code, theirs: true, reason: "the page closed"}
	case code == socket.TooLarge:
		return 0, msg, violation(code, "message over the size limit")
	case code != 0:
		return 0, msg, violation(code, "not RFC 6455")
	}
	return 0, msg, errLost
}

// run reads and writes until one of them ends, then ends the other, and returns
// why. The socket is left to be closed. A write that fails doesn't say why the
// socket ended: the close frame that tells may still be on its way to the reader.
func (l *link) run(read, write func() error) *closing {
	var writer sync.WaitGroup
	writer.Go(func() {
		switch why := asClosing(guard(l.log, write)); {
		case why == errLost && l.ctx.Err() == nil:
			l.sock.Interrupt(lastFrames)
		default:
			l.end(why)
			l.sock.Interrupt(0)
		}
	})
	l.drop(asClosing(guard(l.log, read)))
	writer.Wait()
	l.noPings()
	l.work.Wait()
	return asClosing(context.Cause(l.ctx))
}

// lastFrames is how long a socket that can't be written is still read.
const lastFrames = time.Second

// guard turns a panic into an end of this session, or request, alone.
func guard(log *slog.Logger, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("session panicked", "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return f()
}

// hangUp closes the socket the way why says.
func (l *link) hangUp(why *closing) {
	l.end(why)
	if why.theirs || why.code == 0 {
		l.sock.Abort()
		return
	}
	l.sock.Close(why.code, why.reason)
}

// outlet is the part of writing that differs between the protocols. Its methods
// are called by the writer alone.
type outlet interface {
	// open reports whether more may be written now.
	open() bool
	// flush writes items and whatever else is due.
	flush(items []item) error
	// due says after how long flush is wanted though nothing came; 0 is at once,
	// negative is never.
	due() time.Duration
	// farewell writes the last words.
	farewell(bye *identity.Error) error
}

// writeLoop writes what comes into the session's queue, as many at a time as are
// there, and keeps the connection alive.
func (l *link) writeLoop(q *flow.Queue[item], out outlet) error {
	timer := time.NewTimer(pingEvery)
	defer timer.Stop()
	moved, pinged := time.Now(), time.Now()
	var items []item
	for {
		items = reuse(items)
		if out.open() {
			var err error
			if items, err = q.TryPop(maxBatch, items); err != nil {
				return err
			}
		}
		if len(items) > 0 || out.due() == 0 {
			if err := out.flush(items); err != nil {
				return l.writeError(err)
			}
			moved = time.Now()
			continue
		}
		now := time.Now()
		switch {
		case q.Len() == 0 || out.open():
			moved = now
		case now.Sub(moved) >= stuckLimit:
			return errStuck
		}
		if now.Sub(pinged) >= pingEvery {
			pinged = now
			if err := l.checkAlive(now); err != nil {
				return err
			}
		}
		timer.Reset(wait(now, moved, pinged, out.due()))
		select {
		case <-q.Ready():
		case <-l.wake:
		case <-timer.C:
		case <-l.ctx.Done():
			return l.lastWords(q, out)
		}
	}
}

// reuse empties a batch for the next one, and lets go of it after a burst.
func reuse(items []item) []item {
	if cap(items) > 64 {
		return nil
	}
	clear(items)
	return items[:0]
}

func wait(now, moved, pinged time.Time, due time.Duration) time.Duration {
	d := min(pingEvery-now.Sub(pinged), stuckLimit-now.Sub(moved))
	if due > 0 {
		d = min(d, due)
	}
	return max(d, time.Millisecond)
}

func (l *link) writeError(err error) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return errStuck
	}
	return err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// lastWords writes what still waits, where the end is one in order.
func (l *link) lastWords(q *flow.Queue[item], out outlet) error {
	why := asClosing(context.Cause(l.ctx))
	if !why.flush {
		return why
	}
	for {
		items, err := q.TryPop(maxBatch, nil)
		if err != nil || len(items) == 0 {
			break
		}
		if out.flush(items) != nil {
			return why
		}
	}
	_ = out.farewell(why.bye)
	return why
}

// checkAlive sends a ping, and ends the link after a minute without any answer.
// A page that waits for the node, because it has too much unsettled, can't be
// heard and isn't silent.
func (l *link) checkAlive(now time.Time) error {
	if !l.reading.Load() {
		return nil
	}
	if now.Sub(time.Unix(0, l.heard.Load())) >= silenceLimit {
		return errSilent
	}
	if l.pinging.CompareAndSwap(false, true) {
		l.work.Go(func() {
			_ = l.sock.Ping(l.pingCtx) // its pong is heard; a ping that fails isn't
			l.pinging.Store(false)
		})
	}
	return nil
}
