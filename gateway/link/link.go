// Package link is one socket while it serves a session of a gateway: the
// goroutine of the HTTP handler reads, a second one writes.
//
//	l, err := link.Accept(w, r, log, []string{"parley.v2"}, 64<<10, pace)
//	why := l.Run(read, write)      until one of the two ends; read calls l.Read,
//	                               write is the Run of a Writer
//	l.HangUp(why)                  with the right close code
//
// It writes what waits in a queue, many items at a time, pings, and lets go of
// pages that are silent or take nothing (gateway.md §2.1, §2.5).
package link

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/socket"
)

const (
	pingEvery    = 25 * time.Second // proxies cut idle sockets after 60 s and more
	silenceLimit = 60 * time.Second
	stuckLimit   = 30 * time.Second // a full queue that doesn't move
	maxBatch     = 64 << 10         // bytes of a queue that are written at once
	lastFrames   = time.Second      // how long a socket that can't be written is still read

	closeWait = time.Second      // how long a page may take to end its side too
	stopWait  = 10 * time.Second // the same for one that is told that the node stops, unless Cut comes before

	// ignoreAfter is how long last words may take before what the page sends is read
	// and thrown away: a page that can't send may not read either. To begin at once
	// would only keep a flood going.
	ignoreAfter = 100 * time.Millisecond

	pingsPerSecond, pingBurst = 10, 50 // from a page
)

// Link is one socket. Its methods may be called by any goroutine, except where
// they say otherwise.
type Link struct {
	// static after Accept
	sock *socket.Socket
	log  *slog.Logger
	ctx  context.Context // ends with the link; its cause is a *Closing
	end  context.CancelCauseFunc
	wake chan struct{} // capacity 1: the writer has something besides its queue

	pings   *flow.Bucket   // from the page
	pongs   sync.WaitGroup // own pings that wait for theirs
	pingCtx context.Context
	noPings context.CancelFunc

	heard   atomic.Int64 // when something came last, in Unix nanoseconds
	reading atomic.Bool  // the reader waits for the page, and not the page for it
	pinging atomic.Bool
}

// Accept upgrades a request. Messages are limited to limit bytes until SetLimit; what
// comes behind the end is thrown away at the pace. Where it fails the request has been
// answered.
func Accept(w http.ResponseWriter, r *http.Request, log *slog.Logger, subprotocols []string, limit int, pace *socket.Pace) (*Link, error) {
	l := &Link{log: log, wake: make(chan struct{}, 1), pings: flow.NewBucket(pingsPerSecond, pingBurst)}
	l.hear()
	sock, err := socket.Accept(w, r, socket.Options{Subprotocols: subprotocols, Limit: limit, Heard: l.hear, Pace: pace,
		PongOK: func() bool { return l.AllowPing() == nil }})
	if err != nil {
		return nil, err
	}
	l.sock = sock
	l.ctx, l.end = context.WithCancelCause(context.Background())
	l.pingCtx, l.noPings = context.WithCancel(context.Background())
	return l, nil
}

// Subprotocol is what was agreed on, "" for none.
func (l *Link) Subprotocol() string { return l.sock.Subprotocol() }

// SetLimit sets the largest message. Only the reader may call it.
func (l *Link) SetLimit(n int) { l.sock.SetLimit(n) }

// Write writes messages. Only the writer may call it, or the reader while there
// is no writer.
func (l *Link) Write(kind socket.Kind, msgs ...[]byte) error { return l.sock.Write(kind, msgs...) }

// WriteParts writes one message that stands in several parts. Only the writer
// may call it. The parts are not looked at after it has returned.
func (l *Link) WriteParts(kind socket.Kind, parts [][]byte) error {
	return l.sock.WriteParts(kind, parts)
}

// Context ends when the link does.
func (l *Link) Context() context.Context { return l.ctx }

// Why is how the link ended, or nil while it lives.
func (l *Link) Why() *Closing {
	if l.ctx.Err() == nil {
		return nil
	}
	return AsClosing(context.Cause(l.ctx))
}

