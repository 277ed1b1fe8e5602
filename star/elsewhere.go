package star

import "time"

// What the roster knows of members that other servers have (star.md §12). Epochs
// decide: of two owners of an address the later proof wins, on both servers.

// elsewhere puts a member of another server in. lost is the member here that it
// replaces, news says whether the others are to be told.
func (r *roster) elsewhere(e Elsewhere, now time.Time) (lost *member, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	prev := r.byAddr[e.Place]
	switch {
	case prev == nil:
	case prev.epoch >= e.Epoch:
		return nil, false
	case prev.sess == nil && prev.server == e.Server && prev.addr == e.Address && prev.key == e.Key:
		prev.epoch = e.Epoch
		return nil, false
	default:
		r.takeOut(prev)
		if prev.sess != nil {
			lost = prev
		}
	}
	r.putIn(&member{notice: newNotice(e.Address), place: e.Place, key: e.Key, server: e.Server, epoch: e.Epoch, announced: now})
	return lost, true
}

// absent takes a member of another server out, unless a later one is there.
func (r *roster) absent(place string, epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.byAddr[place]
	if m == nil || m.sess != nil || m.epoch > epoch {
		return false
	}
	r.takeOut(m)
	return true
}

// renew notes that a member here has a new epoch.
func (r *roster) renew(place string, old, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.byAddr[place]; m != nil && m.sess != nil && m.epoch == old {
		m.epoch = epoch
	}
}

func (r *roster) epochOf(m *member) uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return m.epoch
}

// target is what a dial to a member elsewhere means.
func (r *roster) target(m *member, from string) Target {
	at := r.lookup(from)
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := Target{Server: m.server, Epoch: m.epoch}
	if f := r.byAddr[at]; f != nil {
		t.FromEpoch = f.epoch
	}
	return t
}

// called gives the member here that a dial from another server means; nil where
// its epoch is not the member's, or the dialer's address has a later owner.
func (r *roster) called(t Target, from, to string) *member {
	fromAt, toAt := r.lookup(from), r.lookup(to)
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, f := r.byAddr[toAt], r.byAddr[fromAt]
	if m == nil || m.sess == nil || m.epoch != t.Epoch || f != nil && f.server != t.Server && f.epoch > t.FromEpoch {
		return nil
	}
	return m
}
