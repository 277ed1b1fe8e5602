package spaces

import (
	"context"

	"github.com/parley-p2p/parley/identity"
)

// OpenRequest is a channel that the page wants.
type OpenRequest struct {
	ID       uint64 // odd, and not one of a channel that is there
	Space    string
	To       identity.PeerID
	Protocol string
	Window   uint64 // credit that the page gives
	Options  OpenOptions
}

// Opening is a channel that is being opened: End of its id stops it.
type Opening struct {
	page *Page
	line *line
	room Room
	want OpenRequest
}

// Begin takes the id and a place for a channel; it never blocks. Run or Drop must
// follow. Errors: CodeMalformed, CodeNotJoined, CodeLimit.
func (p *Page) Begin(q OpenRequest) (*Opening, error) {
	l, room, err := p.reserve(q)
	if err != nil {
		return nil, err
	}
	return &Opening{page: p, line: l, room: room, want: q}, nil
}

// Drop gives up what was begun.
func (o *Opening) Drop() {
	o.page.release(o.line)
	o.page.work.Done()
}

// Run opens the channel and calls opened when it is there, before anything of it
// goes to the page; where opened is false, because nobody wants it any more, the
// channel ends. The context stops it, too. Errors: CodeCancelled, the room's.
func (o *Opening) Run(ctx context.Context, opened func(window int64, info Info) bool) error {
	defer o.page.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.line.ctx, cancel)()
	ch, err := o.room.Open(ctx, o.want.To, o.want.Protocol, o.want.Options)
	if err != nil {
		given := ctx.Err() != nil
		o.page.release(o.line)
		if given {
			return errCancelled
		}
		return err
	}
	if !o.page.establish(o.line, ch, opened) {
		ch.CloseWithError(identity.CodeUnknown, textGone)
		o.page.release(o.line)
		return errCancelled
	}
	return nil
}

var errCancelled = &identity.Error{Code: identity.CodeCancelled, Text: "cancelled"}

// textGone is what the other end of a channel reads whose page went away.
const textGone = "the page is gone"

// reserve takes the id and a place for a channel, and counts as work of the page.
func (p *Page) reserve(q OpenRequest) (*line, Room, error) {
	if err := checkWindow(q.Window); err != nil {
		return nil, nil, err
	}
	if q.ID%2 == 0 {
		return nil, nil, &identity.Error{Code: identity.CodeMalformed, Text: "the page's channels have odd numbers"}
	}
	l := p.newLine(int64(q.Window))
	l.id, l.space = q.ID, q.Space
	p.mu.Lock()
	defer p.mu.Unlock()
	m, err := p.joined(q.Space)
	switch {
	case err != nil:
	case p.lines[q.ID] != nil:
		err = &identity.Error{Code: identity.CodeMalformed, Text: "this channel's number is in use"}
	case p.opened >= maxOpened:
		err = tooMany("channels that it opened", maxOpened)
	}
	if err != nil {
		l.cancel()
		return nil, nil, err
	}
	p.lines[q.ID] = l
	p.opened++
	p.work.Add(1)
	return l, m.room, nil
}

// establish makes a reserved line a channel. It is false where the page, or the
// one who asked, has given up meanwhile.
func (p *Page) establish(l *line, ch Channel, opened func(window int64, info Info) bool) bool {
	p.mu.Lock()
	if p.closed || l.ctx.Err() != nil {
		p.mu.Unlock()
		return false
	}
	p.giveWindow(l)
	l.ch = ch // the page may use it from the moment it reads the answer
	p.work.Add(1)
	p.mu.Unlock()
	p.out.Channels(1) // who reads the answer finds it counted
	if !opened(l.window, ch.Info()) {
		p.out.Channels(-1)
		p.work.Done()
		return false
	}
	go func() {
		defer p.work.Done()
		l.run()
	}()
	return true
}

// release forgets a line.
func (p *Page) release(l *line) {
	l.cancel()
	p.mu.Lock()
	delete(p.lines, l.id)
	p.windows -= l.window
	theirs := l.theirs
	if !theirs {
		p.opened--
	}
	p.mu.Unlock()
	if theirs {
		p.incoming.Give(1, maxIncoming)
	}
}
