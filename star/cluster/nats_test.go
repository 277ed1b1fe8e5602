package cluster_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
)

// log keeps what servers say.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// works checks that two stars with these options are one cluster, and that nothing
// secret is said.
func works(t *testing.T, url string, o cluster.Options, secrets ...string) {
	t.Helper()
	said := &log{}
	o.Times, o.Log = calm, slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, b := start(t, url, open, o), start(t, url, open, o)
	pa, pb := a.join(addrA), b.join(addrB)
	a.knows(addrA, addrB)
	b.knows(addrA, addrB)
	pa.dial(addrA, addrB, "d")
	pb.wait(`["ss-incomming","d"`)
	pa.chunk("d.dialer", []byte("through NATS"))
	pb.received("d.dialer", 12)
	for _, n := range []*node{a, b} {
		n.stop()
	}
	all := said.String() + a.status() + b.status()
	for _, s := range secrets {
		if strings.Contains(all, s) {
			t.Errorf("%q is said", s)
		}
	}
	for _, bad := range []string{"level=WARN", "level=ERROR"} {
		if i := strings.Index(all, bad); i >= 0 {
			t.Errorf("it says %.300s", all[i:])
		}
	}
}

// fails checks that a start ends with an error of a kind, at once and without
// secrets.
func fails(t *testing.T, url string, o cluster.Options, code identity.Code, want string, secrets ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.URL = url
	c, err := cluster.New(ctx, o)
	for err != nil && strings.Contains(err.Error(), "timeout") && ctx.Err() == nil { // the machine is busy
		c, err = cluster.New(ctx, o)
	}
	if err == nil {
		c.Close()
		t.Fatal("it starts")
	}
	if ctx.Err() != nil {
		t.Error("it tried until it was stopped")
	}
	if identity.CodeOf(err) != code || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v; want %s with %q", identity.CodeOf(err), err, code, want)
	}
	for _, s := range secrets {
		if strings.Contains(err.Error(), s) {
			t.Errorf("%q is in %v", s, err)
		}
	}
}

// Every way to be somebody in NATS that the manual names; and who is nobody there
// is told so at the start.
func TestCredentials(t *testing.T) {
	const secret, wrong = "the-right-words", "the-wrong-words"
	unknown := identity.CodeUnauthorized
	t.Run("password", func(t *testing.T) {
		t.Parallel()
		s := natstest.Start(t, 1, func(o *server.Options) { o.Username, o.Password = "star", secret })
		works(t, s.As("nats://star:"+secret+"@"), cluster.Options{}, secret)
		fails(t, s.As("nats://star:"+wrong+"@"), cluster.Options{}, unknown, "Authorization Violation", wrong)
		fails(t, s.URL(), cluster.Options{}, unknown, "Authorization Violation")
	})
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		s := natstest.Start(t, 1, func(o *server.Options) { o.Authorization = secret })
		works(t, s.As("nats://"+secret+"@"), cluster.Options{}, secret)
		fails(t, s.As("nats://"+wrong+"@"), cluster.Options{}, unknown, "Authorization Violation", wrong)
	})
	t.Run("nkey", func(t *testing.T) {
		t.Parallel()
		_, public, seed := user(t)
		s := natstest.Start(t, 1, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
		works(t, s.URL(), cluster.Options{Credentials: text(t, seed)}, string(seed))
		_, _, other := user(t)
		fails(t, s.URL(), cluster.Options{Credentials: text(t, other)}, unknown, "Authorization Violation", string(other))
	})
	t.Run("credentials", func(t *testing.T) {
		t.Parallel()
		op := newOperator(t)
		s := natstest.Start(t, 1, op.enable)
		file := op.creds(op.account)
		content, _ := os.ReadFile(file)
		works(t, s.URL(), cluster.Options{Credentials: file}, strings.Fields(string(content))[4])
		stranger, _ := nkeys.CreateAccount()
		fails(t, s.URL(), cluster.Options{Credentials: op.creds(stranger)}, unknown, "Authorization Violation")
		fails(t, s.URL(), cluster.Options{Credentials: text(t, []byte("nothing"))}, identity.CodeMalformed, "neither a user's JWT nor an nkey's seed")
		fails(t, s.URL(), cluster.Options{Credentials: "/none"}, identity.CodeMalformed, "/none")
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		own, other := newAuthority(t), newAuthority(t)
		s := natstest.Start(t, 1, own.withTLS(false), func(o *server.Options) { o.Username, o.Password = "star", secret })
		works(t, s.As("tls://star:"+secret+"@"), cluster.Options{CA: own.file}, secret)
		fails(t, s.As("tls://star:"+secret+"@"), cluster.Options{CA: other.file}, identity.CodeUnreachable, "unknown authority", secret)
		fails(t, s.As("tls://star:"+secret+"@"), cluster.Options{}, identity.CodeUnreachable, "unknown authority", secret)
		fails(t, s.As("tls://star:"+wrong+"@"), cluster.Options{CA: own.file}, unknown, "Authorization Violation", wrong)
	})
	t.Run("certificate", func(t *testing.T) {
		t.Parallel()
		own, other := newAuthority(t), newAuthority(t)
		s := natstest.Start(t, 1, own.withTLS(true))
		cert, key := own.issue("star")
		works(t, s.As("tls://"), cluster.Options{CA: own.file, Cert: cert, Key: key})
		cert, key = other.issue("star")
		fails(t, s.As("tls://"), cluster.Options{CA: own.file, Cert: cert, Key: key}, identity.CodeUnreachable, "tls")
		fails(t, s.As("tls://"), cluster.Options{CA: own.file}, identity.CodeUnreachable, "tls")
	})
	t.Run("TLS asked of a server without", func(t *testing.T) {
		t.Parallel()
		s := natstest.Start(t, 1)
		fails(t, s.As("tls://"), cluster.Options{}, identity.CodeUnreachable, "secure connection not available")
	})
}

