// Package cluster lets several stars stand behind one name: they share their
// members over NATS, and carry streams for each other (docs/spec/star.md §12). It
// is the star.Registry of each of them.
//
//	        balancer ──▶ any server; sessions of another are forwarded   (forward.go)
//	            │
//	star A ─ Cluster ── KV STAR_SERVERS   leases: who is alive           (lease.go)
//	                 ── KV STAR_MEMBERS   who is where, by epoch         (members.go, claim.go)
//	                 ══ subject of star B dials and pieces, with credit  (message.go, link.go)
//
// A lease is written every 2 s and lives for 6. A member is an entry that is
// written by compare-and-set: its revision is the epoch, so of two servers that
// claim an address the later proof wins on both. Streams run over core subjects,
// which may lose something: messages of a stream are numbered, and a gap ends it
// with an error, on both servers.
//
//	shared, err := cluster.New(ctx, cluster.Options{URL: "nats://nats:4222", Name: "eu"})
//	srv, err := star.New(star.Options{Port: 9090, Registry: shared})
//	err = srv.Run(ctx)
//
// Whoever can read the two buckets and write to the cluster's subjects is trusted:
// the account is to be the cluster's own. What comes is bounded and checked all the
// same.
package cluster
