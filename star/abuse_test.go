package star_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// Row 39 of docs/abuse.md, what is the server's.

// A challenge that nobody answers gives nothing, and ends with its session.
func TestAbuse39_JoinWithoutAnswer(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		a, b := w.file.Identities[0], w.file.Identities[1]
		friend, mute := w.connect(socketio.DialOptions{}), w.connect(socketio.DialOptions{})
		friend.prove(strict(b.PeerID), b)
		nonceOf(t, mute.call("ss-join", strict(a.PeerID), a.PubKeyHex))
		if got := mute.call("ss-dial", strict(a.PeerID), strict(b.PeerID), "d"); got != `["Not authorized for this address"]` {
			t.Errorf("without proof it dials: %s", got)
		}
		if got := friend.call("ss-dial", strict(b.PeerID), strict(a.PeerID), "d"); got != `["Peer not found"]` {
			t.Errorf("without proof it is dialled: %s", got)
		}
		if err := <-mute.ended; err == nil {
			t.Error("it may stay")
		}
		if got := w.star.Members(); len(got) != 1 || friend.sock.Err() != nil {
			t.Errorf("members: %q", got)
		}
	})
}

// An address is for who has its key: not by another key, by another's signature,
// or by another's answer to the same challenge.
func TestAbuse39_AnothersAddress(t *testing.T) {
	bubble(t, star.Options{Drain: -1}, func(t *testing.T, w *world) {
		a, b := w.file.Identities[0], w.file.Identities[1]
		addr := strict(a.PeerID)
		owner, thief := w.connect(socketio.DialOptions{}), w.connect(socketio.DialOptions{})
		_, nonce := owner.prove(addr, a)
		for name, data := range map[string]string{"another key": b.PubKeyHex, "the owner's signature": sign(t, a, nonce)} {
			if got := thief.call("ss-join", addr, data); strings.HasPrefix(got, "[null") {
				t.Errorf("%s: %s", name, got)
			}
		}
		own := nonceOf(t, thief.call("ss-join", addr, a.PubKeyHex))
		for name, signature := range map[string]string{"its own signature": sign(t, b, own), "the owner's for another nonce": sign(t, a, nonce)} {
			if got := thief.call("ss-join", addr, signature); got != `["Signature Invalid"]` {
				t.Errorf("%s: %s", name, got)
			}
		}
		thief.emit("ss-leave", addr)
		synctest.Wait()
		if got := thief.call("ss-dial", addr, addr, "d"); got != `["Not authorized for this address"]` {
			t.Errorf("it dials as the owner: %s", got)
		}
		owner.dial(addr, addr, "mine")
	})
}

// Revisions 3 and 4 of Engine.IO mixed: the newer one is refused, also with the id
// of a session that is good, which goes on.
func TestAbuse39_RevisionsMixed(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		_, body, _ := get(t, w, pollOpen)
		sid := sidOf(body)
		upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
		for _, query := range []string{"EIO=4&transport=polling", "EIO=4&transport=polling&sid=" + sid, "EIO=99&transport=polling"} {
			status, body, _ := get(t, w, "/socket.io/?"+query)
			if status != 400 || body != `{"code":5,"message":"Unsupported protocol version"}` {
				t.Errorf("%s: %d %s", query, status, body)
			}
			if status := knock(t, w, "/socket.io/?"+strings.Replace(query, "polling", "websocket", 1), upgrade...); status != 400 {
				t.Errorf("%s as a WebSocket: %d", query, status)
			}
		}
		packet := `420["ss-join","` + addrA + `",""]`
		resp, err := w.client.Post(w.base.String()+pollOpen+"&sid="+sid, "text/plain", strings.NewReader(fmt.Sprintf("%d:%s", len(packet), packet)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if _, body, _ := get(t, w, pollOpen+"&sid="+sid); !strings.Contains(body, "430[null,null,[]]") {
			t.Errorf("the session hears %q", body)
		}
	})
}

// Attachments that are missing, or come where none are due, end that connection
// alone, and what it has said so far is forgotten.
func TestAbuse39_MissingAttachments(t *testing.T) {
	name := proxy.Queue + "d.dialer"
	head := `451-["` + name + `",{"_placeholder":true,"num":0}]`
	for what, text := range map[string]string{"none, but another event": head + "\n42[\"x\"]", "two due": `452-["` + name + `",{"_placeholder":true,"num":0}]` + "\n\x04a\n42[\"x\"]",
		"none due": "\x04a", "another one named": `451-["x",{"_placeholder":true,"num":1}]` + "\n\x04a", "a hundred": `45100-["x"]`} {
		t.Run(what, func(t *testing.T) {
			bubble(t, open, func(t *testing.T, w *world) {
				friend, other := w.at(addrA), w.at(addrB)
				friend.dial(addrA, addrB, "d")
				frames(t, w, text, 1002)
				friend.chunk("d.dialer", []byte("still"))
				other.received("d.dialer", 5)
			})
		})
	}
	// One that never comes holds a session no longer than its silence may last.
	bubble(t, open, func(t *testing.T, w *world) {
		start := time.Now()
		frames(t, w, head, 1000)
		if took := time.Since(start); took < 44*time.Second || took > 48*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// One join among many, 5,000 where PARLEY_LONG is set, is told once to each, and
// nothing else is.
func TestAbuse39_MessagesAChange(t *testing.T) {
	o := open
	o.Limits = star.Limits{AddressesPerIP: -1, SessionsPerIP: -1, NewSessionBurst: -1}
	o.Refresh = time.Hour
	n := 500
	if os.Getenv("PARLEY_LONG") != "" {
		n = 5000
	}
	bubble(t, o, func(t *testing.T, w *world) {
		for i := range n {
			w.at(place(i))
		}
		time.Sleep(5 * time.Second)
		told := func() float64 {
			all, _ := w.star.Metric(`parley_star_announcements_total{kind="peer"}`)
			return all
		}
		before := told()
		last := w.at(place(n))
		time.Sleep(5 * time.Second)
		if got := told() - before; got != float64(n) {
			t.Errorf("a join among %d was told %v times", n, got)
		}
		before = told()
		last.stop()
		time.Sleep(5 * time.Second)
		if got := told() - before; got != 0 {
			t.Errorf("an end was told %v times", got)
		}
	})
}
