package star

import "math/rand/v2"

// list makes the end of the answer to a join: null and the addresses, as JSON: others
// than addr, the newest first, a random sample where there are more than fit.
func (a *announcer) list(s *session, addr string) []byte {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	const head, comma = "null,[", 1 + len(`""`)
	most := 0
	if a.mode == AnnounceAll {
		most = min(len(a.r.order), a.limits.ListInAck) * (len(addr) + comma) // others are about as long
	}
	out := append(make([]byte, 0, len(head)+most+most/16+1), head...)
	add := func(n *notice) {
		if len(out) > len(head) {
			out = append(out, ',')
		}
		out = append(out, n.quoted()...)
	}
	switch {
	case a.mode == AnnounceOff:
	case a.mode == AnnounceSample:
		if len(s.hear.sample) == 0 {
			s.hear.sample = a.pick(s, sampleSize)
		}
		for _, n := range s.hear.sample {
			add(n)
		}
	case len(a.r.order) <= a.limits.ListInAck+1:
		for i := len(a.r.order) - 1; i >= 0; i-- {
			if m := a.r.order[i]; m.addr != addr {
				add(m.notice)
			}
		}
	default:
		a.hit(limitList)
		a.sampleList(addr, add)
	}
	return append(out, ']')
}

// sampleList adds the newest members, then others from a random place on. The
// caller holds roster.mu.
func (a *announcer) sampleList(addr string, add func(*notice)) {
	most := a.limits.ListInAck
	newest := make(map[*notice]bool, most/4)
	r := a.r
	for v := r.version; v > 0 && r.version-v < uint64(len(r.log)) && len(newest) < most/4; v-- {
		if c := r.entry(v - 1); !c.left && !c.gone.Load() && c.addr != addr && !newest[c.notice] {
			newest[c.notice] = true
			add(c.notice)
		}
	}
	at, listed := rand.IntN(len(r.order)), len(newest)
	for range r.order {
		if listed == most {
			return
		}
		at = (at + 1) % len(r.order)
		if m := r.order[at]; m.addr != addr && !newest[m.notice] {
			add(m.notice)
			listed++
		}
	}
}
