package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// link is a conversation's stream of our own framing: the conversation's
// goroutine writes, one more reads what comes back.
type link struct {
	// Static.
	c      *conversation
	stream network.Stream
	opened time.Time
	lost   chan struct{} // closed with err
	once   sync.Once
	err    error // why it was lost; set before lost is closed

	// Guarded by the peer's mu.
	resuming  bool // the epoch has messages on the way: nothing is written before the welcome
	welcomed  bool
	window    int
	limit     int    // bytes of a message
	over      bool   // the other side ended it in order
	useful    bool   // something was taken or settled over this stream
	answered  uint64 // highest seq with a refusal or reply
	confirmed uint64 // what the other side was last told to be settled
	writing   bool   // somebody writes: the writer, or a sender by himself (now.go)

	// Owned by who writes.
	items []item
	buf   []byte

	// Owned by the reader.
	settled settlements
}

// assumedLimit is the largest message that is sent before the other side has
// told its limit.
const assumedLimit = firstWindow

var (
	errBye        = errors.New("the other side ended the stream")
	errStreamLost = errors.New("stream lost")
)

// serveStream writes over s until it is lost or idle.
func (c *conversation) serveStream(s network.Stream) (progressed bool, err error) {
	p := c.peer
	l := &link{c: c, stream: s, opened: time.Now(), lost: make(chan struct{}),
		window: firstWindow, limit: assumedLimit}
	stop := context.AfterFunc(p.ctx, func() { l.lose(errPeerClosed) })
	defer stop()

	var settled settlements
	p.mu.Lock()
	c.abandonPlain(&settled)
	l.begin()
	c.linked(l, true)
	l.buf = appendHello(l.buf, c.epoch, c.next, c.settled)
	p.mu.Unlock()
	settled.tell()

	done := make(chan struct{})
	go func() {
		defer close(done)
		l.lose(l.read())
	}()
	err = l.write()

	p.mu.Lock()
	c.linked(nil, false)
	progressed = l.useful || l.welcomed && time.Since(l.opened) >= time.Second
	p.mu.Unlock()
	if err != nil {
		_ = s.Reset()
	}
	<-done
	_ = s.Close()
	return progressed, err
}

// begin takes up the epoch, or a new one when nothing is on the way.
func (l *link) begin() {
	c := l.c
	if c.flight.len() > 0 {
		l.resuming = true
		return
	}
	c.here = false
	c.newEpoch()
	c.epochStart, c.epochMet = l.opened, false
	c.next, c.base, c.taken, c.settled = 1, 0, 0, 0
}

func (c *conversation) newEpoch() { _, _ = rand.Read(c.epoch[:]) } // never fails

// lose ends the link with err, once.
func (l *link) lose(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.lost)
		_ = l.stream.Reset()
	})
}

// write writes what departs until the link is lost or idle. A nil error means
// that it has been idle.
func (l *link) write() error {
	wrote := false
	for {
		var idle bool
		var err error
		if wrote, idle, err = l.gather(wrote); err != nil {
			return err
		}
		switch {
		case idle:
			return nil
		case wrote:
			if err := l.flush(); err != nil {
				l.lose(err)
				<-l.lost
				return l.err
			}
			continue
		}
		select {
		case <-l.c.wake:
		case <-l.lost:
			return l.err
		}
	}
}

// gather takes from the conversation what can be written now, and reports whether
// there is something: the caller writes it then, and calls again.
func (l *link) gather(wrote bool) (something, idle bool, err error) {
	c := l.c
	var failed settlements
	c.peer.mu.Lock()
	if wrote {
		l.writing = false
	}
	switch {
	case c.peer.closed, c.blocked:
		err = errPeerClosed
	case l.writing: // whoever writes signals when he is done
	case l.over, l.resuming:
		something = len(l.buf) > 0
	case c.idle && c.unresolved == 0 && len(l.buf) == 0:
		idle = true
	default:
		l.depart(&failed)
		something = len(l.buf) > 0 || len(l.items) > 0
	}
	l.writing = l.writing || something || idle
	last := c.flight.len() == 0
	c.peer.mu.Unlock()
	failed.tell()
	if idle {
		l.sayBye(last)
	}
	return something, idle, err
}

