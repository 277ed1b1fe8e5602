package star

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/proxy"
)

// Registry is what several servers behind one name share (star.md §12). A server
// alone has none; star/cluster has one over NATS. Its methods may be called from
// any goroutine.
type Registry interface {
	// Prefix begins the ids of this server's sessions.
	Prefix() string
	// Ready says whether this server's lease is valid.
	Ready() bool
	// Bytes is how many bytes of streams went to and came from other servers.
	Bytes() int64

	// Run keeps the lease, the table of members and the streams between servers
	// until ctx ends, then gives back what this server has, its lease last.
	Run(ctx context.Context, local Local) error
	// Close is for a Registry that is not run.
	Close()

	// Claim makes a place this server's, with an epoch above all that it had before.
	// An error is an *identity.Error whose text is the answer to the join: it waits
	// for at most 5 s.
	Claim(ctx context.Context, c Claim) (epoch uint64, err error)
	// Release gives a place back, unless somebody else has it by now. It does not
	// block.
	Release(place string, epoch uint64)

	// Wire leads to the server of a member, for one dial.
	Wire(t Target) proxy.Wire
	// Forward sends a request of a session to the server that has it; false where
	// there is none.
	Forward(w http.ResponseWriter, r *http.Request, sid string) bool
}

// Claim asks for a place in the registry.
type Claim struct {
	Place   string // the address, with one name for hosts that are equal
	Address string // as it was joined
	Key     string // hash of the proven id; "" without challenge
	Session uint64 // number of the session
}

// Target is the other server of a dial, and which ownership of the two addresses
// is meant.
type Target struct {
	Server    string
	Epoch     uint64 // of the callee's address
	FromEpoch uint64 // of the dialer's
}

// Elsewhere is a member that another server has.
type Elsewhere struct {
	Claim
	Server string
	Epoch  uint64
}

// Local is what a Registry tells the server about. The calls don't block and may
// come from several goroutines; those about one place come in the order of its
// epochs, or are decided by them.
type Local interface {
	// URL is how other servers reach this one: scheme, host and port; the host is
	// empty where it listens on all interfaces.
	URL() string
	// Present tells of a member elsewhere; it is heard of again when anything about
	// it changes. A member here with an older epoch has lost its address.
	Present(e Elsewhere)
	// Absent tells that nobody is at a place, but for who came after epoch.
	Absent(place string, epoch uint64)
	// Renewed tells of a new epoch of a member here.
	Renewed(place string, old, epoch uint64)
	// Dialled asks for a dial from another server to a member here. The reason why
	// it can't begin is given back.
	Dialled(t Target, req proxy.Request, credit int64, w proxy.Wire) (refused string)
}

// clusterEnd is the server as its Registry sees it.
type clusterEnd struct{ srv *Server }

// URL is that of the server's own port.
func (e clusterEnd) URL() string {
	if e.srv.listener == nil {
		return ""
	}
	if ip, err := netip.ParseAddr(e.srv.opts.Host); err == nil && ip.IsUnspecified() {
		return e.srv.uri("")
	}
	return e.srv.URI()
}

// Present puts somebody else's member into the roster.
func (e clusterEnd) Present(m Elsewhere) {
	srv := e.srv
	lost, news := srv.roster.elsewhere(m, time.Now())
	if lost != nil {
		lost.sess.tellLost(lost.addr, "taken over by its owner at another server")
	}
	if news {
		srv.announcer.changed(time.Now())
	}
}

// Absent takes one out.
func (e clusterEnd) Absent(place string, epoch uint64) {
	if e.srv.roster.absent(place, epoch) {
		e.srv.announcer.changed(time.Now())
	}
}

// Renewed notes an epoch.
func (e clusterEnd) Renewed(place string, old, epoch uint64) { e.srv.roster.renew(place, old, epoch) }

// Dialled starts the callee's part of a dial.
func (e clusterEnd) Dialled(t Target, req proxy.Request, credit int64, w proxy.Wire) (refused string) {
	srv := e.srv
	if srv.draining.Load() {
		return sayShutdown
	}
	if from, err := address.Canonical(req.From); err != nil || from != req.From {
		return address.ErrInvalid.Text
	}
	m := srv.roster.called(t, req.From, req.To)
	if m == nil {
		return sayNotFound // also for a stale epoch (S-8)
	}
	return srv.engine.AcceptFar(m.sess.side, w, req, credit)
}

// share runs the registry, whose failure is group's. leave, to be called when all
// sessions have ended, gives back what the server had.
func (srv *Server) share(work context.Context, group *errgroup.Group) (leave func() error) {
	if srv.opts.Registry == nil {
		return func() error { return nil }
	}
	ctx, end := context.WithCancel(context.Background())
	failed, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.opts.Registry.Run(ctx, clusterEnd{srv}); err != nil {
			failed <- err
		}
	}()
	group.Go(func() error {
		select {
		case err := <-failed:
			return err
		case <-work.Done():
			return nil
		}
	})
	return func() error {
		end()
		<-ended
		select {
		case err := <-failed:
			return err
		default:
			return nil
		}
	}
}

// claim makes an address this server's in the registry; epoch 0 where there is
// none. The session's socket is not read meanwhile.
func (s *session) claim(addr, key string) (epoch uint64, say string) {
	registry := s.srv.opts.Registry
	if registry == nil {
		return 0, ""
	}
	s.sock.Hold()
	defer s.sock.Release()
	epoch, err := registry.Claim(s.sock.Context(), Claim{Place: s.srv.roster.lookup(addr), Address: addr, Key: key, Session: s.number})
	var e *identity.Error
	switch {
	case err == nil:
		return epoch, ""
	case errors.As(err, &e) && known[e.Text]:
		return 0, e.Text
	}
	return 0, sayNoRegistry
}

// left tells the registry of members that are no longer here.
func (srv *Server) left(members ...*member) {
	if srv.opts.Registry == nil {
		return
	}
	for _, m := range members {
		srv.opts.Registry.Release(m.place, srv.roster.epochOf(m))
	}
}

// dialElsewhere dials a member that another server has.
func (srv *Server) dialElsewhere(s *session, m *member, req proxy.Request) {
	t := srv.roster.target(m, req.From)
	srv.engine.DialFar(s.side, srv.opts.Registry.Wire(t), req)
}

// keyHash is how a key is counted, here and across the cluster.
func keyHash(id string) string {
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
