package star_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// A-7, S-12: every error answer of the recordings, with words where the reference
// gives {} or nothing.
func TestS_12_ErrorAnswers(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		a, b, ed := w.file.Identities[0], w.file.Identities[1], w.file.OfType(t, "Ed25519")
		p := w.connect(socketio.DialOptions{})
		addr, other, edAddr := strict(a.PeerID), strict(b.PeerID), strict(ed.PeerID)
		zero := strings.Repeat("0", 128)
		for _, c := range []struct {
			label string
			event []string
			want  string
		}{
			{"no key", []string{"ss-join", addr, ""}, `["Crypto Challenge required but no Id provided"]`},
			{"key that is not hex", []string{"ss-join", addr, "zz"}, `["Public key is not valid"]`},
			{"key of another id", []string{"ss-join", addr, b.PubKeyHex}, `["Id is not matching"]`},
			{"not a multiaddr", []string{"ss-join", "nope", a.PubKeyHex}, `["Invalid multiaddr"]`},
			{"valid multiaddr, wrong shape", []string{"ss-join", "/ip4/127.0.0.1/tcp/80", a.PubKeyHex}, `["Invalid multiaddr"]`},
			{"data not a string", []string{"ss-join", addr, "=5"}, `["Invalid arguments"]`},
			{"address not a string", []string{"ss-join", "=null", a.PubKeyHex}, `["Invalid arguments"]`},
			{"no arguments", []string{"ss-join"}, `["Invalid arguments"]`},
			{"unknown event", []string{"ss-what"}, `["Invalid arguments"]`},
			{"dial before join", []string{"ss-dial", addr, other, "d"}, `["Not authorized for this address"]`},
			{"address without an id", []string{"ss-join", strings.TrimSuffix(addr, "/ipfs/"+a.PeerID), a.PubKeyHex}, `["Id is not matching"]`},
			{"right key", []string{"ss-join", addr, a.PubKeyHex}, `[null,"parley-star/1 ` + addr + ` `},
			{"bad signature (not hex)", []string{"ss-join", addr, "zz"}, `["Signature Invalid"]`},
			{"bad signature (wrong bytes)", []string{"ss-join", addr, zero}, `["Signature Invalid"]`},
			{"empty signature", []string{"ss-join", addr, ""}, `["Crypto Challenge required but no Id provided"]`},
			{"right key again, in upper case", []string{"ss-join", addr, strings.ToUpper(a.PubKeyHex)}, `[null,"parley-star/1 `},
			{"ed25519 key", []string{"ss-join", edAddr, ed.PubKeyHex}, `[null,"parley-star/1 `},
			{"ed25519 bad signature", []string{"ss-join", edAddr, zero}, `["Signature Invalid"]`},
			{"ed25519 malformed signature", []string{"ss-join", edAddr, "00"}, `["Crypto error"]`},
			{"Qm id for an Ed25519 key", []string{"ss-join", addr, ed.PubKeyHex}, `["Signature Invalid"]`}, // the challenge is open: data is a signature
			{"leave without an address", []string{"ss-leave"}, `["Invalid arguments"]`},
			{"leave of nothing", []string{"ss-leave", "x"}, `["Invalid multiaddr"]`},
			{"leave of another's", []string{"ss-leave", other}, `[]`},
			{"accept of no stream", []string{proxy.Accept + "d.dialer"}, `[]`},
			{"chunk of no stream", []string{proxy.Queue + "d.dialer", "text"}, `[]`},
			{"end of no stream", []string{proxy.Error + "d.dialer", "=true"}, `[]`},
			{"about no stream", []string{proxy.Queue + "d"}, `["Invalid arguments"]`},
		} {
			if got := p.call(c.event[0], c.event[1:]...); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: %s, want %s", c.label, got, c.want)
			}
		}
		if got, _ := p.prove(addr, a); got != `[null,null,[]]` {
			t.Fatalf("join: %s", got)
		}
		for _, c := range []struct {
			label string
			event []string
			want  string
		}{
			{"dial unknown", []string{"ss-dial", addr, other, "d"}, `["Peer not found"]`},
			{"dial from address not owned", []string{"ss-dial", other, addr, "d"}, `["Not authorized for this address"]`},
			{"dial to something that is not a multiaddr", []string{"ss-dial", addr, "nope", "d"}, `["Invalid multiaddr"]`},
			{"dial without an id", []string{"ss-dial", addr, addr, ""}, `["Dial id is not valid"]`},
			{"dial with a control character", []string{"ss-dial", addr, addr, "a\nb"}, `["Dial id is not valid"]`},
			{"dial with a long id", []string{"ss-dial", addr, addr, strings.Repeat("a", 129)}, `["Dial id is not valid"]`},
			{"dial with a number", []string{"ss-dial", addr, addr, "=7"}, `["Invalid arguments"]`},
		} {
			if got := p.call(c.event[0], c.event[1:]...); got != c.want {
				t.Errorf("%s: %s, want %s", c.label, got, c.want)
			}
		}
	})
}

