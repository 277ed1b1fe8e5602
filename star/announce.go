package star

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Announcements (star.md §6.3, S-5): work is O(changes).
//
//  1. a join or leave is one entry of the roster's log, encoded once
//  2. a pass gives each receiver what the log has since its own place in it, in one
//     message; the same message for all who stand at the same place
//  3. few members: the pass runs within the join; many: every 50 ms; thousands: a
//     pass visits some hundreds, the next one those behind them
//  4. for those without extensions each member is announced again an interval
//     later; among many, each receiver gets a batch of the round instead
const (
	passInterval = 50 * time.Millisecond
	fewMembers   = 65       // up to here everything is as with the reference
	passStep     = 128      // receivers visited without giving up the lock
	passMost     = 512      // receivers visited by one pass
	fullQueue    = 32 << 10 // bytes of control messages: the receiver hears later
)

// hearing is how far a session has heard. Guarded by roster.mu.
type hearing struct {
	place   uint64 // in the log
	second  int64  // for the budget of new members
	heard   int    // in this second
	due     time.Time
	round   int       // place in roster.order, of the next batch
	sample  []*notice // whom it hears of, with AnnounceSample
	started bool
}

// batch is a message for everybody who stands at one place.
type batch struct {
	from, to uint64
	most     int
	msg      socketio.Msg
	count    int
}

// announcer tells members of each other.
type announcer struct {
	// Static after construction.
	r       *roster
	mode    Announce
	refresh time.Duration
	limits  *Limits
	boot    string // begins versions: a server that started anew has another log
	count   func(kind string, n int)
	hit     func(limit string)

	// Guarded by roster.mu.
	next int               // in roster.receivers, of the next pass
	said *socketio.Flusher // of what was sent under the lock; nil where nothing was
}

