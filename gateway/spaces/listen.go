package spaces

import (
	"context"

	"github.com/parley-p2p/parley/identity"
)

// listening is a protocol whose channels the page takes.
type listening struct {
	listener Listener
	ctx      context.Context // ends with it
	cancel   context.CancelFunc
	space    string
	window   int64 // credit that the page gives each channel
}

// Listen takes the channels of a protocol that others open, once begin is called;
// window is the credit that the page gives each. Errors: CodeNotJoined,
// CodeMalformed for the window, CodeLimit, CodeAlreadyStarted, the room's.
func (p *Page) Listen(space, protocol string, window uint64) (begin func(), err error) {
	if err := checkWindow(window); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m, err := p.joined(space)
	switch {
	case err != nil:
		return nil, err
	case m.listening[protocol] != nil:
		return nil, identity.Errorf(identity.CodeAlreadyStarted, "this page listens to the protocol already: %s", protocol)
	case p.listened >= maxListened:
		return nil, tooMany("protocols to take channels of", maxListened)
	}
	l := &listening{space: space, window: int64(window)}
	if l.listener, err = m.room.Listen(protocol); err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	m.listening[protocol] = l
	p.listened++
	p.work.Add(1)
	return func() {
		go func() {
			defer p.work.Done()
			p.acceptAll(l)
		}()
	}, nil
}

func checkWindow(n uint64) error {
	if n < minPageWindow || n > maxCredit {
		return &identity.Error{Code: identity.CodeMalformed, Text: "window is 131072 to 16777216 bytes"}
	}
	return nil
}

// Unlisten takes no more channels; those that are open stay. Error:
// CodeNotStarted.
func (p *Page) Unlisten(space, protocol string) error {
	p.mu.Lock()
	m, err := p.joined(space)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	l := m.listening[protocol]
	if l != nil {
		delete(m.listening, protocol)
		p.listened--
	}
	p.mu.Unlock()
	if l == nil {
		return identity.Errorf(identity.CodeNotStarted, "this page does not listen to the protocol: %s", protocol)
	}
	l.cancel()
	l.listener.Close()
	return nil
}

// acceptAll takes channels until the listening ends. One that finds no room
// waits, and those behind it wait in the listener.
func (p *Page) acceptAll(l *listening) {
	for {
		ch, err := l.listener.Accept(l.ctx)
		if err != nil {
			return
		}
		if err := p.incoming.Take(l.ctx, 1); err != nil {
			refuse(ch)
			return
		}
		if !p.take(l, ch) {
			p.incoming.Give(1, maxIncoming)
			refuse(ch)
			return
		}
	}
}

func refuse(ch Channel) {
	ch.CloseWithError(identity.CodeBadSpaceHash, "nobody listens to this protocol any more")
}

// take makes a channel that came in one of the page's. It is false where the
// page has stopped listening meanwhile.
func (p *Page) take(l *listening, ch Channel) bool {
	line := p.newLine(l.window)
	line.ch, line.space, line.theirs = ch, l.space, true
	p.mu.Lock()
	if p.closed || l.ctx.Err() != nil {
		p.mu.Unlock()
		line.cancel()
		return false
	}
	p.last += 2
	line.id = p.last
	p.lines[line.id] = line
	p.giveWindow(line)
	p.work.Add(1)
	p.mu.Unlock()
	p.out.Channels(1)
	p.out.Incoming(line.id, l.space, line.window, ch.Info())
	go func() {
		defer p.work.Done()
		line.run()
	}()
	return true
}

// giveWindow gives a line the credit that it starts with. Called with mu.
func (p *Page) giveWindow(l *line) {
	l.window = fullWindow
	if p.windows+fullWindow > windowSum {
		l.window = bareWindow
	}
	l.left = l.window
	p.windows += l.window
}
