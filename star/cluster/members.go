package cluster

import "github.com/parley-p2p/parley/star"

// entry is a member as the registry has it.
type entry struct {
	star.Claim
	server string
	rev    uint64
}

func (e *entry) elsewhere() star.Elsewhere {
	return star.Elsewhere{Claim: e.Claim, Server: e.server, Epoch: e.rev}
}

// claim is an address that this server has.
type claim struct {
	star.Claim
	rev uint64 // 0: not written in this bucket yet

	again bool // it was written again, in place of was: the star may not know yet
	was   uint64
}

// members are the registry's entries as this server has heard of them, and its own
// claims. They know no clock and no network, and are not safe for several
// goroutines.
type members struct {
	self string
	all  map[string]*entry // by key
	own  map[string]*claim
}

func newMembers(self string) *members {
	return &members{self: self, all: map[string]*entry{}, own: map[string]*claim{}}
}

// put notes an entry; false where a later one is known. lost is the claim here that
// it ends: of two owners the later proof wins.
func (m *members) put(key string, e *entry) (news bool, lost *claim) {
	if old := m.all[key]; old != nil && old.rev >= e.rev {
		return false, nil
	}
	m.all[key] = e
	if own := m.own[key]; own != nil && e.server != m.self && own.rev < e.rev {
		delete(m.own, key)
		lost = own
	}
	return true, lost
}

// drop notes that an entry is gone, by revision. again says that it was this
// server's, which still wants it.
func (m *members) drop(key string, rev uint64) (old *entry, again bool) {
	old = m.all[key]
	if old != nil && old.rev < rev {
		delete(m.all, key)
	} else {
		old = nil
	}
	own := m.own[key]
	return old, own != nil && own.rev < rev
}

// of lists the entries of a server.
func (m *members) of(server string) (list []*entry) {
	for _, e := range m.all {
		if e.server == server {
			list = append(list, e)
		}
	}
	return list
}

// replace takes a whole new reading of the registry: gone are the entries that are
// no longer there, again the keys of this server's claims that it doesn't have as
// they were written.
func (m *members) replace(all map[string]*entry) (gone []*entry, again []string) {
	for key, old := range m.all {
		if _, there := all[key]; !there {
			gone = append(gone, old)
			delete(m.all, key)
		}
	}
	for key, own := range m.own {
		if e := all[key]; e == nil || e.server == m.self && e.rev != own.rev {
			again = append(again, key)
		}
	}
	return gone, again
}

// forget drops all that was read: revisions begin anew, so those of before say
// nothing any more. Its claims are kept as the oldest there can be; own gives what
// they were.
func (m *members) forget() (gone []*entry, own []claim) {
	for _, e := range m.all {
		gone = append(gone, e)
	}
	clear(m.all)
	for key, old := range m.own {
		own = append(own, *old)
		m.own[key] = &claim{Claim: old.Claim}
	}
	return gone, own
}

// hearing decides whether changes of members still come. It is asked now and then
// with the last revision that the registry has.
type hearing struct {
	heard uint64 // the last that came
	last  uint64 // the last there was when it was asked before
	fresh bool   // all has just been read
}

func (h *hearing) began()          { h.fresh = true }
func (h *hearing) came(rev uint64) { h.heard = max(h.heard, rev) }

// deaf says that what the registry had the last time has not come by now. What was
// read as a whole need not end with the last revision: that may have expired.
func (h *hearing) deaf(last uint64) bool {
	if h.fresh {
		h.fresh, h.heard, h.last = false, last, last
		return false
	}
	missed := h.last > h.heard
	h.last = last
	return missed
}
