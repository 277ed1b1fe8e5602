package star

import (
	"math/rand/v2"
	"slices"
)

// Announcements with AnnounceSample (star.md §11.1, S-15): a member hears of at
// most sampleSize others, chosen at random, and no one can list them all.
//
//  1. the answer to a join fills the sample
//  2. a pass takes those out who left, and lets new members in where there is room
//  3. an interval later what is left of the sample is announced again and filled up
const sampleSize = 16

// tellSample lets new members into a sample that has room. The caller holds
// roster.mu.
func (a *announcer) tellSample(s *session, from, to uint64) {
	var added, left []*notice
	for v := from; v < to; v++ {
		c := a.r.entry(v)
		switch own := s.only(); {
		case own != nil && own.notice == c.notice:
		case c.left && s.unsample(c.notice):
			left = append(left, c.notice)
		case !c.left && !c.gone.Load() && len(s.hear.sample) < sampleSize:
			s.hear.sample = append(s.hear.sample, c.notice)
			added = append(added, c.notice)
		}
	}
	a.sendSample(s, added, left)
}

func (s *session) unsample(n *notice) bool {
	i := slices.Index(s.hear.sample, n)
	if i >= 0 {
		s.hear.sample = slices.Delete(s.hear.sample, i, i+1)
	}
	return i >= 0
}

// resample announces a sample again and fills it up at random. The caller holds
// roster.mu.
func (a *announcer) resample(s *session) {
	if s.full() {
		return
	}
	kept := s.hear.sample[:0]
	var left, added []*notice
	for _, n := range s.hear.sample {
		if n.gone.Load() {
			left = append(left, n)
		} else {
			kept = append(kept, n)
		}
	}
	s.hear.sample = kept
	if !s.ext {
		added = append(added, kept...)
	}
	for _, n := range a.pick(s, sampleSize-len(kept)) {
		s.hear.sample = append(s.hear.sample, n)
		added = append(added, n)
	}
	a.sendSample(s, added, left)
}

// pick chooses up to most others at random that are not in the sample. The caller
// holds roster.mu.
func (a *announcer) pick(s *session, most int) (chosen []*notice) {
	n, own := len(a.r.order), s.only()
	for tries := 0; n > 0 && len(chosen) < most && tries < 4*sampleSize; tries++ {
		m := a.r.order[rand.IntN(n)]
		if m == own || slices.Contains(s.hear.sample, m.notice) || slices.Contains(chosen, m.notice) {
			continue
		}
		chosen = append(chosen, m.notice)
	}
	return chosen
}

func (a *announcer) sendSample(s *session, added, left []*notice) {
	if !s.ext {
		a.send(s, announcement(added), len(added))
		return
	}
	if len(added)+len(left) > 0 {
		a.sendPeers(s, a.r.version, addrs(added), addrs(left))
	}
}

func addrs(notices []*notice) []string {
	list := make([]string, len(notices))
	for i, n := range notices {
		list[i] = n.addr
	}
	return list
}