// keys of all three types; a Qm id for an Ed25519 key is refused.
func TestKeysOfAllTypes(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		p := w.connect(socketio.DialOptions{})
		for _, kind := range []string{"RSA", "Ed25519", "secp256k1"} {
			who := w.file.OfType(t, kind)
			if got, _ := p.prove(strict(who.PeerID), who); !strings.HasPrefix(got, "[null,null,[") {
				t.Errorf("%s: %s", kind, got)
			}
		}
		ed := w.file.OfType(t, "Ed25519")
		if got := p.call("ss-join", strict("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"), ed.PubKeyHex); got != `["Id is not matching"]` {
			t.Errorf("Qm id for an Ed25519 key: %s", got)
		}
	})
}

// wrong signature, then the right one on the same challenge; /p2p/ joins and
// is announced as /ipfs/; the newest proven socket has the address.
func TestJoinDetails(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		a, b := w.file.Identities[0], w.file.Identities[1]
		p, q := w.connect(socketio.DialOptions{}), w.connect(socketio.DialOptions{})
		if got, _ := q.prove(strict(b.PeerID), b); got != `[null,null,[]]` {
			t.Fatal(got)
		}
		spelled := strings.Replace(strict(a.PeerID), "/ipfs/", "/p2p/", 1)
		first := p.call("ss-join", spelled, a.PubKeyHex)
		nonce := strings.TrimSuffix(strings.TrimPrefix(first, `[null,"`), `"]`)
		if got := p.call("ss-join", spelled, strings.Repeat("0", 512)); got != `["Signature Invalid"]` {
			t.Errorf("wrong signature: %s", got)
		}
		if got := p.call("ss-join", spelled, sign(t, a, nonce)); got != `[null,null,["`+strict(b.PeerID)+`"]]` {
			t.Errorf("right signature: %s", got)
		}
		if got := q.wait(`["ws-peer"`); got != `["ws-peer","`+strict(a.PeerID)+`"]` {
			t.Errorf("announced as %s", got)
		}
		second := w.connect(socketio.DialOptions{})
		second.prove(strict(a.PeerID), a)
		q.dial(strict(b.PeerID), spelled, "d")
		second.wait(`["ss-incomming","d"`)
		if got := p.call("ss-dial", spelled, strict(b.PeerID), "e"); got != `["Not authorized for this address"]` {
			t.Errorf("the old socket dials: %s", got)
		}
	})
}

// S-2: at most eight challenges are open, the oldest are dropped, each lives 30 s.
func TestS_2_OpenChallenges(t *testing.T) {
	bubble(t, star.Options{Drain: -1, AnyMultiaddr: true}, func(t *testing.T, w *world) {
		who := w.file.Identities[0]
		p := w.connect(socketio.DialOptions{})
		addr := func(i int) string { return fmt.Sprintf("/dns4/h%d/tcp/1/ws/p2p-websocket-star/ipfs/%s", i, who.PeerID) }
		nonces := map[int]string{}
		for i := range 9 {
			nonces[i] = nonceOf(t, p.call("ss-join", addr(i), who.PubKeyHex))
		}
		if got := p.call("ss-join", addr(0), sign(t, who, nonces[0])); got != `["Public key is not valid"]` {
			t.Errorf("the oldest of nine: %s", got)
		}
		if got := p.call("ss-join", addr(1), sign(t, who, nonces[1])); !strings.HasPrefix(got, "[null,null") {
			t.Errorf("the second of nine: %s", got)
		}
		time.Sleep(31 * time.Second)
		if got := p.call("ss-join", addr(2), sign(t, who, nonces[2])); got != `["Challenge expired"]` {
			t.Errorf("after 31 s: %s", got)
		}
	})
}

