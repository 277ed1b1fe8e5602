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
// wait for one publisher, and how many publishers are followed.
const (
	orderWindow     = 250 * time.Millisecond
	orderWatch      = 10 * time.Second // publishers seen out of order are watched so long
	orderHeld       = 256
	orderHeldBytes  = 1 << 20
	orderPublishers = 4096
	orderJump       = 1 << 24 // numbers further apart aren't of one sequence
)

// order puts one publisher's messages back into its order. Routers, links and
// the single validation worker keep order already, so mostly it only watches. A
// publisher's router numbers all it sends, in all topics and for all its pages,
// so a gap in the numbers is no sign of a missing message by itself; waiting at
// every gap would cost each message up to the window. Messages behind a gap
// therefore wait only where order is at risk: after a message came late (paths
// of different length, a router that shuffles), or while the paths change.
//
// Publishers whose numbers jump (js-libp2p draws them) are passed on as they come.
type order struct {
	publishers map[identity.PeerID]*sequence
	alert      time.Time // every publisher is watched until then
	late       uint64    // messages passed on behind a later one; the reader takes them
}

type sequence struct {
	last   uint64
	seenAt time.Time // when the last one was passed on
	watch  time.Time // gaps are waited at until then
	held   []remoteMessage
	bytes  int
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

func newOrder() *order { return &order{publishers: make(map[identity.PeerID]*sequence)} }

// disturb says that paths change now.
func (o *order) disturb(now time.Time) { o.alert = now.Add(time.Second) }

// add takes a message and appends to out what may be passed on.
func (o *order) add(m remoteMessage, now time.Time, out []remoteMessage) []remoteMessage {
	s, known := o.publishers[m.from]
	if !known {
		o.makeRoom()
		o.publishers[m.from] = &sequence{last: m.seq, seenAt: now}
		return append(out, m)
	}
	gap := int64(m.seq - s.last)
	switch {
	case gap > orderJump || gap < -orderJump || gap == 1:
	case gap <= 0:
		o.late++
		s.watch = now.Add(orderWatch)
		return append(out, m)
	case now.Before(s.watch) || now.Before(o.alert):
		return s.hold(m, now, out)
	}
	s.last, s.seenAt = m.seq, now
	return s.follow(append(out, m), now)
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
	for _, s := range o.publishers {
		ready := 0
		for i, m := range s.held {
			if !now.Before(m.due) {
				ready = i + 1
			}
		}
		for ; ready > 0; ready-- {
			out = s.release(out, now)
		}
		out = s.follow(out, now)
		for _, m := range s.held {
			if next.IsZero() || m.due.Before(next) {
				next = m.due
			}
		}
	}
	return out, next
}

// holds reports whether anything waits, so that expire must be called.
func (o *order) holds() bool {
	for _, s := range o.publishers {
		if len(s.held) > 0 {
			return true
		}
	}
	return false
}

// makeRoom forgets the publisher that has been silent longest, where there are
// too many; what it had waiting is empty by then or it isn't chosen.
func (o *order) makeRoom() {
	if len(o.publishers) < orderPublishers {
		return
	}
	var oldest identity.PeerID
	var at time.Time
	for p, s := range o.publishers {
		if len(s.held) == 0 && (at.IsZero() || s.seenAt.Before(at)) {
			oldest, at = p, s.seenAt
		}
	}
	delete(o.publishers, oldest)
}
