package gateway

import (
	"bytes"
	"errors"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// readLoop reads the frames of a v2 page.
//
//  1. cut the message into frames; what can't be cut ends the socket
//  2. serve each; a frame that waits for room holds up those behind it
//  3. count the numbered ones that were taken: a resume begins behind them
func (s *v2Session) readLoop(l *link.Link) error {
	var buf []byte
	for {
		kind, msg, err := l.Read(buf)
		if err != nil {
			return err
		}
		if kind != socket.Binary {
			return link.Violation(socket.Protocol, "parley.v2 has binary messages only")
		}
		taken, err := s.frames(l, msg)
		s.took(l, taken, len(msg))
		if err != nil {
			return err
		}
		buf = socket.Reuse(msg)
	}
}

// frames serves the frames of a message and counts the numbered ones.
func (s *v2Session) frames(l *link.Link, msg []byte) (taken uint64, err error) {
	for len(msg) > 0 {
		var f v2.Frame
		if f, msg, err = v2.Next(msg); err != nil {
			return taken, errNotFrame
		}
		s.more = len(msg) > 0
		if f.Kind < v2.FirstNumbered {
			err = s.control(l, f)
		} else if err = s.numbered(l, f); err == nil {
			taken++
		}
		if err != nil {
			return taken, asViolation(err)
		}
	}
	return taken, nil
}

// asViolation keeps why a link ends, and makes a frame that can't be read one.
func asViolation(err error) error {
	if errors.Is(err, v2.ErrFrame) {
		return errNotFrame
	}
	return err
}

// took counts what was taken, and has the page told in time.
func (s *v2Session) took(l *link.Link, n uint64, size int) {
	s.mu.Lock()
	before := s.received - s.acked
	if before == 0 && n > 0 {
		s.ackSince = time.Now()
	}
	s.received += n
	s.ackBytes += size
	due := n > 0 && (s.received-s.acked >= ackFrames || s.ackBytes >= ackBytes)
	if n > 0 && !due && !s.ackArmed {
		s.armAck(ackDelay)
	}
	s.mu.Unlock()
	if due {
		l.Nudge()
	}
}

// armAck sees to it that the page is told what has come. Called with mu.
func (s *v2Session) armAck(after time.Duration) {
	s.ackArmed = true
	if s.ackTimer == nil {
		s.ackTimer = time.AfterFunc(after, s.ackLater)
		return
	}
	s.ackTimer.Reset(after)
}

// ackLater wakes the writer for what the page has not been told meanwhile, with
// something else. Mostly it has: to wake the writer for every message, so that it
// sets a timer, would be dearer.
func (s *v2Session) ackLater() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ackArmed = false
	if s.ended || s.link == nil || s.received == s.acked {
		return
	}
	if wait := ackDelay - time.Since(s.ackSince); wait > 0 {
		s.armAck(wait)
		return
	}
	s.link.Nudge()
}

// control serves a frame that isn't numbered.
func (s *v2Session) control(l *link.Link, f v2.Frame) error {
	switch f.Kind {
	case v2.KindReceived:
		n, err := f.Count()
		if err != nil {
			return err
		}
		return s.confirmed(l, n)
	case v2.KindPing:
		n, err := f.Count()
		if err != nil {
			return err
		}
		if err := l.AllowPing(); err != nil {
			return err
		}
		s.mu.Lock()
		s.pong, s.pongDue = n, true
		s.mu.Unlock()
		l.Nudge()
	case v2.KindBye:
		return link.Violation(socket.Normal, "bye")
	case v2.KindHello:
		return errNotFrame // only the first frame is one
	}
	return nil
}

// confirmed forgets what the page has.
func (s *v2Session) confirmed(l *link.Link, n uint64) error {
	s.mu.Lock()
	was := s.replay.Bytes()
	ok := s.replay.Trim(n)
	now := s.replay.Bytes()
	s.mu.Unlock()
	if !ok {
		return link.Violation(socket.Protocol, "received counts frames that were not sent")
	}
	if limit := s.g.replayLimit(); was >= limit && now < limit {
		l.Nudge()
	}
	return nil
}

