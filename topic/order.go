package topic

import (
	"encoding/binary"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// How long a message may wait for those before it (gateway.md §6.2), what may
// wait for one publisher, and how much is followed.
const (
	orderWindow     = 250 * time.Millisecond
	orderAlert      = time.Second      // all are, after paths changed
	orderWatch      = 10 * time.Second // publishers seen out of order are watched so long
	orderHeld       = 256
	orderHeldBytes  = 1 << 20
	orderPublishers = 4096
	orderSequences  = 4       // of one publisher: its key may be in use on several nodes
	orderJump       = 1 << 24 // numbers further apart aren't of one sequence
	replayMarks     = 8       // of a sequence, markEvery apart; see sequence.marks
	markEvery       = 15 * time.Second
)

// order puts one publisher's messages back into its order. Routers, links and
// the single validation worker keep order already, so mostly it only watches. A
// publisher's router numbers all it sends, in all topics and for all its pages,
// so a gap in the numbers is no sign of a missing message by itself; waiting at
// every gap would cost each message up to the window. Messages behind a gap
// therefore wait only where order is at risk: after a message came late (paths
// of different length, a router that shuffles), or while the paths change.
//
// It also refuses what was heard long ago: the router forgets a message after
// 120 s, and would then take it again from whoever kept it. Publishers whose
// numbers jump (js-libp2p draws them) are passed on as they come.
type order struct {
	publishers map[identity.PeerID]*publisher
	holding    int       // sequences that hold something
	alert      time.Time // every publisher is watched until then
	late       uint64    // messages passed on behind a later one; the reader takes them
	replayed   uint64    // messages refused as heard before; the reader takes them
}

type publisher struct {
	sequences []*sequence
	seenAt    time.Time
}

// sequence is what one router numbers for a publisher.
type sequence struct {
	last   uint64
	seenAt time.Time // when the last one was passed on
	watch  time.Time // gaps are waited at until then
	held   []remoteMessage
	bytes  int

	// marks are what last was, markEvery apart, oldest first: what isn't above
	// the oldest was numbered over 105 s ago.
	marks  [replayMarks]uint64
	marked time.Time
}

// remoteMessage is a publication that came from the router.
type remoteMessage struct {
	from    identity.PeerID
	seq     uint64
	content network.Content
	size    int       // of its form on the wire
	due     time.Time // when it is passed on, whatever is missing
}

// parseMessage reads what came from the router; ok is false where it is not JSON.
func parseMessage(msg *pubsub.Message) (m remoteMessage, ok bool) {
	if len(msg.GetData()) > MaxMessage || !network.ValidJSON(msg.GetData()) {
		return remoteMessage{}, false
	}
	m = remoteMessage{from: msg.GetFrom(), content: network.FromJSON(msg.GetData()), size: len(msg.GetData())}
	if seq := msg.GetSeqno(); len(seq) == 8 {
		m.seq = binary.BigEndian.Uint64(seq)
	}
	return m, true
}

func newOrder() *order { return &order{publishers: make(map[identity.PeerID]*publisher)} }

// disturb says that paths changed at that time.
func (o *order) disturb(at time.Time) {
	if until := at.Add(orderAlert); until.After(o.alert) {
		o.alert = until
	}
}

// holds reports whether anything waits, so that expire must be called.
func (o *order) holds() bool { return o.holding > 0 }

// add takes a message and appends to out what may be passed on.
func (o *order) add(m remoteMessage, now time.Time, out []remoteMessage) []remoteMessage {
	s, fresh := o.sequence(m, now)
	if fresh {
		return append(out, m)
	}
	s.mark(now)
	if int64(m.seq-s.marks[0]) <= 0 {
		o.replayed++
		return out
	}
	gap := int64(m.seq - s.last)
	if gap <= 0 {
		o.late++
		s.watch = now.Add(orderWatch)
		return append(out, m)
	}
	had := len(s.held) > 0
	if gap > 1 && (had || now.Before(s.watch) || now.Before(o.alert)) {
		out = s.hold(m, now, out)
	} else {
		s.last, s.seenAt = m.seq, now
		out = s.follow(append(out, m), now)
	}
	o.count(had, len(s.held) > 0)
	return out
}

func (o *order) count(had, has bool) {
	if has && !had {
		o.holding++
	} else if had && !has {
		o.holding--
	}
}

// sequence gives the one that m is of, fresh where m begins it.
func (o *order) sequence(m remoteMessage, now time.Time) (s *sequence, fresh bool) {
	p, known := o.publishers[m.from]
	if !known {
		o.makeRoom()
		p = &publisher{}
		o.publishers[m.from] = p
	}
	p.seenAt = now
	for _, s := range p.sequences {
		if gap := int64(m.seq - s.last); gap <= orderJump && gap >= -orderJump {
			return s, false
		}
	}
	s = &sequence{last: m.seq, seenAt: now, marked: now}
	for i := range s.marks {
		s.marks[i] = m.seq - orderJump - 1 // nothing was heard before
	}
	if len(p.sequences) < orderSequences {
		p.sequences = append(p.sequences, s)
		return s, true
	}
	oldest := -1
	for i, old := range p.sequences {
		if len(old.held) == 0 && (oldest < 0 || old.seenAt.Before(p.sequences[oldest].seenAt)) {
			oldest = i
		}
	}
	if oldest >= 0 {
		p.sequences[oldest] = s
	}
	return s, true
}

// mark moves the marks on as time passes.
func (s *sequence) mark(now time.Time) {
	for n := 0; now.Sub(s.marked) >= markEvery; n++ {
		if n == replayMarks { // silent for long: all of them say the same now
			s.marked = now
			return
		}
		copy(s.marks[:], s.marks[1:])
		s.marks[replayMarks-1] = s.last
		s.marked = s.marked.Add(markEvery)
	}
}

// hold keeps m behind the gap before it. Over the bound the first ones leave.
func (s *sequence) hold(m remoteMessage, now time.Time, out []remoteMessage) []remoteMessage {
	m.due = now.Add(orderWindow)
	at, there := slices.BinarySearchFunc(s.held, m.seq, func(h remoteMessage, seq uint64) int {
		return int(int64(h.seq - seq))
	})
	if there {
		return out
	}
	s.held = slices.Insert(s.held, at, m)
	s.bytes += m.size
	for len(s.held) > orderHeld || s.bytes > orderHeldBytes {
		out = s.release(out, now)
	}
	return s.follow(out, now)
}

// release passes on the first that is held.
func (s *sequence) release(out []remoteMessage, now time.Time) []remoteMessage {
	m := s.held[0]
	s.held = slices.Delete(s.held, 0, 1)
	s.bytes -= m.size
	s.last, s.seenAt = m.seq, now
	return append(out, m)
}

// follow passes on what is held and has no gap before it any more.
func (s *sequence) follow(out []remoteMessage, now time.Time) []remoteMessage {
	for len(s.held) > 0 && int64(s.held[0].seq-s.last) <= 1 {
		out = s.release(out, now)
	}
	return out
}

// expire passes on what has waited long enough, and all that is before it. It
// gives the time when the next will have, zero for none.
func (o *order) expire(now time.Time, out []remoteMessage) (passed []remoteMessage, next time.Time) {
	for _, p := range o.publishers {
		for _, s := range p.sequences {
			had := len(s.held) > 0
			out = s.expire(now, out)
			o.count(had, len(s.held) > 0)
			for _, m := range s.held {
				if next.IsZero() || m.due.Before(next) {
					next = m.due
				}
			}
		}
	}
	return out, next
}

func (s *sequence) expire(now time.Time, out []remoteMessage) []remoteMessage {
	ready := 0
	for i, m := range s.held {
		if !now.Before(m.due) {
			ready = i + 1
		}
	}
	for ; ready > 0; ready-- {
		out = s.release(out, now)
	}
	return s.follow(out, now)
}

// makeRoom forgets the publisher that has been silent longest, where there are
// too many.
func (o *order) makeRoom() {
	if len(o.publishers) < orderPublishers {
		return
	}
	var oldest identity.PeerID
	var at time.Time
	for id, p := range o.publishers {
		holds := slices.ContainsFunc(p.sequences, func(s *sequence) bool { return len(s.held) > 0 })
		if !holds && (at.IsZero() || p.seenAt.Before(at)) {
			oldest, at = id, p.seenAt
		}
	}
	delete(o.publishers, oldest)
}
