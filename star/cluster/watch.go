package cluster

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What the registry tells, in one goroutine:
//
//	1. both buckets are read whole: leases first, then members
//	2. from then on each change is applied as it comes
//	3. twice a renewal, leases that ran out are noticed: members of that server are
//	   absent, streams to it end, its entries are swept
//	4. where this server's own lease ran out, all is read anew

// watch keeps the tables until ctx ends.
func (c *Cluster) watch(ctx context.Context) error {
	for {
		if err := c.watchOnce(ctx); err != nil {
			c.log.Debug("watching the registry", "error", err)
		}
		if !pause(ctx, c.opts.Times.Renew/8) {
			return nil
		}
	}
}

// watchOnce watches until something is to begin anew.
func (c *Cluster) watchOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.sameBucket(ctx); err != nil {
		return err
	}
	servers, err := c.leasesKV.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer stopWatching(servers)
	members, err := c.membersKV.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer stopWatching(members)
	if !c.readAll(ctx, servers, members) {
		return nil
	}
	ticker := time.NewTicker(c.opts.Times.Renew / 4)
	defer ticker.Stop()
	for {
		select {
		case u, ok := <-servers.Updates():
			if !ok {
				return nil
			}
			c.onServer(u, time.Now())
		case u, ok := <-members.Updates():
			if !ok {
				return nil
			}
			c.onMember(u, time.Now())
		case now := <-ticker.C:
			if !c.catchUp(servers) || c.unheard(now) {
				return nil
			}
			c.tick(now)
		case <-c.again:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// sameBucket forgets what is known where the bucket of members was made anew: its
// revisions, which are the epochs, begin again.
func (c *Cluster) sameBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Times.Life)
	defer cancel()
	bucket, err := c.bucketInfo(ctx)
	if err != nil {
		return err
	}
	first := c.bucketMade.IsZero()
	same := bucket.Created.Equal(c.bucketMade)
	c.bucketMade = bucket.Created
	if first || same {
		return nil
	}
	c.mu.Lock()
	gone, own := c.table.forget()
	c.mu.Unlock()
	for _, e := range gone {
		c.local.Absent(e.Place, e.rev)
	}
	for _, o := range own {
		c.local.Renewed(o.Place, o.rev, 0)
	}
	return nil
}

// catchUp applies the renewals that have come, so that nobody is taken for dead
// because this server was slow to read; false where the watcher has ended.
func (c *Cluster) catchUp(servers jetstream.KeyWatcher) bool {
	for {
		select {
		case u, ok := <-servers.Updates():
			if !ok {
				return false
			}
			c.onServer(u, time.Now())
		default:
			return true
		}
	}
}

// unheard says that the own lease, which was written, did not come back: what sends
// changes has ended, and all is to be read anew.
func (c *Cluster) unheard(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	deaf := c.leases.deaf(now, c.opts.Times.Renew/2)
	if deaf {
		c.log.Warn("leases did not come from NATS; all is read again")
	}
	return deaf
}

// stopWatching ends a watcher, which may be waiting to be read until it is closed.
func stopWatching(w jetstream.KeyWatcher) {
	_ = w.Stop()
	for range w.Updates() {
	}
}

// readAll applies what the registry holds to begin with; false where it didn't
// come in time.
func (c *Cluster) readAll(ctx context.Context, servers, members jetstream.KeyWatcher) bool {
	limit := time.NewTimer(c.opts.Times.Life + 10*time.Second)
	defer limit.Stop()
	next := func(w jetstream.KeyWatcher) (u jetstream.KeyValueEntry, ok bool) {
		select {
		case u, ok = <-w.Updates():
			return u, ok
		case <-limit.C:
		case <-ctx.Done():
		}
		return nil, false
	}
	for {
		u, ok := next(servers)
		if !ok {
			return false
		} else if u == nil {
			break
		}
		c.onServer(u, time.Now())
	}
	all := map[string]*entry{}
	for {
		u, ok := next(members)
		if !ok {
			return false
		} else if u == nil {
			break
		}
		if e := c.entry(u); e != nil && u.Operation() == jetstream.KeyValuePut {
			all[u.Key()] = e
		}
	}
	c.replace(all, time.Now())
	return true
}