// numbered serves a numbered frame. An error means that it was not taken and
// the socket ends.
func (s *v2Session) numbered(l *link.Link, f v2.Frame) error {
	switch f.Kind {
	case v2.KindHandled, v2.KindReply, v2.KindRefuse, v2.KindContent, v2.KindCredit, v2.KindEnd:
	default:
		if err := s.ask(l, s.writer.Load()); err != nil {
			return err
		}
	}
	switch f.Kind {
	case v2.KindSend:
		return s.send(l, f)
	case v2.KindHandled:
		n, err := f.Count()
		if d := s.settled(n); err == nil && d != nil {
			d.Handled()
		}
		return err
	case v2.KindReply:
		return s.reply(f)
	case v2.KindRefuse:
		n, cause, err := f.Refuse()
		if d := s.settled(n); err == nil && d != nil {
			d.Refuse(cause)
		}
		return err
	case v2.KindCancel:
		n, err := f.Count()
		if err == nil {
			s.cancelRequest(int64(n))
		}
		return err
	case v2.KindRequest:
		return s.request(l, f)
	case v2.KindContent, v2.KindCredit, v2.KindEnd:
		return s.channelFrame(f)
	}
	s.g.stats.UnknownFrames.Add(1)
	return nil
}

func (s *v2Session) reply(f v2.Frame) error {
	n, c, err := f.Reply()
	if errors.Is(err, v2.ErrFrame) {
		return err
	}
	d := s.settled(n)
	switch {
	case d == nil:
	case err != nil:
		d.Refuse(err)
	case len(c.Data) > s.g.cfg.MaxMessage:
		d.Refuse(tooLarge(len(c.Data), s.g.cfg.MaxMessage))
	default:
		c.Data = bytes.Clone(c.Data)
		d.Reply(c)
	}
	return nil
}

// send puts a message on its way.
func (s *v2Session) send(l *link.Link, f v2.Frame) error {
	m, err := f.Send()
	if errors.Is(err, v2.ErrFrame) {
		return err
	}
	id := int64(m.ID)
	out := network.Outgoing{Content: m.Content, Level: m.Level, Reply: m.Reply, Wait: true, More: s.more}
	var to pair
	if err == nil {
		to, err = s.pairOf(m)
		out.To, out.Protocol = to.peer, to.protocol
	}
	if err == nil && len(m.Content.Data) > s.g.cfg.MaxMessage {
		err = tooLarge(len(m.Content.Data), s.g.cfg.MaxMessage)
	}
	if err != nil {
		s.fail(id, err)
		return nil
	}
	r, err := s.begin(l.Context(), id, len(m.Content.Data))
	if err != nil {
		return err
	}
	out.Content.Data = bytes.Clone(m.Content.Data)
	out.Done = func(o network.Outcome) { s.sent(r, o) }
	cancel, err := s.peer.Send(out)
	if err != nil {
		s.settle(r)
		s.fail(id, err)
		return nil
	}
	s.cancellable(r, cancel)
	return nil
}

// pairOf reads peer and protocol of a send, which are mostly those of another
// one before it.
func (s *v2Session) pairOf(m v2.Send) (pair, error) {
	if p, ok := s.pairs[string(m.Pair)]; ok {
		return p, nil
	}
	id, err := identity.ParsePeerID(string(m.Peer))
	if err == nil {
		err = checkProtocol(string(m.Protocol))
	}
	if err == nil {
		err = s.mayProtocol(string(m.Protocol))
	}
	if err != nil {
		return pair{}, err
	}
	p := pair{id, network.Protocol(m.Protocol)}
	if s.pairs == nil || len(s.pairs) >= maxPairs {
		s.pairs = make(map[string]pair)
	}
	s.pairs[string(m.Pair)] = p
	return p, nil
}

// sent is called when a message has reached its level or never will.
func (s *v2Session) sent(r *request, o network.Outcome) {
	ok, lone := s.settleOne(r)
	switch {
	case !ok:
	case o.Err != nil:
		s.fail(r.id, o.Err)
	case o.Reply == nil:
		s.answer(lone, item{kind: itemLevel, id: r.id, n: int64(o.Level)}, 0)
	case v2.CheckContent(*o.Reply) != nil:
		s.fail(r.id, &identity.Error{Code: identity.CodeMalformed, Text: "the reply can't be read"})
	case s.queue.Bytes() > 2*s.g.cfg.SessionBuffer:
		s.fail(r.id, limitError("the reply was dropped: the page reads too slowly"))
	default:
		s.answer(lone, item{kind: itemReply, id: r.id, ref: *o.Reply}, len(o.Reply.Data))
	}
}

// answer answers a send: at once where it was the only request.
func (s *v2Session) answer(lone bool, it item, size int) {
	if !s.now(lone, it, size) {
		s.push(flow.Control, it, size)
	}
}