// run makes a pass every 50 ms until ctx ends.
func (a *announcer) run(ctx context.Context) error {
	if a.mode == AnnounceOff {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(passInterval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			a.again(now)
			a.pass(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// changed is called after a join or leave and before its answer. Among few members
// the others are told at once.
func (a *announcer) changed(now time.Time) {
	if members, receivers := a.r.size(); a.mode != AnnounceOff && members <= fewMembers && receivers <= fewMembers {
		a.pass(now)
	}
}

// start makes a session hear from now on: of what comes after its own first join,
// or, where it comes back with a version, after that.
func (a *announcer) start(s *session, m *member, since string) {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	if s.hear.started {
		return
	}
	s.hear = hearing{started: true, place: m.logged + 1, due: m.announced.Add(a.refresh)}
	if v, ok := a.version(since); ok && s.ext {
		s.hear.place = v
	}
	if n := len(a.r.order); n > 0 {
		s.hear.round = rand.IntN(n)
	}
}

// version reads a version that this server gave out and still has; the caller
// holds roster.mu.
func (a *announcer) version(text string) (uint64, bool) {
	if len(text) <= len(a.boot) || text[:len(a.boot)] != a.boot {
		return 0, false
	}
	v, err := strconv.ParseUint(text[len(a.boot):], 36, 64)
	return v, err == nil && v <= a.r.version && a.r.version-v <= uint64(len(a.r.log))
}

func (a *announcer) format(v uint64) string { return a.boot + strconv.FormatUint(v, 36) }

// pass tells receivers what is new: passMost of them, since each costs a write; what
// comes until they are visited again is joined into one. The lock is given up now
// and then; who is missed meanwhile is told in the next round.
func (a *announcer) pass(now time.Time) {
	for visits := 0; visits < passMost; visits += passStep {
		if a.step(now) {
			return
		}
	}
}

// step visits some receivers; true when they were the last.
func (a *announcer) step(now time.Time) (ended bool) {
	a.r.mu.Lock()
	defer a.unlock()
	few := len(a.r.order) <= fewMembers
	if few || a.next >= len(a.r.receivers) {
		a.next = 0
	}
	var last batch
	to := min(a.next+passStep, len(a.r.receivers))
	for _, s := range a.r.receivers[a.next:to] {
		a.tell(s, now, &last)
		if now.Before(s.hear.due) {
			continue
		}
		switch {
		case a.mode == AnnounceAll && !few && !s.ext:
			a.postpone(s, now)
			a.nextBatch(s)
		case a.mode == AnnounceSample:
			a.postpone(s, now)
			a.resample(s)
		}
	}
	a.next = to
	return to == len(a.r.receivers)
}

// unlock gives up roster.mu and writes what was sent under it.
func (a *announcer) unlock() {
	said := a.said
	a.said = nil
	a.r.mu.Unlock()
	if said != nil {
		said.Flush()
	}
}

// sendTo sends to one receiver; unlock flushes. The caller holds roster.mu.
func (a *announcer) sendTo(s *session, m socketio.Msg) {
	if a.said == nil {
		a.said = &socketio.Flusher{}
	}
	m.By = a.said
	_ = s.sock.Send(flow.Control, m) // one that ends needs to hear nothing
}

// postpone sets when a receiver's refresh is due again: an interval later, or at
// some time within it where this one was late.
func (a *announcer) postpone(s *session, now time.Time) {
	if s.hear.due = s.hear.due.Add(a.refresh); now.After(s.hear.due) {
		s.hear.due = now.Add(time.Duration(rand.Int64N(int64(a.refresh)) + 1))
	}
}

// tell gives one receiver what the log has for it. The caller holds roster.mu.
func (a *announcer) tell(s *session, now time.Time, last *batch) {
	to := a.r.version
	if !s.hear.started || s.hear.place == to || s.full() {
		return
	}
	from := max(s.hear.place, to-uint64(len(a.r.log)))
	if second := now.Unix(); second != s.hear.second {
		s.hear.second, s.hear.heard = second, 0
	}
	most := a.limits.NewPerSecond - s.hear.heard
	if most <= 0 {
		a.hit(limitNewMembers)
		if !s.ext {
			s.hear.place = to // the refresh tells the rest
		}
		return
	}
	switch {
	case a.mode == AnnounceSample:
		s.hear.place = to
		a.tellSample(s, from, to)
	case s.ext:
		a.tellPeers(s, from, to, most)
	default:
		a.tellNew(s, from, to, most, last)
	}
}

// entry is entry v of the log.
func (r *roster) entry(v uint64) change { return r.log[v%logSize] }

// tellNew sends ws-peer for what came since.
func (a *announcer) tellNew(s *session, from, to uint64, most int, last *batch) {
	s.hear.place = to
	own := s.only()
	if own == nil || own.logged < from || own.logged >= to {
		if last.from != from || last.to != to || last.most != most || last.count == 0 {
			*last = a.newBatch(from, to, most, nil)
		}
		s.hear.heard += last.count
		a.send(s, last.msg, last.count)
		return
	}
	b := a.newBatch(from, to, most, own.notice)
	s.hear.heard += b.count
	a.send(s, b.msg, b.count)
}

func (a *announcer) newBatch(from, to uint64, most int, skip *notice) batch {
	b := batch{from: from, to: to, most: most}
	var notices []*notice
	for v := from; v < to && len(notices) < most; v++ {
		if c := a.r.entry(v); !c.left && !c.gone.Load() && c.notice != skip {
			notices = append(notices, c.notice)
		}
	}
	b.msg, b.count = announcement(notices), len(notices)
	return b
}

// announcement is one message of all notices.
func announcement(notices []*notice) socketio.Msg {
	if len(notices) == 1 {
		return socketio.Msg{Frames: notices[0].frame, Texts: [][]byte{notices[0].text()}}
	}
	n := 0
	for _, no := range notices {
		n += len(no.frame)
	}
	m := socketio.Msg{Frames: make([]byte, 0, n), Texts: make([][]byte, 0, len(notices))}
	for _, no := range notices {
		m.Frames = append(m.Frames, no.frame...)
		m.Texts = append(m.Texts, no.text())
	}
	return m
}

func (a *announcer) send(s *session, m socketio.Msg, count int) {
	if count == 0 {
		return
	}
	a.count("peer", count)
	a.sendTo(s, m)
}

// tellPeers sends the difference to a session with extensions: new members within
// its budget, so that a flood comes little by little.
func (a *announcer) tellPeers(s *session, from, to uint64, most int) {
	state := map[*notice]bool{} // true: came; false: left
	var list []*notice
	v := from
	for ; v < to && len(list) < most; v++ {
		c := a.r.entry(v)
		if own := s.only(); own != nil && own.addr == c.addr {
			continue // also one of an earlier connection
		}
		if _, seen := state[c.notice]; !seen {
			list = append(list, c.notice)
		} else if c.left && state[c.notice] {
			delete(state, c.notice) // came and left since: nothing to tell
			continue
		}
		state[c.notice] = !c.left
	}
	s.hear.place = v
	var added, removed []string
	for _, n := range list {
		if came, there := state[n]; there && came && !n.gone.Load() {
			added = append(added, n.addr)
		} else if there && !came {
			removed = append(removed, n.addr)
		}
	}
	s.hear.heard += len(added)
	if len(added)+len(removed) > 0 {
		a.sendPeers(s, v, added, removed)
	}
}

func (a *announcer) sendPeers(s *session, v uint64, added, removed []string) {
	var b wire.Builder
	text := b.Event(nil, wire.NoAck, eventPeers).Str(a.format(v)).Strs(added).Strs(removed).Done()
	a.count("peers", 1)
	a.sendTo(s, socketio.Msg{Text: text})
}

// again announces, among few, each member an interval after the last time, to all
// but itself: exactly as the reference does.
func (a *announcer) again(now time.Time) {
	a.r.mu.Lock()
	defer a.unlock()
	if len(a.r.order) > fewMembers || len(a.r.receivers) > fewMembers || a.mode != AnnounceAll {
		return
	}
	for _, m := range a.r.order {
		if now.Sub(m.announced) < a.refresh {
			continue
		}
		if m.announced = m.announced.Add(a.refresh); now.Sub(m.announced) >= a.refresh {
			m.announced = now // after a pause, no catching up
		}
		msg := announcement([]*notice{m.notice})
		for _, s := range a.r.receivers {
			if own := s.only(); !s.ext && own != m && !s.full() {
				a.send(s, msg, 1)
			}
		}
	}
}

// nextBatch gives a receiver the next members of the round. The caller holds
// roster.mu.
func (a *announcer) nextBatch(s *session) {
	n := min(a.limits.RefreshBatch, len(a.r.order))
	if s.full() {
		return
	}
	if n < len(a.r.order) {
		a.hit(limitBatch)
	}
	own := s.only()
	notices := make([]*notice, 0, n)
	for range n {
		if s.hear.round >= len(a.r.order) {
			s.hear.round = 0
		}
		if m := a.r.order[s.hear.round]; m != own {
			notices = append(notices, m.notice)
		}
		s.hear.round++
	}
	a.send(s, announcement(notices), len(notices))
}