// entry decodes a member; nil for rubbish.
func (c *Cluster) entry(u jetstream.KeyValueEntry) *entry {
	if u.Operation() != jetstream.KeyValuePut {
		return nil
	}
	cl, server, err := decodeMember(u.Key(), u.Value())
	if err != nil {
		c.log.Warn("an entry of the registry can't be read", "key", u.Key())
		return nil
	}
	return &entry{Claim: cl, server: server, rev: u.Revision()}
}

// replace applies a whole reading.
func (c *Cluster) replace(all map[string]*entry, now time.Time) {
	c.mu.Lock()
	gone, again := c.table.replace(all)
	var show, strays []*entry
	for key, e := range all {
		news, lost := c.table.put(key, e)
		live := c.leases.mentioned(e.server, now)
		switch {
		case e.server == c.name:
			if c.table.own[key] == nil {
				strays = append(strays, e)
			}
		case lost != nil || news && live:
			show = append(show, e)
		}
	}
	c.loaded = true
	c.ear.began()
	c.mu.Unlock()
	for _, e := range gone {
		c.local.Absent(e.Place, e.rev)
	}
	for _, e := range show {
		c.local.Present(e.elsewhere())
	}
	for _, e := range strays {
		c.do(job{kind: jobStray, key: keyOf(e.Place)})
	}
	for _, key := range again {
		c.do(job{kind: jobAgain, key: key})
	}
}

// onMember applies one change of a member.
func (c *Cluster) onMember(u jetstream.KeyValueEntry, now time.Time) {
	if u == nil {
		return
	}
	c.mu.Lock()
	c.ear.came(u.Revision())
	c.mu.Unlock()
	if u.Operation() != jetstream.KeyValuePut {
		c.onLeft(u.Key(), u.Revision())
		return
	}
	e := c.entry(u)
	if e == nil {
		return
	}
	c.mu.Lock()
	news, lost := c.table.put(u.Key(), e)
	live := c.leases.mentioned(e.server, now)
	c.mu.Unlock()
	if news && e.server != c.name && (live || lost != nil) {
		c.local.Present(e.elsewhere())
	}
}

func (c *Cluster) onLeft(key string, rev uint64) {
	c.mu.Lock()
	old, again := c.table.drop(key, rev)
	c.mu.Unlock()
	if old != nil {
		c.local.Absent(old.Place, rev)
	}
	if again { // somebody swept it, who took this server for dead
		c.do(job{kind: jobAgain, key: key})
	}
}

// onServer applies one change of a lease.
func (c *Cluster) onServer(u jetstream.KeyValueEntry, now time.Time) {
	if u == nil || !validName(u.Key()) {
		return
	}
	name := u.Key()
	if u.Operation() != jetstream.KeyValuePut {
		c.mu.Lock()
		left := c.leases.left(name)
		c.mu.Unlock()
		if left {
			c.log.Info("a server has left", "server", name)
			c.serverGone(name)
		}
		return
	}
	l, err := decodeLease(u.Value())
	if err != nil {
		c.log.Warn("a lease of the registry can't be read", "server", name)
		return
	}
	c.mu.Lock()
	fresh := c.leases.heard(name, l, now)
	var show []*entry
	if fresh {
		show = c.table.of(name)
	}
	c.mu.Unlock()
	if fresh {
		c.log.Info("a server is there", "server", name)
	}
	for _, e := range show {
		c.local.Present(e.elsewhere())
	}
}

// tick notices who is gone.
func (c *Cluster) tick(now time.Time) {
	connected := c.nc.IsConnected()
	c.mu.Lock()
	dead := c.leases.expire(now)
	if connected {
		c.cutOff = time.Time{}
	} else if c.cutOff.IsZero() {
		c.cutOff = now
	}
	cut := !c.cutOff.IsZero() && now.Sub(c.cutOff) > c.opts.Times.Life
	c.mu.Unlock()
	for _, name := range dead {
		c.log.Warn("a server is gone: its lease has run out", "server", name)
		c.serverGone(name)
	}
	if cut { // for the others this server is dead
		c.lose(func(linkKey) bool { return true })
	}
}

// serverGone ends all that had to do with a server.
func (c *Cluster) serverGone(name string) {
	c.mu.Lock()
	entries := c.table.of(name)
	c.mu.Unlock()
	c.lose(func(k linkKey) bool { return k.peer == name })
	for _, e := range entries {
		c.local.Absent(e.Place, e.rev)
	}
	// Whoever is alive sweeps; in different orders they share the work.
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for _, e := range entries {
		c.do(job{kind: jobSweep, key: keyOf(e.Place), rev: e.rev, server: name})
	}
}