// depart takes what can be put on its way. The caller holds mu and writes.
func (l *link) depart(failed *settlements) {
	c := l.c
	l.items = c.depart(l.window, l.limit, l.welcomed, l.items[:0], failed)
	if l.answered > l.confirmed && c.settled > l.confirmed && len(l.items) > 0 {
		l.buf = appendSettled(l.buf, c.settled)
		l.confirmed = c.settled
	}
}

// sayBye ends the stream in order; the reader ends with the other side's half.
func (l *link) sayBye(last bool) {
	reason := byeLater
	if last {
		reason = byeDone
	}
	l.buf = appendBye(l.buf, reason, 0, "")
	_ = l.stream.SetWriteDeadline(time.Now().Add(farewell))
	_ = l.stream.SetReadDeadline(time.Now().Add(farewell))
	_, _ = l.stream.Write(l.buf)
	_ = l.stream.CloseWrite()
}

// farewell is how long a last frame may take.
const farewell = 250 * time.Millisecond

// largePayload is the size from which a payload is written by itself instead of
// being copied.
const largePayload = 32 << 10

// flush writes the items gathered: small ones in one write.
func (l *link) flush() error {
	for i := range l.items {
		it := &l.items[i]
		data := it.content.Data
		l.buf = appendContentHead(l.buf, kindData, it.seq, it.content.Type, it.flags, len(data))
		if len(data) < largePayload {
			l.buf = append(l.buf, data...)
			continue
		}
		if err := l.writeLarge(data); err != nil {
			return err
		}
	}
	clear(l.items)
	l.items = l.items[:0]
	return l.writeBuf()
}