// AllowPing counts a ping of the page; too many end the link.
func (l *Link) AllowPing() error {
	if ok, _ := l.pings.Allow(1, time.Now()); ok {
		return nil
	}
	l.Drop(tooManyPings)
	return tooManyPings
}

func (l *Link) hear() { l.heard.Store(time.Now().UnixNano()) }

// Nudge wakes the writer. It never blocks.
func (l *Link) Nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// End ends the link in order: nothing more is read, and the writer gets to its last
// words, for which a page that takes them has all the time until Cut. The first end
// decides why. It never blocks.
func (l *Link) End(why *Closing) { l.end(why) }

// Rest waits, instead of reading, until the link ends, and gives how. Only the
// reader may call it.
func (l *Link) Rest() error {
	<-l.ctx.Done()
	return l.Why()
}

// Drop ends the link at once, whatever is being written. It never blocks.
func (l *Link) Drop(why *Closing) {
	l.end(why)
	l.sock.Interrupt(0)
}

// Cut ends the link without a word more, one too that is ending. It never blocks.
func (l *Link) Cut(why *Closing) {
	l.end(why)
	l.sock.Cut()
}

// Read waits for the page's next message and appends it to buf. Only the reader
// may call it. The error is a *Closing; once the link has ended nothing that comes
// is given any more.
func (l *Link) Read(buf []byte) (socket.Kind, []byte, error) {
	l.hear() // however long the page had to wait, it was not silent
	l.reading.Store(true)
	kind, msg, err := l.sock.Read(buf)
	l.reading.Store(false)
	if why := l.Why(); err == nil && why != nil {
		return 0, msg, why
	}
	if err == nil {
		return kind, msg, nil
	}
	code, theirs := socket.CloseCode(err)
	switch {
	case theirs:
		return 0, msg, &Closing{Code: code, Theirs: true, Reason: "the page closed"}
	case code == socket.TooLarge:
		return 0, msg, Violation(code, "message over the size limit")
	case code != 0:
		return 0, msg, Violation(code, "not RFC 6455")
	}
	return 0, msg, lost
}

// Run reads and writes until one of them ends, then ends the other, and returns
// why. The socket is left to HangUp. A write that fails doesn't say why the
// socket ended: the close frame that tells may still be on its way to the reader.
func (l *Link) Run(read, write func() error) *Closing {
	var writer sync.WaitGroup
	written := make(chan struct{})
	writer.Go(func() {
		defer close(written)
		switch why := AsClosing(Guard(l.log, write)); {
		case why == lost && l.ctx.Err() == nil:
			l.sock.Interrupt(lastFrames)
		default:
			l.end(why)
			l.sock.Interrupt(0)
		}
	})
	l.end(AsClosing(Guard(l.log, read)))
	if l.Why().bye == nil {
		l.sock.Interrupt(0)
	} else {
		l.ignore(written)
	}
	writer.Wait()
	l.noPings()
	l.pongs.Wait()
	return l.Why()
}

// ignore waits for the writer's last words, and does not let the page wait to be
// read meanwhile. The writer's end ends it.
func (l *Link) ignore(written <-chan struct{}) {
	select {
	case <-written:
	case <-time.After(ignoreAfter):
		l.sock.Discard()
	}
}

// Guard turns a panic into an end of this session, or request, alone.
func Guard(log *slog.Logger, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("session panicked", "panic", p, "stack", string(debug.Stack()))
			err = panicked
		}
	}()
	return f()
}

// HangUp ends the link, if it hasn't ended, and closes the socket the way why
// says. It takes a second at most, or until Cut where the node stops.
func (l *Link) HangUp(why *Closing) {
	l.end(why)
	l.noPings()
	if why.Theirs || why.Code == 0 {
		l.sock.Abort()
		return
	}
	wait := closeWait
	if why.bye != nil {
		wait = stopWait
	}
	l.sock.Close(why.Code, why.Reason, wait)
}
