package cluster_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// three is three stars over three NATS servers, each star with two members and
// streams between all of them.
type three struct {
	t     *testing.T
	nats  *natstest.Servers
	nodes []*node
	peers [][]*testPeer
	load  *load
	cross []*stream // i→j for i≠j, in that order
	local []*stream
}

func at(i, k int) string { return fmt.Sprintf("/ip4/10.0.%d.%d", i, k) }

func newThree(t *testing.T, natsNodes int, times cluster.Times) *three {
	t.Helper()
	w := &three{t: t, nats: natstest.Start(t, natsNodes), load: newLoad(t)}
	for range 3 {
		w.nodes = append(w.nodes, start(t, w.nats.URL(), open, cluster.Options{Times: times}))
	}
	var all []string
	for i, n := range w.nodes {
		var own []*testPeer
		for k := range 2 {
			p := n.join(at(i, k))
			w.load.watch(p)
			own = append(own, p)
			all = append(all, at(i, k))
		}
		w.peers = append(w.peers, own)
	}
	for _, n := range w.nodes {
		n.knows(all...)
	}
	for i := range 3 {
		w.local = append(w.local, w.load.run(w.peers[i][0], at(i, 0), w.peers[i][1], at(i, 1), fmt.Sprint("local", i)))
		for j := range 3 {
			if i != j {
				w.cross = append(w.cross, w.load.run(w.peers[i][0], at(i, 0), w.peers[j][1], at(j, 1), fmt.Sprint("from", i, "to", j)))
			}
		}
	}
	for _, s := range append(w.local, w.cross...) {
		s.flows()
	}
	return w
}

// C-2: a server is killed under load: what crosses it ends with an error, its
// members are gone, everything else goes on; they come back elsewhere.
func TestC_2_ServerKilled(t *testing.T) {
	w := newThree(t, 1, quick)
	all := watch(t, w.nodes[:2], at(0, 0), at(0, 1), at(1, 0), at(1, 1))
	w.nodes[2].kill()
	begin := time.Now()
	var others []*stream
	for _, s := range w.cross {
		switch {
		case strings.HasPrefix(s.id, "from2"):
			s.endsAt(s.to, "dialer", "Star server lost")
		case strings.HasSuffix(s.id, "to2"):
			s.endsAt(s.from, "listener", "Star server lost")
		default:
			others = append(others, s)
		}
	}
	t.Logf("partners heard after %v, of a lease of %v", time.Since(begin), quick.Life)
	for _, s := range append(others, w.local[:2]...) { // also now that the server is known to be dead
		s.flows()
	}
	w.nodes[0].knows(at(0, 0), at(0, 1), at(1, 0), at(1, 1))
	w.nodes[1].join(at(2, 0)) // without challenge: nobody alive has it
	w.nodes[0].knows(at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0))
	w.load.run(w.peers[0][0], at(0, 0), w.peers[1][0], at(1, 0), "later").flows()
	all.nobodyMissed()
}

// C-3: of three NATS servers one is killed under load, the one that leads the
// members: what was lost ends its stream with an error at both ends; streams of one
// server go on, and those between servers that were not on it; nobody is forgotten
// for a moment; new members and dials work again.
func TestC_3_NATSNodeKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("elections of NATS take seconds")
	}
	w := newThree(t, 3, cluster.Times{})
	dead := 0
	for w.nats.Name(dead) != w.nodes[0].shared.At() { // so that something crosses it
		dead++
	}
	w.nats.Lead("STAR_MEMBERS", dead)
	all := watch(t, w.nodes, at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0), at(2, 1))
	hit := map[string]bool{} // streams of servers that were connected to it
	for i, n := range w.nodes {
		for _, s := range w.cross {
			if n.shared.At() == w.nats.Name(dead) && strings.Contains(s.id, fmt.Sprint(i)) {
				hit[s.id] = true
			}
		}
	}
	w.nats.Kill(dead)
	failed := 0
	for _, s := range w.cross {
		switch ended := s.goesOnOrFails(); {
		case ended && !hit[s.id]:
			t.Errorf("stream %s ended, and crosses nothing that was killed", s.id)
		case ended:
			failed++
		}
	}
	t.Logf("%d of %d streams between servers ended with an error, %d crossed what was killed", failed, len(w.cross), len(hit))
	for _, s := range w.local {
		s.flows()
	}
	for i, n := range w.nodes {
		eventually(t, "ready again", n.shared.Ready)
		n.knows(at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0), at(2, 1))
		w.load.run(w.peers[i][0], at(i, 0), w.peers[(i+1)%3][1], at((i+1)%3, 1), fmt.Sprint("after", i)).flows()
	}
	w.nodes[0].join("/ip4/9.9.9.9")
	w.nodes[1].knows(at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0), at(2, 1), "/ip4/9.9.9.9")
	all.nobodyMissed()
}

