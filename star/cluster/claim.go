package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star"
)

// A claim (star.md §12, S-8):
//
//	1. the lease is valid, or becomes so in time
//	2. what is known of the address decides: free, another's, or in use
//	3. it is written, by compare-and-set; the revision is the epoch
//	4. where somebody was faster, what is there is read, and decides again
//
// A claim that did not succeed may have been written all the same: the janitor
// looks.

// The answers to a join.
var (
	errInUse       = &identity.Error{Code: identity.CodeRefused, Text: "Address is in use"}
	errUnavailable = &identity.Error{Code: identity.CodeUnreachable, Text: "Registry unavailable"}
)

var errBehind = errors.New("a replica is behind")

// Claim makes a place this server's.
func (c *Cluster) Claim(ctx context.Context, cl star.Claim) (epoch uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Times.Claim)
	defer cancel()
	for !c.Ready() {
		if !pause(ctx, c.opts.Times.Renew/20) {
			return 0, errUnavailable
		}
	}
	key := keyOf(cl.Place)
	c.mu.Lock()
	known := c.table.all[key]
	c.mu.Unlock()
	for {
		rev, err := c.write1(ctx, key, cl, known)
		switch {
		case err == nil:
			c.mu.Lock()
			c.table.own[key] = &claim{Claim: cl, rev: rev}
			c.mu.Unlock()
			return rev, nil
		case errors.Is(err, errInUse):
			return 0, err
		}
		c.log.Debug("claim", "error", err)
		if !pause(ctx, 10*time.Millisecond) {
			c.do(job{kind: jobStray, key: key})
			return 0, errUnavailable
		}
		if now, err := c.get(ctx, key); err == nil {
			known = now
		}
	}
}

// write1 tries once to write a claim over what is known.
func (c *Cluster) write1(ctx context.Context, key string, cl star.Claim, known *entry) (uint64, error) {
	value := encodeMember(cl, c.name)
	if known == nil {
		return c.membersKV.Create(ctx, key, value)
	}
	if known.server != c.name && (cl.Key == "" || known.Key != "" && known.Key != cl.Key) && c.alive(known.server) {
		return 0, errInUse
	}
	return c.membersKV.Update(ctx, key, value, known.rev)
}

func (c *Cluster) alive(server string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leases.find(server) != nil
}

// get reads an entry; nil where there is none.
func (c *Cluster) get(ctx context.Context, key string) (*entry, error) {
	kv, err := c.membersKV.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	cl, server, err := decodeMember(key, kv.Value())
	if err != nil { // rubbish belongs to nobody
		return &entry{rev: kv.Revision()}, nil
	}
	return &entry{Claim: cl, server: server, rev: kv.Revision()}, nil
}

// Release gives a place back.
func (c *Cluster) Release(place string, epoch uint64) {
	key := keyOf(place)
	c.mu.Lock()
	if own := c.table.own[key]; own != nil && (own.rev <= epoch || own.again && own.was == epoch) {
		delete(c.table.own, key)
		epoch = own.rev
	}
	c.mu.Unlock()
	if epoch == 0 { // for NATS that is any revision, another server's too
		c.do(job{kind: jobStray, key: key})
		return
	}
	c.do(job{kind: jobPurge, key: key, rev: epoch})
}

// job is something to do in the registry, which is tried until it is done.
type job struct {
	kind   jobKind
	key    string
	rev    uint64
	server string // that had it, of jobSweep
}

type jobKind uint8

const (
	jobPurge jobKind = iota // an entry of this server
	jobSweep                // one of a server that is gone
	jobStray                // one of this server that may be there although nobody wants it
	jobAgain                // a claim of this server that the registry lost
)

func (c *Cluster) do(j job) { _ = c.jobs.PushAlways(flow.Bulk, j, 1) } // at the end nobody needs it

// sweepers is how many jobs are done at a time.
const sweepers = 8

// janitor does what there is to do until its queue is closed and empty.
func (c *Cluster) janitor(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(sweepers)
	var batch []job
	for {
		var err error
		if batch, err = c.jobs.Pop(ctx, 1, batch[:0]); len(batch) == 0 && err != nil {
			return group.Wait()
		}
		for _, j := range batch {
			group.Go(func() error {
				c.finish(ctx, j)
				return nil
			})
		}
	}
}

// finish does a job, again while the registry is out of reach.
func (c *Cluster) finish(ctx context.Context, j job) {
	for {
		once, cancel := context.WithTimeout(ctx, c.opts.Times.Claim)
		err := c.once(once, j)
		cancel()
		if err == nil || errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists) {
			return
		}
		c.log.Debug("registry", "job", j.kind, "error", err)
		if !pause(ctx, c.opts.Times.Renew/4) {
			return
		}
	}
}

func (c *Cluster) once(ctx context.Context, j job) error {
	switch j.kind {
	case jobSweep:
		if c.alive(j.server) {
			return nil
		}
		return c.purge(ctx, j.key, j.rev)
	case jobStray:
		e, err := c.get(ctx, j.key)
		if err != nil || e == nil || e.server != c.name || c.owns(j.key, e.rev) {
			return err
		}
		return c.purge(ctx, j.key, e.rev)
	case jobAgain:
		return c.claimAgain(ctx, j.key)
	}
	return c.purge(ctx, j.key, j.rev)
}

func (c *Cluster) purge(ctx context.Context, key string, rev uint64) error {
	return c.membersKV.Purge(ctx, key, jetstream.LastRevision(rev), jetstream.PurgeTTL(markerLife))
}

func (c *Cluster) owns(key string, rev uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.table.own[key]
	return own != nil && own.rev == rev
}

// claimAgain writes a claim that the registry lost, unless somebody alive has the
// address by now: watch will tell of that.
func (c *Cluster) claimAgain(ctx context.Context, key string) error {
	c.mu.Lock()
	own := c.table.own[key]
	c.mu.Unlock()
	if own == nil {
		return nil
	}
	e, err := c.get(ctx, key)
	if err != nil {
		return err
	}
	rev := uint64(0)
	switch {
	case e == nil:
		rev, err = c.membersKV.Create(ctx, key, encodeMember(own.Claim, c.name))
	case e.server == c.name && e.rev < own.rev:
		return errBehind
	case e.server == c.name:
		rev = e.rev
	case c.alive(e.server):
		return nil
	default:
		rev, err = c.membersKV.Update(ctx, key, encodeMember(own.Claim, c.name), e.rev)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	now := c.table.own[key]
	if now == own {
		c.table.own[key] = &claim{Claim: own.Claim, rev: rev, again: true, was: own.rev}
	}
	c.mu.Unlock()
	if now == own {
		c.local.Renewed(own.Place, own.rev, rev)
	} else if now == nil { // it left meanwhile
		return c.purge(ctx, key, rev)
	}
	return nil
}
