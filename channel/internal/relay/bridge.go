package relay

import (
	"context"
	"sync"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
)

// Allowance of one direction of a bridge: what the relay may hold of it.
const (
	firstAllowance = 32 << 10
	maxAllowance   = 256 << 10
)

// bridge joins two channels at a relay: contents go through byte for byte, and
// credit end to end (docs/spec/channels.md §11).
//
//	creator ──▶ near leg │ far leg ──▶ target      contents, closes, errors
//	creator ◀── near leg │ far leg ◀── target      and the credit for them back
type bridge struct {
	// static after it was made
	service  *Service
	contract *contract // whose quota it counts against
	from, to identity.AgentID
	born     time.Time
	legs     [2]*leg // near, far

	// guarded by mu
	mu     sync.Mutex
	active time.Time
	ended  bool
}

// leg is one end of a bridge: the channel to one of the two agents, and the
// direction of what that agent sends. Its fields are guarded by bridge.mu.
type leg struct {
	bridge *bridge
	other  *leg
	stream *conn.Stream // nil until the channel to the target was created

	granted   int64 // credit given to this agent
	forwarded int64 // of that, what has left towards the other agent
	pending   int64 // credit the other agent gave that was not passed on yet
	allowance int64
	costs     []int32  // of what waits to leave, oldest first
	bytes     uint64   // contents in all
	early     [][]byte // contents that came before the target's channel was there
	accepted  bool     // a first window has been passed on to this agent
}

func newBridge(s *Service, c *contract, from, to identity.AgentID, now time.Time) *bridge {
	b := &bridge{service: s, contract: c, from: from, to: to, born: now, active: now}
	for i := range b.legs {
		b.legs[i] = &leg{bridge: b, granted: firstAllowance, allowance: firstAllowance}
	}
	b.legs[0].other, b.legs[1].other = b.legs[1], b.legs[0]
	b.legs[1].accepted = true // the target needs no answer to its acceptance
	return b
}

// Content forwards what this agent sent.
func (l *leg) Content(_ *conn.Stream, content, record []byte) {
	b := l.bridge
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return
	}
	b.active = time.Now()
	l.bytes += uint64(len(content))
	if most := b.contract.policy.Bytes; most > 0 && l.bytes > most {
		b.mu.Unlock()
		b.end(conn.Limit, "the relay carries no more bytes on this channel")
		return
	}
	out := l.other.stream
	if out == nil {
		l.early = append(l.early, append([]byte{}, content...))
		b.mu.Unlock()
		return
	}
	l.costs = append(l.costs, costOf(content))
	out.Forward(content, record)
	b.mu.Unlock()
	b.service.bytes.Add(int64(len(content)))
}

func costOf(content []byte) int32 { return int32(max(len(content), 32)) }

// attach sets the channel of a leg and sends what waited for it.
func (l *leg) attach(s *conn.Stream) {
	b := l.bridge
	b.mu.Lock()
	if l.stream == nil {
		l.stream = s
		from := l.other
		for _, content := range from.early {
			from.costs = append(from.costs, costOf(content))
			s.Forward(content, nil)
		}
		from.early = nil
	}
	ended := b.ended
	b.mu.Unlock()
	if ended {
		s.Close()
	}
}

// Sent takes note that the oldest content for this agent has left.
func (l *leg) Sent(*conn.Stream) {
	b := l.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	from := l.other
	if len(from.costs) == 0 {
		return
	}
	from.forwarded += int64(from.costs[0])
	if from.costs = from.costs[1:]; len(from.costs) == 0 {
		from.costs = nil
	}
	from.passCredit()
}

// Window passes on the credit that this agent gave. The first window is also
// the target's acceptance.
func (l *leg) Window(s *conn.Stream, add uint32) {
	l.attach(s)
	b := l.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	to := l.other
	to.pending += int64(add)
	if !to.accepted && to.stream != nil {
		to.accepted = true
		to.stream.Grant(0)
	}
	to.passCredit()
}

// passCredit grants this agent what it may have: no more than the other agent
// granted, and no more than has left plus the allowance. It is called with the
// lock held.
func (l *leg) passCredit() {
	if l.pending == 0 || l.stream == nil || l.bridge.ended {
		return
	}
	room := l.allowance - (l.granted - l.forwarded)
	if l.pending > room && l.allowance < maxAllowance && l.bridge.service.takeBuffer(l.allowance) {
		room += l.allowance
		l.allowance *= 2
	}
	if l.pending > room && room*2 < l.allowance {
		return // many small windows would cost more than they bring
	}
	add := min(l.pending, room)
	if add <= 0 {
		return
	}
	l.granted += add
	l.pending -= add
	l.stream.Grant(uint32(add))
}

// Ended passes on how one end has ended.
func (l *leg) Ended(s *conn.Stream, err *conn.Error) {
	b := l.bridge
	if !b.finish() {
		return
	}
	b.mu.Lock()
	out := l.other.stream
	b.mu.Unlock()
	if err != nil && err.Code == conn.BadFrom && l == b.legs[1] {
		b.service.remember(b.from, b.to)
	}
	switch {
	case out == nil: // whoever opens it finds the bridge ended
	case err == nil:
		out.Close()
	case err.Code == conn.Lost:
		out.End(conn.BadTo, "the relay has lost the other agent")
	default:
		out.End(err.Code, err.Text)
	}
}

// end ends both legs with an error.
func (b *bridge) end(code conn.Code, text string) {
	if !b.finish() {
		return
	}
	b.mu.Lock()
	near, far := b.legs[0].stream, b.legs[1].stream
	b.mu.Unlock()
	for _, s := range []*conn.Stream{near, far} {
		if s != nil {
			s.Fail(code, text)
		}
	}
}

// expire closes both legs, then says why.
func (b *bridge) expire() { b.end(conn.RelayExpired, "the contract with the relay has ended") }

// finish takes the bridge off the relay; the first caller gets true.
func (b *bridge) finish() bool {
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return false
	}
	b.ended = true
	held := b.legs[0].allowance + b.legs[1].allowance
	b.legs[0].early, b.legs[1].early = nil, nil
	b.mu.Unlock()
	b.service.finished(b, held)
	return true
}

// open creates the far leg and joins it. It runs in a goroutine of the node.
func (b *bridge) open(ctx context.Context, to Client, o conn.Opening) {
	far := b.legs[1]
	o.Sink = far
	s, err := to.Conn().Open(ctx, o)
	if err != nil {
		b.end(conn.BadTo, "the relay can't reach the agent")
		return
	}
	far.attach(s)
}
