package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"time"

	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/lend"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	"github.com/parley-p2p/parley/gateway/spaces"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// v2Session is a session that outlives its sockets.
//
//	hello ──▶ find or make the session ──▶ attach: the old socket lets go
//	      ──▶ welcome ──▶ repeat what the page lacks ──▶ read and write
//	      ──▶ the socket is lost: grace ──▶ attach again, or end
//
// One socket at a time holds the seat; what it owns passes on with it.
type v2Session struct {
	*session
	token [v2.TokenSize]byte
	seat  chan struct{} // capacity 1: held by the socket that serves the session

	// owned by the holder of the seat: its reader
	pairs map[string]pair // what peer and protocol of a send mean
	more  bool            // another frame stands behind the one that is served

	// owned by the holder of the seat: its writer
	texts map[pair][]byte // the same, encoded

	// guarded by mu
	replay   v2.Replay
	received uint64 // numbered frames of the page that were taken
	acked    uint64 // of these, told to the page
	ackBytes int    // bytes that came since
	ackSince time.Time
	ackTimer *time.Timer // nil until needed
	ackArmed bool
	pong     uint64 // of the page's last ping
	pongDue  bool
}

// pair names a conversation.
type pair struct {
	peer     identity.PeerID
	protocol network.Protocol
}

// maxPairs bounds what a session remembers of them.
const maxPairs = 512

// serveV2 serves one socket of a v2 page until it is to be closed the way the
// error says.
func (g *Gateway) serveV2(l *link.Link, v access.Visitor) error {
	hello, err := readHello(l)
	g.greeted(l)
	if err != nil {
		return refuseHello(l, err)
	}
	s := g.resume(l, v, hello)
	resumed := s != nil
	if !resumed {
		if s, err = g.openV2(l.Context(), v, hello); err != nil {
			return refuseHello(l, err)
		}
		s.takeSeat(l)
	}
	why := s.serve(l, resumed, hello.Received)
	s.log.Debug("socket ended", "code", int(why.Code), "reason", why.Reason, "theirs", why.Theirs, "final", final(why))
	if final(why) {
		s.end()
	} else {
		s.startGrace(l)
	}
	<-s.seat
	return why
}

// readHello waits for the first message, which is one hello frame.
func readHello(l *link.Link) (v2.HelloFrame, error) {
	late := time.AfterFunc(helloWait, func() { l.Drop(link.Violation(socket.Policy, "no hello within 10 s")) })
	defer late.Stop()
	kind, msg, err := l.Read(nil)
	if err != nil {
		return v2.HelloFrame{}, err
	}
	f, rest, err := v2.Next(msg)
	if err != nil || kind != socket.Binary || len(rest) > 0 || f.Kind != v2.KindHello {
		return v2.HelloFrame{}, errNoHello
	}
	hello, err := f.Hello()
	switch {
	case err == nil && hello.Version != v2.Version:
		err = identity.Errorf(identity.CodeUnsupported, "version %d is not spoken here, only 2", hello.Version)
	case err != nil && v2.AsError(err) == nil:
		err = errNoHello
	}
	return hello, err
}

var (
	errNoHello  = link.Violation(socket.Protocol, "the first message is not one hello frame")
	errNotFrame = link.Violation(socket.Protocol, "not a sequence of parley.v2 frames")
)

// refuseHello says why there is no session, and gives how to close.
func refuseHello(l *link.Link, err error) error {
	why := l.Why()
	if e := v2.AsError(err); why == nil && e != nil {
		_ = l.Write(socket.Binary, v2.AppendBye(nil, e))
		why = link.Violation(closeCode(e.Code), string(e.Code))
	} else if why == nil {
		why = link.AsClosing(err)
	}
	return why
}

// closeCode tells by the close code whether it makes sense to come again.
func closeCode(code identity.Code) socket.Code {
	switch code {
	case identity.CodeUnsupported:
		return socket.Protocol
	case identity.CodeLimit:
		return socket.Overloaded
	}
	return socket.Policy
}

// openV2 makes a session with its peer.
func (g *Gateway) openV2(ctx context.Context, v access.Visitor, h v2.HelloFrame) (*v2Session, error) {
	key, err := g.keyFor(ctx, v, h)
	if err != nil {
		return nil, asError(err)
	}
	s := &v2Session{replay: v2.Replay{Free: lend.Put}, session: newSession(g, 2, v, g.cfg.SessionBuffer-g.replayLimit()), seat: make(chan struct{}, 1)}
	if err := g.add(s.session); err != nil {
		return nil, err
	}
	if err := s.join(ctx, key, true); err != nil {
		s.end()
		return nil, asError(err)
	}
	_, _ = rand.Read(s.token[:]) // never fails: crypto/rand ends the program instead
	g.keepToken(s)
	return s, nil
}

