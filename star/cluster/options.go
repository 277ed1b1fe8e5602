package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-p2p/parley/identity"
)

// Options configures a Cluster. URL is needed.
type Options struct {
	URL  string // of NATS; several with commas
	Name string // servers of one name belong together; "default"

	// Internal is how the other servers reach this one, as http://host:port or
	// https://…; by default the star's own port at the address that NATS sees.
	Internal string

	// Credentials is a file with a NATS user's JWT and seed, or with the seed of an
	// nkey alone.
	Credentials string
	CA          string // file with roots for NATS and for other servers, beside the system's
	Cert, Key   string // files with a client's certificate for NATS

	// Replicas of the two buckets where this server makes them; by default 3 where
	// NATS is a cluster, else 1.
	Replicas int

	Times  Times
	Dialer nats.CustomDialer // instead of TCP, for tests
	Log    *slog.Logger      // nil: none
}

// Times are the rhythm of a cluster. Zero values are the defaults; all servers of
// a cluster must have the same.
type Times struct {
	Life  time.Duration // of a lease; 6 s
	Renew time.Duration // between two writes of it; a third of Life
	Claim time.Duration // for a join to be registered; 5 s
	Check time.Duration // between two checks of all dials; 2 s
}

func (t Times) withDefaults() Times {
	if t.Life <= 0 {
		t.Life = 6 * time.Second
	}
	if t.Renew <= 0 {
		t.Renew = t.Life / 3
	}
	if t.Claim <= 0 {
		t.Claim = 5 * time.Second
	}
	if t.Check <= 0 {
		t.Check = 2 * time.Second
	}
	return t
}

// DefaultName is the name of a cluster that was given none.
const DefaultName = "default"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Validate says what a Cluster can't be made with, all faults at once. What it says
// holds no password.
func (o Options) Validate() error {
	var faults []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	refuse(o.URL == "", "no URL of NATS")
	if o.URL != "" {
		for one := range strings.SplitSeq(o.URL, ",") {
			u, err := url.Parse(strings.TrimSpace(one))
			refuse(err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "", "a URL of NATS is like nats://host:4222 or tls://host:4222")
		}
	}
	refuse(o.Name != "" && !nameForm.MatchString(o.Name), "name %q: 1 to 32 letters, digits, - and _", o.Name)
	if o.Internal != "" {
		u, err := url.Parse(o.Internal)
		refuse(err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil, "this server's own URL is like http://host:port or https://host:port")
	}
	refuse((o.Cert == "") != (o.Key == ""), "certificate and key belong together")
	refuse(o.Replicas < 0 || o.Replicas > 5, "%d replicas: 1 to 5", o.Replicas)
	if err := errors.Join(faults...); err != nil {
		return &identity.Error{Code: identity.CodeMalformed, Text: "star: cluster: " + err.Error(), Err: err}
	}
	return nil
}

// schemes are those of NATS.
var schemes = []string{"nats", "tls", "ws", "wss"}

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	o.Times = o.Times.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, o.Validate()
}

// bucket is the name of a bucket; only clusters with a name of their own have it
// in there.
func (o *Options) bucket(base string) string {
	if o.Name == DefaultName {
		return base
	}
	return base + "_" + o.Name
}

// subject is where a server of this cluster hears.
func (o *Options) subject(server string) string { return "parley.star." + o.Name + "." + server }
