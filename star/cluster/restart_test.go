package cluster_test

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/socketio"
)

// While the password is changed in NATS a star is cut off and goes on for its own
// members; it is back once NATS knows it again.
func TestPasswordIsChanged(t *testing.T) {
	with := func(password string) func(*server.Options) {
		return func(o *server.Options) { o.Username, o.Password = "star", password }
	}
	s := natstest.Start(t, 1, with("one"))
	n := start(t, s.As("nats://star:one@"), open, cluster.Options{Times: quick})
	l := newLoad(t)
	pa, pb := n.join(addrA), n.join(addrB)
	l.watch(pa)
	l.watch(pb)
	local := l.run(pa, addrA, pb, addrB, "local")
	s.Kill(0)
	s.Restart(0, with("two"))
	eventually(t, "not ready", func() bool { return !n.shared.Ready() })
	local.flows()
	s.Kill(0)
	s.Restart(0, with("one"))
	eventually(t, "ready again", n.shared.Ready)
	n.knows(addrA, addrB)
	local.flows()
	n.join(addrC)
	n.knows(addrA, addrB, addrC)
}

// The only NATS server starts anew, with what it had stored or with nothing: leases
// are lost in any case. All members are known again, each once; a later proof has
// an address as before.
func TestNATSStartsAnew(t *testing.T) {
	for name, change := range map[string]func(*server.Options){
		"with its files":   func(*server.Options) {},
		"with empty hands": func(o *server.Options) { o.StoreDir = t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t, 1)
			proven := star.Options{Drain: -1}
			a, b := start(t, s.URL(), proven, cluster.Options{Times: quick}), start(t, s.URL(), proven, cluster.Options{Times: quick})
			join := func(n *node, addr string, priv crypto.PrivKey, pub string) *testPeer {
				p := connect(t, n.url, socketio.DialOptions{Query: extended})
				if got := p.prove(addr, priv, pub); !strings.HasPrefix(got, "[null,null,") {
					t.Fatal(got)
				}
				return p
			}
			priv, pub, addr := key(t)
			priv2, pub2, other := key(t)
			var first, second *testPeer
			for range 3 { // epochs of now are above those after an empty start
				first, second = join(a, addr, priv, pub), join(b, other, priv2, pub2)
			}
			for _, n := range []*node{a, b} {
				n.knows(addr, other)
			}
			s.Kill(0)
			eventually(t, "not ready", func() bool { return !a.shared.Ready() && !b.shared.Ready() })
			s.Restart(0, change)
			for _, n := range []*node{a, b} {
				eventually(t, "ready again", n.shared.Ready)
				n.knows(addr, other)
			}
			first.dial(addr, other, "after")
			second.wait(`["ss-incomming","after"`)
			moved := join(b, addr, priv, pub)
			first.wait(`["parley.lost","` + addr + `"`)
			for _, n := range []*node{a, b} {
				n.knows(addr, other)
			}
			moved.dial(addr, other, "moved")
			second.wait(`["ss-incomming","moved"`)
		})
	}
}
