package cluster

import "time"

// lease is what is known of a server.
type lease struct {
	leaseEntry
	seen time.Time // when it was last renewed, by this server's clock
	live bool      // false for one of which only members are known
}

// leases decide who is alive. They know no clock and are not safe for several
// goroutines.
//
// Silence counts by this server's own clock, and only while it can write to the
// registry itself, hears its own lease from there, and looks often enough to have
// heard the others: while NATS elects a leader nobody can renew anything, what tells
// this server of changes may have died with a NATS server that it isn't connected to,
// and nobody is to be taken for dead then.
type leases struct {
	// Static after construction.
	self string
	life time.Duration

	all     map[string]*lease
	renewed time.Time // when this server's own was last written
	echoed  time.Time // when that was last heard
	looked  time.Time // when expire was last called
	suspect bool      // the registry is
}

func newLeases(self string, life time.Duration) *leases {
	return &leases{self: self, life: life, all: map[string]*lease{}}
}

// heard notes a renewal; fresh says that the server was not alive before.
func (l *leases) heard(name string, e leaseEntry, now time.Time) (fresh bool) {
	if name == l.self {
		l.echoed = now
		return false
	}
	old := l.all[name]
	l.all[name] = &lease{leaseEntry: e, seen: now, live: true}
	return old == nil || !old.live
}

// mentioned notes that there is a member of a server, alive or not: where its lease
// doesn't come within a life, it is dead.
func (l *leases) mentioned(name string, now time.Time) (live bool) {
	if name == l.self {
		return true
	}
	one := l.all[name]
	if one == nil {
		one = &lease{seen: now}
		l.all[name] = one
	}
	return one.live
}

// left forgets a server; false where it wasn't known.
func (l *leases) left(name string) bool {
	_, known := l.all[name]
	delete(l.all, name)
	return known
}

// own notes that this server's lease was written; lapsed says that it had run out.
func (l *leases) own(at time.Time) (lapsed bool) {
	lapsed = !l.renewed.IsZero() && at.Sub(l.renewed) > l.life
	l.renewed = at
	return lapsed
}

// valid says whether this server is ready: it is not for long that its lease can't
// be renewed.
func (l *leases) valid(now time.Time) bool {
	return !l.renewed.IsZero() && now.Sub(l.renewed) < l.life*5/6
}

// deaf says that this server's own lease was written a while ago, and not heard.
func (l *leases) deaf(now time.Time, while time.Duration) bool {
	return l.echoed.Before(l.renewed) && now.Sub(l.renewed) > while
}

// expire forgets and gives those whose lease has run out.
func (l *leases) expire(now time.Time) (dead []string) {
	slow := !l.looked.IsZero() && now.Sub(l.looked) > l.life/2
	l.looked = now
	switch {
	case slow || now.Sub(l.renewed) > l.life/2 || now.Sub(l.echoed) > l.life/2:
		l.suspect = true
		return nil
	case l.suspect: // all may renew again, from now on
		l.suspect = false
		for _, one := range l.all {
			one.seen = now
		}
	}
	for name, one := range l.all {
		if now.Sub(one.seen) > l.life {
			dead = append(dead, name)
			delete(l.all, name)
		}
	}
	return dead
}

// find gives a live server.
func (l *leases) find(name string) *lease {
	if one := l.all[name]; one != nil && one.live {
		return one
	}
	return nil
}

// byPrefix gives the live server whose session ids begin so.
func (l *leases) byPrefix(prefix string) *lease {
	for name, one := range l.all {
		if one.live && name[:prefixSize] == prefix {
			return one
		}
	}
	return nil
}
