package spaces

import (
	"context"
	"errors"
	"io"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// line is a channel of the page.
//
//  1. the page's contents wait in a queue that its credit bounds; sendAll gives
//     them to the channel, and gives credit as the channel takes them
//  2. receiveAll takes contents off the channel and waits for the page's credit,
//     then for room in the page's queue
//  3. when both are over the page is told of the end
type line struct {
	// static once it is in use
	page   *Page
	id     uint64
	space  string
	theirs bool // another agent opened it
	ctx    context.Context
	cancel context.CancelFunc // ends it whatever is still to be sent
	queue  *flow.Queue[[]byte]
	credit *flow.Window // what may be sent to the page
	toPage context.Context
	deaf   context.CancelFunc // ends what comes to the page alone

	// guarded by the Page's mu
	ch     Channel // nil while it is being opened
	window int64
	left   int64 // credit that the page has
	ended  bool  // by the page: it sends and wants nothing any more
	waits  bool  // what came waits for the page's credit
	gone   bool  // the channel has ended, and the page's contents go nowhere
	told   bool  // the page knows that
	cause  *End  // why this side ended it, where it did with an error
}

func (p *Page) newLine(pageWindow int64) *line {
	l := &line{page: p, queue: flow.NewQueue[[]byte](2 * fullWindow), credit: flow.NewWindow(pageWindow)}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	l.toPage, l.deaf = context.WithCancel(l.ctx)
	return l
}

// run serves the channel until it is over at both sides.
func (l *line) run() {
	p := l.page
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		l.sendAll()
	}()
	err := l.receiveAll()
	p.mu.Lock()
	wanted := !l.ended
	p.mu.Unlock()
	if wanted {
		l.ch.Close() // it has ended already, unless the page's part did
	}
	<-sent
	end := l.howEnded(err)
	p.release(l)
	p.out.Channels(-1)
	p.out.End(l.id, end)
}

// howEnded gives what the page is told. err is what receiving ended with.
func (l *line) howEnded(err error) End {
	l.page.mu.Lock()
	cause, ended := l.cause, l.ended
	l.page.mu.Unlock()
	switch {
	case cause != nil:
		return *cause
	case ended || errors.Is(err, io.EOF):
		return End{}
	}
	return endOf(l.ch.Err())
}

// endOf gives an error as the page is told of it; nil is a close in order.
func endOf(err error) End {
	if err == nil {
		return End{}
	}
	var e *identity.Error
	if errors.As(err, &e) {
		return End{Code: e.Code, Text: e.Error()}
	}
	return End{Code: identity.CodeUnknown, Text: "the channel broke"}
}

// receiveAll hands what comes to the page, as its credit allows.
func (l *line) receiveAll() error {
	for {
		content, err := l.ch.Receive(l.toPage)
		if err != nil {
			return err
		}
		if err := l.takeCredit(costOf(content)); err != nil {
			return err
		}
		if err := l.page.out.Content(l.toPage, l.id, content); err != nil {
			if l.toPage.Err() == nil { // the page is gone: that is no close in order
				l.abandon()
			}
			return err
		}
	}
}

// takeCredit waits until the page takes so much more.
func (l *line) takeCredit(n int64) error {
	if l.credit.TryTake(n) {
		return nil
	}
	l.tellGone(func() { l.waits = true })
	err := l.credit.Take(l.toPage, n)
	l.page.mu.Lock()
	l.waits = false
	l.page.mu.Unlock()
	return err
}

// sendAll gives the page's contents to the channel until one of them ends.
func (l *line) sendAll() {
	var batch [][]byte
	var taken int64
	for {
		var err error
		clear(batch)
		batch, err = l.queue.TryPop(MaxContent, batch[:0])
		for _, content := range batch {
			if err := l.ch.Send(l.ctx, content); err != nil {
				l.cannotSend(err)
				return
			}
			taken = l.grant(taken + costOf(content))
		}
		switch {
		case len(batch) > 0:
		case err != nil: // the page has ended it, and everything is sent
			l.ch.Close()
			return
		case !l.waitForMore():
			l.isGone()
			return
		}
	}
}

// waitForMore is false where the channel has ended.
func (l *line) waitForMore() bool {
	select {
	case <-l.queue.Ready():
		return true
	case <-l.ch.Done():
	case <-l.ctx.Done():
	}
	return false
}

// grant gives the page credit for what was taken, and returns what it hasn't
// given yet: half a window is worth a frame.
func (l *line) grant(taken int64) int64 {
	if taken < l.window/2 {
		return taken
	}
	l.page.mu.Lock()
	l.left += taken
	l.page.mu.Unlock()
	l.page.out.Credit(l.id, uint64(taken))
	return 0
}

// cannotSend ends the channel where a content can't be sent though it is open:
// what comes behind it would be taken for it.
func (l *line) cannotSend(err error) {
	if l.ctx.Err() != nil {
		return // by this side
	}
	select {
	case <-l.ch.Done():
		l.isGone()
		return
	default:
	}
	e := endOf(err)
	l.fail(e.Code, e.Text)
}

// tellGone notes something, and tells a page that has not read everything of a
// channel that has ended: what it sends goes nowhere any more.
func (l *line) tellGone(note func()) {
	l.page.mu.Lock()
	note()
	tell := l.waits && l.gone && !l.told && !l.ended && l.cause == nil && !l.page.closed
	l.told = l.told || tell
	l.page.mu.Unlock()
	if tell {
		end := endOf(l.ch.Err())
		end.More = true
		l.page.out.End(l.id, end)
	}
}

// isGone notes that the channel has ended.
func (l *line) isGone() { l.tellGone(func() { l.gone = true }) }

// fail ends the channel at both ends for a fault of this side. It never blocks.
func (l *line) fail(code identity.Code, text string) {
	l.page.mu.Lock()
	if l.cause == nil {
		l.cause = &End{Code: code, Text: text}
	}
	l.page.mu.Unlock()
	l.ch.CloseWithError(code, text)
	l.cancel()
}

// close ends the channel in order because its page has left the space; one that
// is being opened is given up.
func (l *line) close() {
	l.page.mu.Lock()
	ch := l.ch
	l.page.mu.Unlock()
	if ch != nil {
		ch.Close()
	} else {
		l.cancel()
	}
}

// abandon ends the channel because its page is gone.
func (l *line) abandon() {
	if l.ch != nil {
		l.ch.CloseWithError(identity.CodeUnknown, textGone)
	}
	l.cancel()
}