// What a star's user must be allowed to in NATS, as docs/manual.md lists it, and
// nothing else: the cluster's subjects and its two buckets (star.md §12).
func permissions(name string) *server.Permissions {
	bucket := func(form string) (list []string) {
		for _, b := range []string{"STAR_SERVERS", "STAR_MEMBERS"} {
			list = append(list, strings.ReplaceAll(form, "BUCKET", b+"_"+name))
		}
		return list
	}
	subject := "parley.star." + name + ".>"
	publish := []string{subject, "$JS.API.INFO"}
	for _, form := range []string{"$KV.BUCKET.>", "$JS.API.STREAM.INFO.KV_BUCKET", "$JS.API.STREAM.CREATE.KV_BUCKET",
		"$JS.API.DIRECT.GET.KV_BUCKET.>", "$JS.API.CONSUMER.CREATE.KV_BUCKET.>",
		"$JS.API.CONSUMER.DELETE.KV_BUCKET.>", "$JS.API.CONSUMER.INFO.KV_BUCKET.>", "$JS.FC.KV_BUCKET.>"} {
		publish = append(publish, bucket(form)...)
	}
	return &server.Permissions{Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: []string{subject}}}
}

// limited is a NATS server whose user "star" has permissions.
func limited(t *testing.T, p *server.Permissions) string {
	t.Helper()
	return natstest.Start(t, 1, func(o *server.Options) {
		o.Users = []*server.User{{Username: "star", Password: "x", Permissions: p}}
	}).As("nats://star:x@")
}

func TestPermissions(t *testing.T) {
	t.Run("just enough", func(t *testing.T) {
		t.Parallel()
		works(t, limited(t, permissions("eu")), cluster.Options{Name: "eu"})
	})
	t.Run("of another cluster", func(t *testing.T) {
		t.Parallel()
		fails(t, limited(t, permissions("eu")), cluster.Options{Name: "us"}, identity.CodeForbidden, "parley.star.us.")
	})
	t.Run("no bucket", func(t *testing.T) {
		t.Parallel()
		p := permissions("eu")
		p.Publish.Allow = p.Publish.Allow[:1]
		fails(t, limited(t, p), cluster.Options{Name: "eu"}, identity.CodeForbidden, "$JS.API.STREAM.INFO.KV_STAR_SERVERS_eu")
	})
}
