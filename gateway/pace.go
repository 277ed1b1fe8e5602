package gateway

import (
	"github.com/parley-p2p/parley/gateway/link"
)

// A page that asks faster than it reads is read no faster than it takes its answers;
// and one that goes on to ask when the node stops is read no more. What it has to
// say of messages that it holds is not held up by either.

// lastRequests is how many requests are still answered of a page, once the node
// takes nothing more: a page that listens to its answers needs few to learn that.
const lastRequests = 256

// allRequests stands for no such bound: the node runs.
const allRequests = -1

// answerLimit is how many bytes of answers may wait for a page that is read on. One
// that has yet to confirm what it has is read on too, while no more of its requests
// wait than it may have unsettled.
func (g *Gateway) answerLimit() int { return max(g.cfg.SessionBuffer/4, leastAnswers) }

// leastAnswers is for small buffers: so much a page gets that reads when it has said
// all it has to say.
const leastAnswers = 64 << 10

// TakeNoMore begins the end, while the node still has messages on their way: the
// backend refuses what is new, and of each page no more than 256 requests are
// answered so. Then it isn't read any more. Shutdown comes next. It never blocks.
func (g *Gateway) TakeNoMore() { g.last.Store(lastRequests) }

// ask is called by the reader before it serves a request. The error is how the link
// ended: the request was not taken.
func (s *session) ask(l *link.Link, w *link.Writer[item]) error {
	if err := s.spend(l); err != nil {
		return err
	}
	return w.Await(s.g.cfg.Requests, s.g.answerLimit())
}

// spend counts a request once the node stops: the reader rests where the page has
// had its share of answers.
func (s *session) spend(l *link.Link) error {
	last := s.g.last.Load()
	if last == allRequests {
		return nil
	}
	if s.spent++; s.spent <= last {
		return nil
	}
	return l.Rest()
}