// S-2: what unfinished challenges keep of a connection is bounded, however many
// there were.
func TestS_2_ChallengesKeepLittle(t *testing.T) {
	w := newWorld(t, star.Options{Drain: -1, Limits: star.Limits{Joins: -1, ServerJoins: -1}})
	who := w.file.OfType(t, "Ed25519")
	p := w.connect(socketio.DialOptions{})
	ask := func(from, n int) {
		for i := range n {
			nonceOf(t, p.call("ss-join", fmt.Sprintf("/dns4/h%d/tcp/1/ws/p2p-websocket-star/ipfs/%s", from+i, who.PeerID), who.PubKeyHex))
		}
	}
	const n = 1000
	ask(0, n)
	asked := n
	if kept := leastKept(n*50, func() { ask(asked, n); asked += n }); kept > n*50 {
		t.Errorf("%d bytes kept of %d challenges", kept, n)
	}
}

func nonceOf(t *testing.T, answer string) string {
	t.Helper()
	nonce := strings.TrimSuffix(strings.TrimPrefix(answer, `[null,"`), `"]`)
	if !strings.HasPrefix(nonce, star.NoncePrefix) {
		t.Fatalf("no nonce: %s", answer)
	}
	return nonce
}

// S-8: a proven owner keeps its address until the same key proves itself again;
// then the old socket has lost it, and its streams run on.
func TestS_8_Takeover(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		a, b := w.file.Identities[0], w.file.Identities[1]
		addr, other := strict(a.PeerID), strict(b.PeerID)
		old, friend, thief := w.connect(extended), w.connect(socketio.DialOptions{}), w.connect(socketio.DialOptions{})
		old.prove(addr, a)
		friend.prove(other, b)
		friend.dial(other, addr, "d")
		if got := thief.call("ss-join", addr, b.PubKeyHex); got != `["Id is not matching"]` {
			t.Errorf("a thief with another key: %s", got)
		}
		nonce := nonceOf(t, thief.call("ss-join", addr, a.PubKeyHex)) // anybody may ask
		if got := thief.call("ss-join", addr, sign(t, b, nonce)); got != `["Signature Invalid"]` {
			t.Errorf("a thief with the right key's hex: %s", got)
		}
		fresh := w.connect(socketio.DialOptions{})
		if got, _ := fresh.prove(addr, a); got != `[null,null,["`+other+`"]]` {
			t.Errorf("takeover: %s", got)
		}
		if got := old.wait(`["parley.lost"`); !strings.HasPrefix(got, `["parley.lost","`+addr+`",`) {
			t.Errorf("the old socket hears %s", got)
		}
		if got := old.call("ss-dial", addr, other, "e"); got != `["Not authorized for this address"]` {
			t.Errorf("the old socket dials: %s", got)
		}
		old.emit("ss-leave", addr)
		synctest.Wait()
		if got := w.star.Members(); len(got) != 2 {
			t.Errorf("members after the old socket left: %q", got)
		}
		friend.chunk("d.dialer", []byte("still there"))
		if got := old.received("d.dialer", 11); string(got) != "still there" {
			t.Errorf("the open stream gives %q", got)
		}
		old.stop()
		if got := friend.call("ss-dial", other, addr, "f"); got != "[]" {
			t.Errorf("dial after the old socket ended: %s", got)
		}
	})
}

// S-8, without challenge: a taken address is in use while its owner answers, and
// free when it does not.
func TestS_8_TakenWithoutChallenge(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		owner, asker := w.at("/ip4/1.1.1.1"), w.connect(socketio.DialOptions{})
		if got := asker.call("ss-join", "/ip4/1.1.1.1", ""); got != `["Address is in use"]` {
			t.Errorf("a living owner's address: %s", got)
		}
		owner.block = make(chan struct{}) // it reads, and answers nothing
		w.at("/ip4/2.2.2.2")
		synctest.Wait()
		start := time.Now()
		if got := asker.call("ss-join", "/ip4/1.1.1.1", ""); got != `[null,null,["/ip4/2.2.2.2"]]` {
			t.Errorf("a dead owner's address: %s", got)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("the owner was given %v", took)
		}
		if err := <-owner.ended; err == nil {
			t.Error("the dead owner is still connected")
		}
	})
}

