package transport

import (
	"cmp"
	"slices"
	"time"
)

// Status is how one star is doing.
type Status struct {
	Address  string // without id
	State    State
	Since    time.Time     // of the state
	Error    error         // why it isn't joined, or was not before; nil once joined
	RTT      time.Duration // of the last question; 0: none was answered yet
	Members  int           // others that were seen there
	Streams  int           // connections over it
	In, Out  int64         // bytes of them, since the star is used
	Extended bool          // it speaks parley's extensions: credit, differences
	Limited  bool          // connections over it are limited
	OnDemand bool          // joined for a dial alone
}

// Status lists the stars in use, by address.
func (t *Transport) Status() []Status {
	t.mu.Lock()
	var out []Status
	sessions := make([][]*session, 0, len(t.stars))
	for _, s := range t.stars {
		st := Status{Address: s.at.Server(), State: s.state, Since: s.since, Error: s.err, RTT: time.Duration(s.rtt.Load()),
			In: s.in.Load(), Out: s.out.Load(), OnDemand: s.listener == nil, Limited: s.opts.Budget.Dial > 0 || s.opts.Budget.Day > 0,
			Members: s.book.len()}
		own := append([]*session(nil), s.old...)
		if s.session != nil {
			st.Extended = s.session.ext
			st.Limited = st.Limited || s.session.policy.Bytes > 0 || s.session.policy.Seconds > 0
			own = append(own, s.session)
		}
		out, sessions = append(out, st), append(sessions, own)
	}
	t.mu.Unlock()
	for i, own := range sessions {
		for _, sess := range own {
			n, _ := sess.count()
			out[i].Streams += n
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Address, b.Address) })
	return out
}

// Traffic is the bytes of all connections over stars so far, also of stars that are
// no longer in use.
func (t *Transport) Traffic() (in, out int64) { return t.in.Load(), t.out.Load() }