// C-4: NATS is out of reach of one server, then of all, and comes back: local members,
// dials and streams go on; joins say so; all members are there again, each once.
func TestC_4_NATSCutOff(t *testing.T) {
	times, long := quick, os.Getenv("PARLEY_LONG") != ""
	if long {
		times = cluster.Times{}
	}
	w := newThree(t, 1, times)
	everybody := []string{at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0), at(2, 1)}

	w.nodes[0].gate.Cut()
	end := time.Now().Add(30 * time.Second)
	for _, s := range w.cross {
		switch {
		case strings.HasPrefix(s.id, "from0"):
			s.endsAt(s.to, "dialer", "Star server lost")
			s.endsAt(s.from, "listener", "Star server lost")
		case strings.HasSuffix(s.id, "to0"):
			s.endsAt(s.to, "dialer", "Star server lost")
			s.endsAt(s.from, "listener", "Star server lost")
		default:
			s.flows()
		}
	}
	eventually(t, "not ready without a lease", func() bool { return !w.nodes[0].shared.Ready() })
	w.local[0].flows()
	if got := w.nodes[0].status(); !strings.Contains(got, `"state":"alone"`) || !strings.Contains(got, "parley_star_lease_valid 0") {
		t.Errorf("its page and metrics don't say so")
	}
	w.load.run(w.peers[0][1], at(0, 1), w.peers[0][0], at(0, 0), "cut").flows()
	lone := connect(t, w.nodes[0].url, socketio.DialOptions{})
	if got := lone.call("ss-join", "/ip4/9.9.9.9", ""); got != `["Registry unavailable"]` {
		t.Errorf("a join without registry: %s", got)
	}
	w.nodes[1].knows(everybody[2:]...)
	if long {
		eventually(t, "30 s", func() bool { return time.Now().After(end) })
	}
	w.nodes[0].gate.Heal()
	back := time.Now()
	for _, n := range w.nodes {
		eventually(t, "ready", n.shared.Ready)
		n.knows(everybody...)
	}
	took := time.Since(back)
	t.Logf("all members known again %v after NATS was back", took)
	if took > patience() {
		t.Errorf("a member was away for %v after NATS was back", took)
	}
	w.load.run(w.peers[0][0], at(0, 0), w.peers[1][0], at(1, 0), "back").flows()
	w.load.run(w.peers[1][0], at(1, 0), w.peers[0][0], at(0, 0), "forth").flows()

	for _, n := range w.nodes {
		n.gate.Cut()
	}
	for _, n := range w.nodes {
		eventually(t, "not ready without a lease", func() bool { return !n.shared.Ready() })
	}
	for i, s := range w.local {
		s.flows()
		w.nodes[i].gate.Heal()
	}
	for _, n := range w.nodes {
		eventually(t, "ready", n.shared.Ready)
		n.knows(everybody...)
	}
	w.load.run(w.peers[2][0], at(2, 0), w.peers[1][0], at(1, 0), "again").flows()
}

// A server is restarted in an orderly way: others lose its members at once, and
// nothing else.
func TestRestartOfOneServer(t *testing.T) {
	w := newThree(t, 1, calm) // a lease lives for long: nobody waits for it
	w.nodes[1].stop()
	w.nodes[0].knows(at(0, 0), at(0, 1), at(2, 0), at(2, 1))
	for _, s := range w.cross {
		if !strings.Contains(s.id, "1") {
			s.flows()
		}
	}
	// Without extensions true, as the reference; or that the server has left, where that was heard first.
	if got := w.cross[0].from.wait(`["` + proxy.Error + `from0to1.listener",`); !strings.HasSuffix(got, `,true]`) && !strings.HasSuffix(got, `,"Star server lost"]`) {
		t.Errorf("a stream to it ended with %s", got)
	}
	n := start(t, w.nats.URL(), open, cluster.Options{Times: calm})
	p := n.join(at(1, 0))
	w.load.watch(p)
	w.nodes[0].knows(at(0, 0), at(0, 1), at(2, 0), at(2, 1), at(1, 0))
	w.load.run(w.peers[0][0], at(0, 0), p, at(1, 0), "new").flows()
}

// key makes an identity and its address.
func key(t *testing.T) (crypto.PrivKey, string, string) {
	t.Helper()
	priv, pub, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := peer.IDFromPublicKey(pub)
	raw, _ := crypto.MarshalPublicKey(pub)
	return priv, hex.EncodeToString(raw), "/dns4/star.test/tcp/80/ws/p2p-websocket-star/ipfs/" + id.String()
}

// prove joins with a challenge.
func (p *testPeer) prove(addr string, priv crypto.PrivKey, pub string) string {
	p.t.Helper()
	first := p.call("ss-join", addr, pub)
	nonce, ok := strings.CutPrefix(strings.TrimSuffix(first, `"]`), `[null,"`)
	if !ok {
		return first
	}
	sig, err := priv.Sign([]byte(nonce))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.call("ss-join", addr, hex.EncodeToString(sig))
}