// S-9: joining twice and leaving once is leaving; nothing is announced any more.
func TestS_9_JoinTwiceLeaveOnce(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		p, q := w.at("/ip4/1.1.1.1"), w.at("/ip4/2.2.2.2")
		p.join("/ip4/1.1.1.1")
		p.join("/ip4/1.1.1.1")
		p.emit("ss-leave", "/ip4/1.1.1.1")
		synctest.Wait()
		before := len(q.seen("ws-peer"))
		if before != 0 {
			t.Errorf("joining again was announced %d times", before)
		}
		time.Sleep(time.Minute)
		if after := len(q.seen("ws-peer")); after != before {
			t.Errorf("%d announcements after leave", after-before)
		}
		if got := w.star.Members(); len(got) != 1 || got[0] != "/ip4/2.2.2.2" {
			t.Errorf("members: %q", got)
		}
		q.emit("ss-leave", "/ip4/9.9.9.9") // not its own
		p.emit("ss-leave", "/ip4/2.2.2.2") // another's
		synctest.Wait()
		if got := w.star.Members(); len(got) != 1 {
			t.Errorf("members: %q", got)
		}
	})
}

// S-10: a nonce is bound to socket and address, spent by the first success, and
// dropped after three wrong signatures.
func TestS_10_NonceOnce(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		a, b := w.file.Identities[0], w.file.Identities[1]
		addr := strict(a.PeerID)
		p, q := w.connect(socketio.DialOptions{}), w.connect(socketio.DialOptions{})
		_, nonce := p.prove(addr, a)
		sig := sign(t, a, nonce)
		if !strings.HasPrefix(nonce, star.NoncePrefix+addr+" ") || len(nonce) < len(star.NoncePrefix+addr)+43 {
			t.Errorf("nonce %q", nonce)
		}
		if got := p.call("ss-join", addr, sig); got != "[null,null,[]]" {
			t.Errorf("the same signature on the address it holds: %s", got)
		}
		p.emit("ss-leave", addr)
		if got := p.call("ss-join", addr, sig); got != `["Public key is not valid"]` {
			t.Errorf("the same signature after leave: %s", got)
		}
		if got := q.call("ss-join", addr, sig); got != `["Public key is not valid"]` {
			t.Errorf("the same signature on another socket: %s", got)
		}
		other := nonceOf(t, q.call("ss-join", addr, a.PubKeyHex))
		if other == nonce {
			t.Error("the same nonce twice")
		}
		if got := q.call("ss-join", addr, sig); got != `["Signature Invalid"]` {
			t.Errorf("an old signature to a new nonce: %s", got)
		}
		for range 2 {
			if got := q.call("ss-join", addr, sign(t, b, other)); got != `["Signature Invalid"]` {
				t.Errorf("wrong signature: %s", got)
			}
		}
		if got := q.call("ss-join", addr, sign(t, a, other)); got != `["Challenge expired"]` {
			t.Errorf("the right signature after three wrong ones: %s", got)
		}
		if got, _ := q.prove(addr, a); got != "[null,null,[]]" {
			t.Errorf("a new challenge afterwards: %s", got)
		}
	})
}

// S-13: more signatures than may wait are turned away, and forwarding goes on
// meanwhile.
func TestS_13_VerifyingIsBounded(t *testing.T) {
	bubble(t, star.Options{Drain: -1, Limits: star.Limits{Verifying: 3}}, verifyTooMany)
}

// S-16: leaving costs what one has, whatever the number of members; many servers
// run in one process.
func TestS_16_ManyServers(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		second := newWorld(t, open)
		defer second.stop()
		p := w.connect(socketio.DialOptions{})
		for i := range 8 {
			p.join(fmt.Sprintf("/ip4/10.0.0.%d", i))
		}
		if got := p.call("ss-join", "/ip4/10.0.0.9", ""); got != `["Too many addresses"]` {
			t.Errorf("a ninth address: %s", got)
		}
		if n := len(second.star.Members()); n != 0 {
			t.Errorf("the second server has %d members", n)
		}
		p.stop()
		<-p.ended
		synctest.Wait()
		if n := len(w.star.Members()); n != 0 {
			t.Errorf("%d members after the end", n)
		}
	})
}
