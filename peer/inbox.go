package peer

import (
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// inbox is what a peer knows of one epoch of a remote's outbox: what was taken,
// what was settled and how. It outlives its streams for Config.Remember, so that
// in one epoch each message is taken once. Guarded by the peer's mu.
type inbox struct {
	peer    *Peer
	key     inboxKey
	stream  *inStream // nil when there is none
	touched time.Time

	base      uint64           // what was up to it, nobody here knows
	taken     uint64           // highest seq that a session took
	final     uint64           // everything up to it is settled
	pending   deque[*delivery] // final+1 and on, as far as offered
	unsettled int              // cost of pending
	runs      []run            // final levels, contiguous, oldest first
	answers   []answer         // refusals and replies the remote has not confirmed, as they came
	kept      int              // bytes of answers
}

type inboxKey struct {
	currentKey
	epoch [epochSize]byte
}

// currentKey names the one stream of a remote for a protocol that is served.
type currentKey struct {
	remote   identity.PeerID
	protocol network.Protocol
}

// run says that everything up to seq, and behind the run before it, ended at
// level.
type run struct{ seq, level uint64 }

// answer is the refusal of a message, or the reply to it.
type answer struct {
	seq   uint64
	reply *network.Content // nil for a refusal
	code  identity.Code
	text  string
}

func (a *answer) size() int {
	if a.reply != nil {
		return len(a.reply.Data) + messageCost
	}
	return len(a.text) + messageCost
}

// maxRuns bounds what is kept of levels: older ones merge into the lower level.
const maxRuns = 64

// deliveryTaken notes that a session has d. The caller holds mu.
func (in *inbox) deliveryTaken(d *delivery) {
	in.taken = max(in.taken, d.seq)
	in.advance()
	st := in.stream
	switch {
	case st == nil:
	case d.settled: // from within Receive
		st.settledNow(d)
	default:
		st.takenNow(d)
	}
}

// deliverySettled notes d's verdict. The caller holds mu.
func (in *inbox) deliverySettled(d *delivery) {
	v := d.verdict
	switch {
	case v.level == verdictRefused:
		in.keep(answer{seq: d.seq, code: v.code, text: v.text})
	case v.reply != nil:
		in.keep(answer{seq: d.seq, reply: v.reply})
	}
	in.advance()
	if st := in.stream; st != nil && d.seq <= in.taken {
		st.settledNow(d)
	}
}

// keep keeps an answer until it is confirmed. One that doesn't fit is replaced
// by a refusal that says so.
func (in *inbox) keep(a answer) {
	if a.reply != nil && in.kept+a.size() > in.peer.cfg.Outbox {
		a = answer{seq: a.seq, code: identity.CodeQueueFull, text: "too many replies at once"}
	}
	in.answers = append(in.answers, a)
	in.kept += a.size()
}

// confirm forgets what the remote needs to know no more: all up to seq. It
// returns how many of the answers dropped the stream had told.
func (in *inbox) confirm(seq uint64) (told int) {
	for len(in.runs) > 0 && in.runs[0].seq <= seq {
		in.runs = in.runs[1:]
	}
	kept := in.answers[:0]
	in.kept = 0
	for i, a := range in.answers {
		if a.seq <= seq {
			if st := in.stream; st != nil && i < st.toldAnswers {
				told++
			}
			continue
		}
		kept = append(kept, a)
		in.kept += a.size()
	}
	clear(in.answers[len(kept):])
	in.answers = kept
	return told
}

// advance settles what is contiguous: acks are cumulative.
func (in *inbox) advance() {
	for in.pending.len() > 0 {
		d := in.pending.at(0)
		if !d.settled || d.seq > in.taken {
			return
		}
		in.pending.pop()
		in.unsettled -= d.cost
		in.final = d.seq
		level := d.verdict.level
		if level == verdictRefused {
			level = wireHandled // told by its refusal
		}
		if n := len(in.runs); n > 0 && in.runs[n-1].level == level {
			in.runs[n-1].seq = d.seq
		} else {
			in.addRun(run{d.seq, level})
		}
		if st := in.stream; st != nil {
			st.release(d.cost)
		}
	}
}

func (in *inbox) addRun(r run) {
	if len(in.runs) >= maxRuns {
		in.runs[1].level = min(in.runs[0].level&15, in.runs[1].level&15) | 16
		in.runs = append(in.runs[:0], in.runs[1:]...)
	}
	in.runs = append(in.runs, r)
}

// findInbox gives the inbox of an epoch, or makes it. nil means that there is no
// room. The caller holds mu.
func (p *Peer) findInbox(key inboxKey, next uint64) *inbox {
	if in := p.inboxes[key]; in != nil {
		return in
	}
	now := time.Now()
	if !p.roomForInbox(key.remote, now) {
		return nil
	}
	in := &inbox{peer: p, key: key, touched: now, base: next - 1, taken: next - 1, final: next - 1}
	p.inboxes[key] = in
	p.armSweeper()
	return in
}

// roomForInbox forgets the oldest inbox without a stream where the tables are
// full: the remote's own first.
func (p *Peer) roomForInbox(remote identity.PeerID, now time.Time) bool {
	var own, oldest *inbox
	owned := 0
	for _, in := range p.inboxes {
		mine := in.key.remote == remote
		if mine {
			owned++
		}
		if in.stream != nil {
			continue
		}
		if mine && (own == nil || in.touched.Before(own.touched)) {
			own = in
		}
		if oldest == nil || in.touched.Before(oldest.touched) {
			oldest = in
		}
	}
	switch {
	case owned >= p.cfg.MaxRemoteInboxes:
		return p.forget(own, now)
	case len(p.inboxes) >= p.cfg.MaxInboxes:
		return p.forget(oldest, now)
	}
	return true
}

// forget drops an inbox before its time; from now on an epoch that isn't known
// may have been met.
func (p *Peer) forget(in *inbox, now time.Time) bool {
	if in == nil {
		return false
	}
	delete(p.inboxes, in.key)
	p.memory = now
	return true
}

// remembers is for how long every epoch that was met has been remembered.
func (p *Peer) remembers(now time.Time) time.Duration {
	return min(now.Sub(p.memory), p.cfg.Remember)
}

// sweep forgets inboxes whose last stream ended long ago, and old ids.
func (p *Peer) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	now := time.Now()
	for key, in := range p.inboxes {
		if in.stream == nil && now.Sub(in.touched) >= p.cfg.Remember {
			delete(p.inboxes, key)
		}
	}
	p.seen.sweep(now)
	p.sweeper = nil
	if len(p.inboxes) > 0 || len(p.seen.remotes) > 0 {
		p.armSweeper()
	}
}

// armSweeper sees to it that what is remembered is forgotten in time. The caller
// holds mu.
func (p *Peer) armSweeper() {
	if p.sweeper == nil && !p.closed {
		p.sweeper = time.AfterFunc(p.cfg.Remember/2, p.sweep)
	}
}