// S-8 over servers: the later proof has the address, on all of them; the owner of
// before loses it at once, and its streams run on.
func TestS_8_TakeoverAtAnotherServer(t *testing.T) {
	url := natstest.Start(t, 1).URL()
	var nodes []*node
	for range 3 {
		nodes = append(nodes, start(t, url, star.Options{Drain: -1}, cluster.Options{Times: calm}))
	}
	priv, pub, addr := key(t)
	priv2, pub2, other := key(t)
	first := connect(t, nodes[0].url, socketio.DialOptions{Query: extended})
	if got := first.prove(addr, priv, pub); !strings.HasPrefix(got, "[null,null,") {
		t.Fatal(got)
	}
	second := connect(t, nodes[1].url, socketio.DialOptions{})
	if got := second.prove(other, priv2, pub2); got != `[null,null,["`+addr+`"]]` && got != "[null,null,[]]" {
		t.Fatal(got)
	}
	for _, n := range nodes {
		n.knows(addr, other)
	}
	first.dial(addr, other, "before")
	again := connect(t, nodes[2].url, socketio.DialOptions{})
	if got := again.prove(addr, priv, pub); !strings.HasPrefix(got, "[null,null,") {
		t.Fatal(got)
	}
	first.wait(`["parley.lost","` + addr + `"`)
	if got := first.call("ss-dial", addr, other, "x"); got != `["Not authorized for this address"]` {
		t.Errorf("the old owner dials: %s", got)
	}
	first.chunk("before.dialer", []byte("still"))
	second.received("before.dialer", 5)
	for _, n := range nodes {
		n.knows(addr, other)
	}
	eventually(t, "dials reach the new owner", func() bool {
		id := fmt.Sprint("d", time.Now().UnixNano())
		return second.call("ss-dial", other, addr, id) == "[]" && again.heard()
	})
	_ = first.stop() // its leaving takes nothing from the new owner
	second.dial(other, addr, "after")
	again.wait(`["ss-incomming","after"`)
	// And back, at the first server.
	back := connect(t, nodes[0].url, socketio.DialOptions{})
	if got := back.prove(addr, priv, pub); !strings.HasPrefix(got, "[null,null,") {
		t.Fatal(got)
	}
	nodes[2].knows(addr, other)
	eventually(t, "dials reach the owner at the first server", func() bool {
		id := fmt.Sprint("e", time.Now().UnixNano())
		_, got := back.has(`["ss-incomming","` + id)
		return second.call("ss-dial", other, addr, id) == "[]" && !got || got
	})
}

// Without challenge an address that somebody alive has stays theirs.
func TestTakenElsewhereWithoutChallenge(t *testing.T) {
	a, b := pair(t, calm)
	a.join(addrA)
	b.knows(addrA)
	p := connect(t, b.url, socketio.DialOptions{})
	if got := p.call("ss-join", addrA, ""); got != `["Address is in use"]` {
		t.Errorf("taken at another server: %s", got)
	}
}

// Two servers claim one address at the same time, again and again: exactly one has
// it in the end, and both know which.
func TestOneOwnerOfAnAddress(t *testing.T) {
	url := natstest.Start(t, 1).URL()
	a, b := start(t, url, star.Options{Drain: -1}, cluster.Options{Times: calm}), start(t, url, star.Options{Drain: -1}, cluster.Options{Times: calm})
	priv, pub, addr := key(t)
	for range 10 {
		pa := connect(t, a.url, socketio.DialOptions{Query: extended})
		pb := connect(t, b.url, socketio.DialOptions{Query: extended})
		done := make(chan string, 2)
		for _, p := range []*testPeer{pa, pb} {
			go func() { done <- p.prove(addr, priv, pub) }()
		}
		for range 2 {
			if got := <-done; !strings.HasPrefix(got, "[null,null,") && got != `["Address is in use"]` {
				t.Fatal(got)
			}
		}
		eventually(t, "one owner", func() bool {
			x, y := pa.call("ss-dial", addr, addr, "self"), pb.call("ss-dial", addr, addr, "self")
			const no = `["Not authorized for this address"]`
			pa.emit(proxy.Error+"self.dialer", "=true")
			pb.emit(proxy.Error+"self.dialer", "=true")
			return (x == no) != (y == no)
		})
		_, _ = pa.stop(), pb.stop()
		a.knows()
		b.knows()
	}
}

// The limit of addresses of one key counts over the cluster.
func TestAddressesOfAKeyCountEverywhere(t *testing.T) {
	url := natstest.Start(t, 1).URL()
	o := star.Options{Drain: -1, Limits: star.Limits{AddressesPerKey: 2}}
	a, b := start(t, url, o, cluster.Options{Times: calm}), start(t, url, o, cluster.Options{Times: calm})
	priv, pub, addr := key(t)
	pa, pb := connect(t, a.url, socketio.DialOptions{}), connect(t, b.url, socketio.DialOptions{})
	for i, p := range []*testPeer{pa, pb} {
		if got := p.prove(strings.Replace(addr, "80", fmt.Sprint(81+i), 1), priv, pub); !strings.HasPrefix(got, "[null,null,") {
			t.Fatal(got)
		}
	}
	eventually(t, "both known at both", func() bool { return len(a.star.Members()) == 2 && len(b.star.Members()) == 2 })
	if got := pb.prove(addr, priv, pub); got != `["Too many addresses"]` {
		t.Errorf("a third address: %s", got)
	}
}
