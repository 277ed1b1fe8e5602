package spaces

import (
	"bytes"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// This file is what the page says of a channel. What it says of one that is not
// there, or that it has ended, is ignored: the two may have crossed.

// Content takes a content of the page, which it copies. One without credit, or
// that is too large, ends the channel.
func (p *Page) Content(id uint64, content []byte) {
	cost := costOf(content)
	p.mu.Lock()
	l := p.line(id)
	fits := l != nil && cost <= l.left && len(content) <= MaxContent
	if fits {
		l.left -= cost
	}
	p.mu.Unlock()
	switch {
	case l == nil:
	case len(content) > MaxContent:
		l.fail(identity.CodeTooLarge, "a content has 65536 bytes at most")
	case !fits:
		l.fail(identity.CodeLimit, "the page sent without credit")
	default:
		_ = l.queue.PushAlways(flow.Bulk, bytes.Clone(content), int(cost)) // its credit is the bound
	}
}

// line gives a channel that the page may still use. Called with mu.
func (p *Page) line(id uint64) *line {
	if l := p.lines[id]; l != nil && l.ch != nil && !l.ended {
		return l
	}
	return nil
}

// Credit gives a channel n bytes more that may be sent to the page.
func (p *Page) Credit(id, n uint64) {
	p.mu.Lock()
	l := p.line(id)
	p.mu.Unlock()
	if l != nil && (n > maxCredit || !l.credit.Give(int64(n), maxCredit)) {
		l.fail(identity.CodeLimit, "the page gave more than 16 MiB of credit")
	}
}

// End ends a channel for the page: in order where code is "", at once otherwise.
// One that is being opened is not wanted any more. One
// that was ended in order, and still sends what came before, can be ended at once.
func (p *Page) End(id uint64, code identity.Code, text string) {
	p.mu.Lock()
	l := p.lines[id]
	opening := l != nil && l.ch == nil
	again := l != nil && l.ended
	if l != nil {
		l.ended = true
	}
	p.mu.Unlock()
	switch {
	case l == nil || again && code == "":
	case opening:
		l.cancel()
	case code == "":
		l.queue.Close(errEnded)
		l.deaf()
	default:
		l.ch.CloseWithError(onWire(code), text)
		l.cancel()
	}
}

var errEnded = &identity.Error{Code: identity.CodeClosed, Text: "the page ended the channel"}

// onWire keeps what a page says to another within the codes of the wire.
func onWire(code identity.Code) identity.Code {
	switch code {
	case identity.CodeBadChannelID, identity.CodeBadSpaceHash, identity.CodeBadToID, identity.CodeBadFromID,
		identity.CodeLimit, identity.CodeRelayRefused, identity.CodeRelayExpired:
		return code
	}
	return identity.CodeUnknown
}

// Info says what a channel is now. Error: CodeNotFound.
func (p *Page) Info(id uint64) (Info, error) {
	p.mu.Lock()
	l := p.line(id)
	p.mu.Unlock()
	if l == nil {
		return Info{}, &identity.Error{Code: identity.CodeNotFound, Text: "there is no such channel"}
	}
	return l.ch.Info(), nil
}
