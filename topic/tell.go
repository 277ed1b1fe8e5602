package topic

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// speaksPresence reports whether p has said that it speaks presence.
func (r *Router) speaksPresence(p identity.PeerID) bool {
	found, err := r.host.Peerstore().SupportsProtocols(p, "/parley/presence/1.0.0")
	return err == nil && len(found) > 0
}

const (
	openTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	tellBatch    = 64 << 10
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 8 * time.Second
	aliveEvery   = 5 * time.Second  // something is written at least so often,
	deadAfter    = 12 * time.Second // and a stream that is silent for so long is dead
)

// tell keeps a stream to l's node and writes on it what changes, until nothing
// is its business any more.
func (n *Node) tell(l *link) {
	backoff := firstBackoff
	for n.stillTelling(l) {
		ctx, cancel := context.WithTimeout(n.ctx, openTimeout)
		// Who is no longer connected is not called back only to be told.
		s, err := n.network.Open(libp2p.WithNoDial(ctx, "presence"), l.node, presenceProtocol)
		cancel()
		if err == nil {
			n.classify(l, false)
			began := time.Now()
			if n.tellOn(l, s) {
				continue
			}
			if time.Since(began) > lastBackoff {
				backoff = firstBackoff
			}
		} else if identity.CodeOf(err) == identity.CodeNotStarted {
			n.classify(l, true)
			continue
		}
		n.pause(l, backoff)
		backoff = min(2*backoff, lastBackoff)
	}
}

// pause waits before the next try, shorter when there is nothing to try for.
func (n *Node) pause(l *link, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-l.wake:
			n.mu.Lock()
			worth := n.worthTelling(l)
			n.mu.Unlock()
			if !worth {
				return
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// stillTelling decides under one lock whether tell goes on, so that whoever has
// something to tell either finds it running or starts it.
func (n *Node) stillTelling(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() == nil && !l.plain && n.worthTelling(l) {
		return true
	}
	l.telling = false
	clear(l.changed)
	n.prune(l)
	return false
}

// classify records whether l's node speaks presence, and tells its rooms.
func (n *Node) classify(l *link, plain bool) {
	n.mu.Lock()
	l.plain = plain
	var rooms []*room
	for topic := range l.topics {
		if r := n.roomOf(topic); r != nil {
			rooms = append(rooms, r)
		}
	}
	n.mu.Unlock()
	for _, r := range rooms {
		r.post(func() { r.classify(l.node, plain) })
	}
}

// tellOn writes on s until it breaks (false) or nothing is its business any more.
func (n *Node) tellOn(l *link, s network.Stream) (done bool) {
	broken := make(chan struct{})
	watching := make(chan struct{})
	go func() { // ends with the stream; waited for below
		defer close(watching)
		_, _ = s.Read(make([]byte, 1)) // the other side never writes
		close(broken)
	}()
	defer func() { _ = s.Reset(); <-watching }()

	n.mu.Lock()
	clear(l.changed)
	for topic := range l.topics {
		for page := range n.told.mine[topic] {
			l.changed[change{topic, page}] = struct{}{}
		}
	}
	n.mu.Unlock()
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for quiet := false; ; {
		frames, worth := n.news(l)
		if quiet && len(frames) == 0 {
			frames = appendFrame(nil, frameAlive, nil)
		}
		quiet = false
		if len(frames) > 0 {
			_ = s.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := s.Write(frames); err != nil {
				return false
			}
			continue
		}
		if !worth {
			_ = s.CloseWrite()
			return true
		}
		select {
		case <-l.wake:
		case <-alive.C:
			quiet = true
		case <-broken:
			return false
		case <-n.ctx.Done():
			return true
		}
	}
}

// news takes what is to be told next. What is forgotten comes first, for the
// topic may have been met again since.
func (n *Node) news(l *link) (frames []byte, worth bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range l.changed {
		if c.page == "" {
			frames = appendFrame(frames, frameForget, appendPrefixed(nil, c.topic))
			delete(l.changed, c)
		}
	}
	for c := range l.changed {
		if len(frames) >= tellBatch {
			break
		}
		delete(l.changed, c)
		if _, shared := l.topics[c.topic]; !shared {
			continue
		}
		if a, there := n.told.mine[c.topic][c.page]; there {
			frames = appendFrame(frames, frameAnnounce, a.record)
		} else if agent, err := identity.AgentOf(c.page); err == nil {
			frames = appendFrame(frames, frameLeave, leaveBody(c.topic, agent))
		}
	}
	return frames, n.worthTelling(l)
}

// listen serves a stream on which another node tells. A newer stream of the same
// node replaces it. Who told nonsense again and again is not read for a while.
func (n *Node) listen(ctx context.Context, s network.Stream) {
	if n.liars.Refused(s.Remote(), time.Now()) {
		n.counts.unheard.Add(1)
		_ = s.Reset()
		return
	}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.tasks.Add(1)
	defer n.tasks.Done()
	l := n.link(s.Remote())
	old := l.stream
	l.stream = s
	if l.plain { // it has begun to speak
		l.plain = false
		n.poke(l)
	}
	gone := l.takeClaims()
	n.mu.Unlock()
	if old != nil {
		_ = old.Reset()
	}
	heard := n.hear(ctx, l, s, gone)
	if heard == nil {
		_ = s.Close()
	} else {
		_ = s.Reset()
	}

	n.mu.Lock()
	if l.stream == s {
		l.stream = nil
		gone = l.takeClaims()
	} else {
		gone = nil
	}
	n.prune(l)
	n.mu.Unlock()
	for _, c := range gone {
		n.toRoom(c, false)
	}
}

// takeClaims gives all that l's node told, which no longer holds. The caller
// holds mu.
func (l *link) takeClaims() []*claim {
	var all []*claim
	for _, claims := range l.theirs {
		for _, c := range claims {
			all = append(all, c)
		}
	}
	clear(l.theirs)
	l.claims = 0
	return all
}

// hear reads what is told on s until it ends, in order (nil) or not. before is
// what an older stream told and no longer holds.
func (n *Node) hear(ctx context.Context, l *link, s network.Stream, before []*claim) error {
	for _, c := range before {
		n.toRoom(c, false)
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	defer context.AfterFunc(n.ctx, func() { _ = s.Reset() })()
	reader := bufio.NewReaderSize(s, readBuffer)
	frame := make([]byte, 0, maxFrame)
	for {
		_ = s.SetReadDeadline(time.Now().Add(deadAfter))
		size, err := readSize(reader)
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, errBadFrame):
			return n.blame(l)
		case err != nil:
			return err
		}
		frame = frame[:size]
		if _, err := io.ReadFull(reader, frame); err != nil {
			return err
		}
		if err := n.slowDown(ctx, l); err != nil {
			return err
		}
		if !n.heard(l, s, frame[0], frame[1:]) {
			return n.blame(l)
		}
	}
}

// blame counts what l's node told wrong.
func (n *Node) blame(l *link) error {
	n.counts.refused.Add(1)
	if n.liars.Offend(l.node, time.Now()) {
		n.log.Warn("a node is refused for a while: what it tells of its pages can't be read", "node", l.node)
	}
	return errBadFrame
}

// readSize reads a frame's length. errBadFrame is the teller's fault, any other
// error the stream's; io.EOF is its end between two frames.
func readSize(r *bufio.Reader) (size int, err error) {
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err == io.EOF && shift > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		size |= int(b&0x7f) << shift
		if size > maxFrame || shift > 14 {
			return 0, errBadFrame
		}
		if b < 0x80 {
			break
		}
	}
	if size == 0 {
		return 0, errBadFrame
	}
	return size, nil
}