// keyFor gives the key that a hello asks for.
func (g *Gateway) keyFor(ctx context.Context, v access.Visitor, h v2.HelloFrame) (identity.Key, error) {
	if h.Key != "" {
		return identity.ParseKey(h.Key)
	}
	if h.Keyless || g.cfg.Keys == nil {
		return identity.NewKey()
	}
	origin := ""
	if v.Foreign {
		origin = v.Origin
	}
	return g.cfg.Keys.Key(ctx, origin, h.Identity)
}

// resume gives the living session that a hello names, with its seat taken for
// l, or nil. A token is good for the origin alone that it was given to.
func (g *Gateway) resume(l *link.Link, v access.Visitor, h v2.HelloFrame) *v2Session {
	if h.Session == nil {
		return nil
	}
	s := g.byToken(h.Session)
	if s == nil || s.visitor.Origin != v.Origin || !sameScope(s.visitor.Scope, v.Scope) {
		return nil
	}
	s.takeSeat(l)
	s.mu.Lock()
	ok := !s.ended && !s.expired && s.replay.Trim(h.Received)
	s.stopGrace()
	s.mu.Unlock()
	if !ok {
		<-s.seat
		s.end() // a page that lost count can't go on with it
		return nil
	}
	g.stats.Resumed.Add(1)
	return s
}

// takeSeat makes l the session's socket, and the one before let go.
func (s *v2Session) takeSeat(l *link.Link) {
	s.mu.Lock()
	old := s.link
	s.link = l
	s.mu.Unlock()
	if old != nil {
		old.Drop(link.Replaced)
	}
	s.seat <- struct{}{}
}

// serve says welcome and then reads and writes until the socket ends.
func (s *v2Session) serve(l *link.Link, resumed bool, has uint64) *link.Closing {
	s.mu.Lock()
	s.acked, s.ackBytes = s.received, 0
	again := s.replay.Since(has)
	welcome := v2.AppendWelcome(nil, s.welcome(resumed))
	s.mu.Unlock()
	l.SetLimit(s.g.cfg.MaxFrame)
	w := link.NewWriter[item](l, s.queue, &v2Outlet{v2Session: s, l: l})
	s.writer.Store(w)
	defer s.writer.CompareAndSwap(w, nil)
	return l.Run(func() error { return s.readLoop(l) }, func() error {
		for _, msg := range append([][]byte{welcome}, again...) {
			if err := l.Write(socket.Binary, msg); err != nil {
				return l.WriteError(err)
			}
		}
		return w.Run()
	})
}

func (s *v2Session) welcome(resumed bool) v2.WelcomeFrame {
	cfg := &s.g.cfg
	return v2.WelcomeFrame{Session: s.token[:], Resumed: resumed, Received: s.received,
		Peer: s.peer.Key().PeerID().String(), Grace: cfg.Grace, Node: cfg.Version,
		Limits: v2.WelcomeLimits{Frame: cfg.MaxFrame, Message: cfg.MaxMessage, Requests: cfg.Requests,
			Outbox: cfg.Outbox, OutboxTotal: cfg.OutboxTotal,
			Channels: spaces.MaxChannels, Content: spaces.MaxContent}}
}

// final reports whether a session ends with this socket: it was closed in order
// by the page (bye, 1000, 1001), it broke the protocol, or the node stops. Every
// other socket was lost, and the session waits for the next one.
func final(why *link.Closing) bool {
	switch why.Code {
	case socket.Normal, socket.Protocol, socket.BadText, socket.Policy, socket.Internal:
		return true
	case socket.GoingAway:
		return why.Theirs || why == link.Stopping
	}
	return false
}

// startGrace lets the session wait for another socket, unless one has come
// already. Called by the holder of the seat.
func (s *v2Session) startGrace(l *link.Link) {
	s.mu.Lock()
	if s.link != l || s.ended {
		s.mu.Unlock()
		return
	}
	s.link = nil
	over := s.stopping || s.expired
	if !over {
		s.g.work.Add(1)
		s.grace = time.AfterFunc(s.g.cfg.Grace, s.graceOver)
	}
	s.mu.Unlock()
	if over {
		s.end()
	}
}

func (s *v2Session) graceOver() {
	defer s.g.work.Done()
	s.mu.Lock()
	expired := s.link == nil
	s.expired = s.expired || expired
	s.mu.Unlock()
	if expired {
		s.g.stats.Expired.Add(1)
		s.end()
	}
}

func (g *Gateway) keepToken(s *v2Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.sessions[s.session]; ok {
		s.tokenHash = sha256.Sum256(s.token[:])
		g.tokens[s.tokenHash] = s
	}
}

// byToken looks a session up by the digest of its token: what the time of a
// lookup tells says nothing about the token.
func (g *Gateway) byToken(token []byte) *v2Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.tokens[sha256.Sum256(token)]
	if s == nil || subtle.ConstantTimeCompare(s.token[:], token) != 1 {
		return nil
	}
	return s
}