// writeLarge writes what is in the buffer and data, from where it stands but for
// its beginning: the first write takes as much of it along as leaves full ones.
func (l *link) writeLarge(data []byte) error {
	full := (len(l.buf) + len(data) - 1) / batchBytes
	first := max(0, len(data)-full*batchBytes)
	l.buf = append(l.buf, data[:first]...)
	if err := l.writeBuf(); err != nil {
		return err
	}
	for data = data[first:]; len(data) > 0; {
		n, err := l.stream.Write(data[:min(len(data), batchBytes)])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (l *link) writeBuf() error {
	if len(l.buf) == 0 {
		return nil
	}
	n, err := l.stream.Write(l.buf)
	l.buf = l.buf[:copy(l.buf, l.buf[n:])] // what is left when the time was over
	return err
}

// read takes what the other side says until the stream ends.
func (l *link) read() error {
	c := l.c
	r := newFrameReader(l.stream, c.peer.cfg.MaxMessage)
	var f frame
	for {
		err := r.next(&f)
		if err == nil {
			err = l.take(&f)
		}
		if err != nil {
			if errors.Is(err, errBadFrame) {
				c.peer.node.offence(c.to)
			}
			if errors.Is(err, io.EOF) {
				err = errStreamLost
			}
			return err
		}
		l.settled.tell()
	}
}

// take handles one frame.
func (l *link) take(f *frame) error {
	c := l.c
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	defer l.noteProgress(f.kind == kindReply || f.kind == kindRefuse, c.taken, c.settled, len(l.settled))
	if c.link != l {
		return errStreamLost
	}
	if !l.welcomed && f.kind != kindWelcome && f.kind != kindBye {
		return badFrame("no welcome")
	}
	if f.seq >= c.next && f.kind != kindWindow && f.kind <= kindSettled {
		return badFrame("of a message that was not sent")
	}
	switch f.kind {
	case kindWelcome:
		return l.takeWelcome(f)
	case kindAck:
		return l.takeAck(f)
	case kindRefuse:
		l.answer(f.seq, network.Outcome{Err: refusal(f.code, f.text)})
	case kindReply:
		l.answer(f.seq, network.Outcome{Level: network.Handled, Reply: &network.Content{Type: f.content.Type, Data: f.content.Data}})
	case kindWindow:
		l.window = max(l.window, int(min(f.window, 1<<30)))
	case kindBye:
		return l.takeBye(f)
	case kindHello, kindData, kindSettled:
		return badFrame("not for an opener")
	}
	return nil
}

// noteProgress compares with how far things were before a frame, and wakes the
// writer where it may have something to do. The caller holds mu.
func (l *link) noteProgress(answer bool, taken, settled uint64, resolved int) {
	c := l.c
	if c.taken > taken || c.settled > settled || len(l.settled) > resolved {
		c.progress = time.Now()
		l.useful = true
	}
	if c.settled > settled || answer && len(l.settled) > resolved {
		c.settling = c.progress
	}
	if c.queue.len() > 0 {
		c.signal()
	}
}

// takeWelcome starts the writing, where the epoch goes on from what was taken.
func (l *link) takeWelcome(f *frame) error {
	c := l.c
	sensible := f.base <= f.seq && f.base >= c.base && (f.base > c.base || f.seq >= c.taken)
	if l.welcomed || !sensible || !l.resuming && f.seq > 0 {
		return badFrame("welcome makes no sense")
	}
	if l.resuming && f.base > c.base { // the other side knows nothing of what is on the way
		if l.neverMet(f.memory) {
			c.returnAbove(0)
		} else {
			c.abandonFlight(&l.settled)
		}
		c.base, c.taken = f.base, f.base
	}
	if l.resuming {
		c.markTaken(f.seq, &l.settled)
		c.returnAbove(f.seq)
		c.next = f.seq + 1
	}
	c.epochMet = true
	l.resuming, l.welcomed = false, true
	l.window = int(min(f.window, 1<<30))
	l.limit = int(min(f.max, 1<<30))
	return nil
}

// neverMet reports whether the other side would know the epoch had it ever seen
// it: then nothing of it was taken.
func (l *link) neverMet(memory uint64) bool {
	return !l.c.epochMet && time.Duration(min(memory, 1<<40))*time.Millisecond > time.Since(l.c.epochStart)
}

func (l *link) takeAck(f *frame) error {
	switch f.level {
	case wireDelivered:
		l.c.markTaken(f.seq, &l.settled)
	case wireHandled, wireStored, wireTaken:
		l.c.settleUpTo(f.seq, f.level, &l.settled)
	default:
		return badFrame("unknown level")
	}
	return nil
}

// answer resolves one message by a refusal or reply; it stays in flight until an
// ack covers it.
func (l *link) answer(seq uint64, o network.Outcome) {
	l.answered = max(l.answered, seq)
	e := l.c.find(seq)
	if e == nil {
		return
	}
	if o.Reply != nil && !e.reply {
		o.Reply = nil
	}
	l.c.resolve(e, o, &l.settled)
}

// takeBye ends the link: the rest goes over another stream.
func (l *link) takeBye(f *frame) error {
	c := l.c
	l.over = true
	if l.welcomed || !l.resuming {
		c.markTaken(f.seq, &l.settled)
		c.returnAbove(f.seq)
		c.next = max(f.seq, c.taken) + 1
	}
	switch f.reason {
	case byeNotStarted:
		return c.errNotStarted()
	case byeUnsupported:
		return identity.Errorf(identity.CodeUnsupported, "no common version: %s", f.text)
	case byeClosed:
		return identity.Errorf(identity.CodeUnreachable, "peer closed there")
	}
	return errBye
}

// refusal is the other side's error, with a code that we know.
func refusal(code, text string) error {
	for _, known := range identity.Codes() {
		if string(known) == code {
			return &identity.Error{Code: known, Text: text}
		}
	}
	return &identity.Error{Code: identity.CodeRefused, Text: text}
}