var errBadFrame = &identity.Error{Code: identity.CodeMalformed, Text: "presence frame can't be read"}

// slowDown waits where l's node tells too much at once.
func (n *Node) slowDown(ctx context.Context, l *link) error {
	for {
		ok, retry := l.rate.Allow(1, time.Now())
		if ok {
			return nil
		}
		timer := time.NewTimer(retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// heard takes one frame; false ends the stream.
func (n *Node) heard(l *link, s network.Stream, kind byte, body []byte) bool {
	switch kind {
	case frameAnnounce:
		c, err := openClaim(body, l.node, time.Now())
		if err != nil {
			n.log.Debug("presence record refused", "node", l.node, "err", err)
			return false
		}
		n.take(l, s, &c)
	case frameLeave:
		topic, agent, ok := parseLeave(body)
		page, err := agent.PeerID()
		if !ok || err != nil {
			return false
		}
		n.mu.Lock()
		c, there := l.theirs[topic][page]
		if there && l.stream == s {
			l.drop(c)
		}
		n.mu.Unlock()
		if there {
			n.toRoom(c, false)
		}
	case frameForget:
		topic, ok := parseForget(body)
		if !ok {
			return false
		}
		n.forgetTopic(l, s, topic)
	}
	return true
}

// take records a claim, if it is new and there is room for it.
func (n *Node) take(l *link, s network.Stream, c *claim) {
	n.mu.Lock()
	old, there := l.theirs[c.topic][c.page]
	limit := maxClaims
	if n.roomOf(c.topic) == nil {
		limit = maxUnknownClaims
	}
	if l.stream != s || there && c.seq <= old.seq || !there && l.claims >= limit {
		n.mu.Unlock()
		n.counts.refused.Add(1)
		return
	}
	if !there {
		l.claims++
		if l.theirs[c.topic] == nil {
			l.theirs[c.topic] = make(map[identity.PeerID]*claim)
		}
	}
	l.theirs[c.topic][c.page] = c
	n.mu.Unlock()
	if n.config.Learned != nil && len(c.addresses) > 0 {
		n.config.Learned(c.page, c.addresses)
	}
	n.toRoom(c, true)
}

func (n *Node) forgetTopic(l *link, s network.Stream, topic string) {
	n.mu.Lock()
	var gone []*claim
	if l.stream == s {
		for _, c := range l.theirs[topic] {
			gone = append(gone, c)
		}
		l.claims -= len(gone)
		delete(l.theirs, topic)
	}
	n.mu.Unlock()
	for _, c := range gone {
		n.toRoom(c, false)
	}
}
