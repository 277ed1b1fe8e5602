package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star"
)

// prefixSize is how much of a server's name begins the ids of its sessions.
const prefixSize = 4

// Cluster is one server's part in a cluster.
type Cluster struct {
	// Static after construction.
	opts   Options
	log    *slog.Logger
	name   string // of this start of the server
	secret string
	nc     *nats.Conn
	sub    *nats.Subscription // to what others send to this server
	leasesKV,
	membersKV jetstream.KeyValue
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	out       *flow.Queue[outgoing] // to other servers
	jobs      *flow.Queue[job]      // for the registry
	again     chan struct{}         // the registry is to be read anew

	local star.Local // static after Run began
	bytes atomic.Int64
	dials atomic.Uint64 // numbers of dials that began here

	// Owned by watch.
	bucketMade time.Time // when the bucket of members was

	// Guarded by mu.
	mu     sync.Mutex
	leases *leases
	table  *members
	ear    hearing
	loaded bool // the table is whole
	cutOff time.Time

	// Guarded by linkMu.
	linkMu sync.Mutex
	links  map[linkKey]*link
}

var _ star.Registry = (*Cluster)(nil)

// New connects to NATS and makes the buckets where they are missing, until ctx
// ends. The connection is closed by Run, or by Close where Run is not called. Errors:
// CodeMalformed for the options, CodeUnauthorized and CodeForbidden where NATS knows
// nobody with these credentials or doesn't let them do what a star does,
// CodeUnreachable for the rest; none holds a password.
func New(ctx context.Context, o Options) (*Cluster, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var random [44]byte
	_, _ = rand.Read(random[:]) // never fails
	text := base64.RawURLEncoding.EncodeToString(random[:])
	c := &Cluster{opts: o, log: o.Log, name: text[:nameSize], secret: text[nameSize:], out: flow.NewQueue[outgoing](1 << 30),
		jobs: flow.NewQueue[job](1 << 30), again: make(chan struct{}, 1), links: map[linkKey]*link{}}
	c.leases, c.table = newLeases(c.name, o.Times.Life), newMembers(c.name)
	if err := c.forwarder(); err != nil {
		return nil, err
	}
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connection to NATS. It is for a Cluster that is not run.
func (c *Cluster) Close() { c.nc.Close() }

// Prefix begins the ids of this server's sessions.
func (c *Cluster) Prefix() string { return c.name[:prefixSize] }

// Name is the server's in the cluster, of this start.
func (c *Cluster) Name() string { return c.name }

// Bytes is how many bytes of streams went to and came from other servers.
func (c *Cluster) Bytes() int64 { return c.bytes.Load() }

// Ready says whether this server's lease is valid, and all members are known.
func (c *Cluster) Ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loaded && c.leases.valid(time.Now())
}

// lastWords bounds the end of a server: giving back what it had.
const lastWords = 5 * time.Second

// Run keeps the server in the cluster until ctx ends, then gives back its members,
// and its lease last.
func (c *Cluster) Run(ctx context.Context, local star.Local) error {
	defer c.nc.Close()
	c.local = local
	work, stop := context.WithCancel(context.Background())
	defer stop()
	hard, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	group, failed := errgroup.WithContext(work)
	group.Go(func() error { return c.renew(failed) })
	group.Go(func() error { return c.watch(failed) })
	group.Go(func() error { return c.read(failed, c.sub) })
	ending, _ := errgroup.WithContext(hard)
	ending.Go(func() error { return c.write(hard) })
	ending.Go(func() error { return c.janitor(hard) })
	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	limit := time.AfterFunc(lastWords, giveUp)
	defer limit.Stop()
	c.jobs.Close(errEnded)
	c.out.Close(errEnded)
	_ = ending.Wait() // ends with its queues
	stop()
	err := group.Wait()
	if c.nc.IsConnected() { // otherwise it runs out by itself
		last, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		if err := c.leasesKV.Delete(last, c.name); err != nil {
			c.log.Warn("the lease could not be given back", "error", err)
		}
	}
	c.transport.CloseIdleConnections()
	return err
}

var errEnded = &identity.Error{Code: identity.CodeClosed, Text: "the cluster has ended"}

// renew writes the lease, again and again.
func (c *Cluster) renew(ctx context.Context) error {
	value := encodeLease(leaseEntry{URL: c.internalURL(), Secret: c.secret})
	for {
		at := time.Now()
		once, cancel := context.WithTimeout(ctx, c.opts.Times.Renew)
		_, err := c.leasesKV.Put(once, c.name, value)
		cancel()
		wait := time.Until(at.Add(c.opts.Times.Renew))
		if err == nil {
			c.mu.Lock()
			lapsed := c.leases.own(at)
			c.mu.Unlock()
			if lapsed {
				c.log.Warn("the lease had run out; members are written again")
			}
			if lapsed || c.deaf(ctx) {
				c.readAgain()
			}
		} else {
			c.log.Debug("lease not renewed", "error", err)
			c.remake(ctx)
			wait = c.opts.Times.Renew / 4
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// deaf says whether changes of members have stopped to come: what sends them may have
// died with a NATS server, and NATS itself notices that much later.
func (c *Cluster) deaf(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Times.Renew/2)
	defer cancel()
	bucket, err := c.bucketInfo(ctx)
	if err != nil {
		return false
	}
	c.mu.Lock()
	deaf := c.loaded && c.ear.deaf(bucket.State.LastSeq)
	c.mu.Unlock()
	if deaf {
		c.log.Warn("changes of members did not come from NATS; all are read again")
	}
	return deaf
}

// readAgain makes watch read the whole registry.
func (c *Cluster) readAgain() {
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// internalURL is how other servers reach this one; "" where they can't.
func (c *Cluster) internalURL() string {
	if c.opts.Internal != "" {
		return c.opts.Internal
	}
	u, err := url.Parse(c.local.URL())
	if err != nil || u.Host == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		seen, err := c.nc.GetClientIP()
		if err != nil {
			return ""
		}
		host = seen.String()
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}
