package gateway

import (
	"context"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/spaces"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
)

// This file is the spaces and channels of a v2 page: its requests and frames on
// the way to spaces.Page, and what that has for the page on the way to the queue.

// joinSpace is how the session's part in spaces joins one.
func (s *session) joinSpace(ctx context.Context, name string) (room Room, err error) {
	err = link.Guard(s.log, func() (err error) {
		room, err = s.peer.JoinSpace(ctx, name)
		return err
	})
	return room, err
}

// later does what may wait in a goroutine of its own; an error is the answer. It
// is false where the session has ended.
func (s *v2Session) later(r *request, do func(ctx context.Context) error) bool {
	ctx, cancel := context.WithCancel(s.ctx)
	s.cancellable(r, cancel)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		cancel()
		return false
	}
	s.work.Go(func() {
		defer cancel()
		err := link.Guard(s.log, func() error { return do(ctx) })
		if err != nil && s.settle(r) {
			s.fail(r.id, err)
		}
	})
	return true
}

func (s *v2Session) joinRequest(l *link.Link, id int64, q v2.Request) error {
	if err := s.maySpace(); err != nil { // what else there is needs a space that was joined
		s.fail(id, err)
		return nil
	}
	r, err := s.begin(l.Context(), id, 0)
	if err != nil {
		return err
	}
	s.later(r, func(ctx context.Context) error {
		err := s.spaces.Join(ctx, q.Space)
		if err == nil && s.settle(r) {
			s.result(id, nil)
		}
		return err
	})
	return nil
}

func (s *v2Session) openRequest(l *link.Link, id int64, q v2.Request) error {
	r, err := s.begin(l.Context(), id, 0)
	if err != nil {
		return err
	}
	want, err := openWanted(q)
	var opening *spaces.Opening
	if err == nil {
		opening, err = s.spaces.Begin(want)
	}
	if err != nil {
		s.settle(r)
		s.fail(id, err)
		return nil
	}
	if !s.later(r, func(ctx context.Context) error { return s.open(ctx, r, opening) }) {
		opening.Drop()
	}
	return nil
}

// open answers an open when the channel is there.
func (s *v2Session) open(ctx context.Context, r *request, o *spaces.Opening) error {
	return o.Run(ctx, func(window int64, info ChannelInfo) bool {
		if !s.settle(r) {
			return false
		}
		s.result(r.id, v2.AppendOpened(nil, uint64(window), infoText(info)))
		return true
	})
}

func openWanted(q v2.Request) (want spaces.OpenRequest, err error) {
	want = spaces.OpenRequest{ID: q.Channel, Space: q.Space, Protocol: q.Protocol, Window: q.Window}
	want.Options.DirectOnly = q.DirectOnly
	if want.To, err = identity.ParsePeerID(q.Peer); err == nil && q.Via != "" {
		want.Options.Via, err = identity.ParsePeerID(q.Via)
	}
	return want, err
}

func (s *v2Session) leaveRequest(id int64, q v2.Request) error {
	err := s.spaces.Leave(q.Space)
	if err == nil {
		s.result(id, nil)
	}
	return err
}

func (s *v2Session) listenRequest(id int64, q v2.Request) error {
	begin, err := s.spaces.Listen(q.Space, q.Protocol, q.Window)
	if err == nil {
		s.result(id, nil)
		begin()
	}
	return err
}

func (s *v2Session) unlistenRequest(id int64, q v2.Request) error {
	err := s.spaces.Unlisten(q.Space, q.Protocol)
	if err == nil {
		s.result(id, nil)
	}
	return err
}

func (s *v2Session) infoRequest(id int64, q v2.Request) error {
	info, err := s.spaces.Info(q.Channel)
	if err == nil {
		s.result(id, v2.AppendChannelInfo(nil, infoText(info)))
	}
	return err
}

func infoText(i ChannelInfo) v2.ChannelInfo {
	return v2.ChannelInfo{Remote: i.Remote.String(), Verified: i.Verified, Path: string(i.Path), Relay: i.Relay.String(), RTT: i.RTT}
}

// channelFrame serves a frame of a channel.
func (s *v2Session) channelFrame(f v2.Frame) error {
	switch f.Kind {
	case v2.KindContent:
		id, content, err := f.ChannelContent()
		if err == nil {
			s.spaces.Content(id, content)
		}
		return err
	case v2.KindCredit:
		id, n, err := f.Credit()
		if err == nil {
			s.spaces.Credit(id, n)
		}
		return err
	}
	e, err := f.End()
	if err == nil {
		s.spaces.End(e.Channel, identity.Code(e.Code), e.Text)
	}
	return err
}

// toPage is a session as its spaces.Page sees it, an Out.
type toPage struct{ *session }

// Content waits for room among the contents of all channels, then in the queue.
func (s toPage) Content(ctx context.Context, channel uint64, content []byte) error {
	size := s.contentSize(content)
	if err := s.contents.Take(ctx, size); err != nil {
		return err
	}
	err := s.queue.Push(ctx, flow.Bulk, item{kind: itemContent, id: int64(channel), data: content}, int(size))
	if err != nil {
		s.contents.Give(size, s.contentRoom())
	}
	return err
}

// contentRoom is what contents may take of a page's buffer, and contentSize what
// one of them does.
func (s *session) contentRoom() int64 { return int64(s.g.cfg.SessionBuffer / 4) }

func (s *session) contentSize(content []byte) int64 {
	return min(int64(len(content)+itemOverhead), s.contentRoom())
}

func (s toPage) Credit(channel, n uint64) {
	s.push(flow.Control, item{kind: itemCredit, id: int64(channel), n: int64(n)}, 0)
}

func (s toPage) Incoming(channel uint64, space string, window int64, info ChannelInfo) {
	s.push(flow.Bulk, item{kind: itemIncoming, id: int64(channel), n: window, text: space, ref: info}, len(space)+len(info.Protocol))
}

func (s toPage) End(channel uint64, e spaces.End) {
	s.push(flow.Bulk, item{kind: itemEnd, id: int64(channel), flag: e.More, text: string(e.Code), ref: e.Text}, len(e.Text))
}

func (s toPage) Channels(delta int) { s.g.stats.Channels.Add(int64(delta)) }
