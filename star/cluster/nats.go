package cluster

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/parley-p2p/parley/identity"
)

// The connection to NATS: who this server is there, and the two buckets.

// connect reaches NATS, hears what is sent to this server, and opens the buckets.
func (c *Cluster) connect(ctx context.Context) (err error) {
	ctx, refused := context.WithCancelCause(ctx)
	defer refused(nil)
	opts, err := c.opts.nats(c.name, refused, c.readAgain)
	if err != nil {
		return identity.Errorf(identity.CodeMalformed, "star: cluster: %w", err)
	}
	if c.nc, err = nats.Connect(c.opts.URL, opts...); err != nil {
		return c.refusal("", err)
	}
	if err = c.listen(ctx); err == nil {
		err = c.buckets(ctx)
	}
	if err != nil {
		c.nc.Close()
		return err
	}
	if _, err := c.nc.TLSConnectionState(); err != nil && !c.nearby() {
		c.log.Warn("NATS is reached without TLS: whoever is in between can join as anybody")
	}
	return nil
}

// listen subscribes to what others send to this server.
func (c *Cluster) listen(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if c.sub, err = c.nc.SubscribeSync(c.opts.subject(c.name)); err == nil {
		err = c.nc.FlushWithContext(ctx) // NATS answers in order: a refusal has come by then
	}
	if err == nil {
		err = c.nc.LastError()
	}
	if err != nil {
		return c.refusal("", err)
	}
	_ = c.sub.SetPendingLimits(1<<20, 1<<29) // beyond it something is lost, and noticed
	return nil
}

// refusal is an error of the start, by its kind.
func (c *Cluster) refusal(what string, err error) error {
	code := identity.CodeUnreachable
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		code = identity.CodeForbidden
	case isAuth(err):
		code = identity.CodeUnauthorized
	}
	return identity.Errorf(code, "star: cluster: %sNATS at %s: %w", what, c.opts.hosts(), err)
}

// isAuth says whether NATS takes this server for nobody that it knows.
func isAuth(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// buckets opens the two buckets, or makes them. NATS may be just starting: it is
// asked until ctx ends.
func (c *Cluster) buckets(ctx context.Context) error {
	for {
		_, err := c.openBuckets(ctx)
		if err == nil {
			return nil
		}
		if !pause(ctx, 250*time.Millisecond) {
			if cause := context.Cause(ctx); errors.Is(cause, nats.ErrPermissionViolation) {
				err = cause
			}
			return c.refusal("buckets in ", err)
		}
	}
}

// markerLife is how long the registry remembers that a member left; longer than
// any reading of it is behind.
const markerLife = time.Minute

// openBuckets opens the two buckets; made says that one was missing.
func (c *Cluster) openBuckets(ctx context.Context) (made bool, err error) {
	js, err := jetstream.New(c.nc)
	if err != nil {
		return false, err
	}
	replicas := c.opts.Replicas
	if replicas == 0 {
		if replicas = 1; c.nc.ConnectedClusterName() != "" {
			replicas = 3
		}
	}
	leases, made1, err := bucket(ctx, js, jetstream.KeyValueConfig{Bucket: c.opts.bucket("STAR_SERVERS"),
		Description: "parley stars that are alive", TTL: c.opts.Times.Life, Storage: jetstream.MemoryStorage, Replicas: replicas})
	if err != nil {
		return false, err
	}
	members, made2, err := bucket(ctx, js, jetstream.KeyValueConfig{Bucket: c.opts.bucket("STAR_MEMBERS"),
		Description: "who is at which parley star", LimitMarkerTTL: markerLife, Storage: jetstream.FileStorage, Replicas: replicas})
	if err == nil && c.leasesKV == nil {
		c.leasesKV, c.membersKV = leases, members
	}
	return made1 || made2, err
}

func bucket(ctx context.Context, js jetstream.JetStream, cfg jetstream.KeyValueConfig) (kv jetstream.KeyValue, made bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	kv, err = js.KeyValue(ctx, cfg.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, cfg)
		made = err == nil
	}
	return kv, made, err
}

// bucketInfo is how the bucket of members is.
func (c *Cluster) bucketInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	status, err := c.membersKV.Status(ctx)
	if err != nil {
		return nil, err
	}
	bucket, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, errors.New("no stream")
	}
	return bucket.StreamInfo(), nil
}

// remake makes buckets that NATS has lost: leases don't survive where its only
// server starts anew, members neither where that kept nothing.
func (c *Cluster) remake(ctx context.Context) {
	if !c.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Times.Renew)
	defer cancel()
	switch made, err := c.openBuckets(ctx); {
	case made:
		c.log.Warn("NATS had lost what stars keep there; it is written again")
		c.readAgain()
	case err != nil:
		c.log.Debug("buckets in NATS", "error", err)
	}
}

// pause waits; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// nearby says whether NATS is on this machine.
func (c *Cluster) nearby() bool {
	host, _, err := net.SplitHostPort(c.nc.ConnectedAddr())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// nats are the connection's options. refused is called where NATS doesn't let this
// server do something, back when it is there again.
func (o *Options) nats(name string, refused func(error), back func()) ([]nats.Option, error) {
	opts := []nats.Option{nats.Name("parley star " + name), nats.CustomInboxPrefix(o.subject("inbox." + name)),
		nats.Timeout(5 * time.Second), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 400*time.Millisecond), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(o.Times.Life),
		nats.IgnoreAuthErrorAbort(), // a password that is being changed must not end the star
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil at this server's own end
				o.Log.Warn("NATS is out of reach", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			o.Log.Info("NATS is back", "server", nc.ConnectedServerName())
			back()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			o.Log.Warn("NATS", "error", err)
			if errors.Is(err, nats.ErrPermissionViolation) {
				refused(err)
			}
		})}
	if o.Credentials != "" {
		who, err := credentials(o.Credentials)
		if err != nil {
			return nil, err
		}
		opts = append(opts, who)
	}
	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}
	if o.Cert != "" {
		opts = append(opts, nats.ClientCert(o.Cert, o.Key))
	}
	if o.Dialer != nil {
		opts = append(opts, nats.SetCustomDialer(o.Dialer))
	}
	return opts, nil
}

// credentials reads who this server is in NATS: a JWT with its seed, or an nkey's
// seed alone. The file is read again at each connection.
func credentials(file string) (nats.Option, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "cluster-creds: %w", err)
	}
	if strings.Contains(string(text), "NATS USER JWT") {
		return nats.UserCredentials(file), nil
	}
	who, err := nats.NkeyOptionFromSeed(file)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "cluster-creds: %s holds neither a user's JWT nor an nkey's seed", file)
	}
	return who, nil
}

// hosts names the servers of NATS without what else is in their URLs.
func (o *Options) hosts() string {
	var list []string
	for one := range strings.SplitSeq(o.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil {
			list = append(list, u.Host)
		}
	}
	return strings.Join(list, ", ")
}
