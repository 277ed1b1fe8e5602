package star_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/socketio"
)

func place(i int) string { return fmt.Sprintf("/ip4/10.%d.%d.%d", i>>16, i>>8&255, i&255) }

// between two announcements of one member is the interval; none after leave,
// none after join, join, leave.
func TestA_9_RefreshAmongFew(t *testing.T) {
	o := open
	o.Refresh = time.Second
	bubble(t, o, func(t *testing.T, w *world) {
		a := w.at(addrA)
		time.Sleep(300 * time.Millisecond)
		b := w.at(addrB)
		synctest.Wait()
		if got := a.seen("ws-peer"); len(got) != 1 || got[0] != `["ws-peer","`+addrB+`"]` {
			t.Errorf("at the join a hears %q", got)
		}
		time.Sleep(10 * time.Second)
		for p, want := range map[*peer]int{a: 11, b: 10} {
			if n := len(p.seen("ws-peer")); n < want-1 || n > want {
				t.Errorf("%d announcements in 10 s, want %d", n, want)
			}
		}
		b.emit("ss-leave", addrB)
		synctest.Wait()
		before := len(a.seen("ws-peer"))
		time.Sleep(5 * time.Second)
		if n := len(a.seen("ws-peer")) - before; n != 0 {
			t.Errorf("%d announcements after leave", n)
		}
		a.join(addrC) // a socket with two addresses hears of its other one
		synctest.Wait()
		if got := a.seen("ws-peer"); got[len(got)-1] != `["ws-peer","`+addrC+`"]` {
			t.Errorf("its own second address: %q", got)
		}
	})
}

// S-5: announcements cost O(changes): with 300 members an interval brings each one
// batch of 64, going round.
func TestS_5_AnnouncementsAmongMany(t *testing.T) {
	o := open
	o.Limits = star.Limits{AddressesPerIP: -1, SessionsPerIP: -1, NewSessionBurst: -1}
	bubble(t, o, func(t *testing.T, w *world) {
		const n = 300
		var peers []*peer
		for i := range n {
			peers = append(peers, w.at(place(i)))
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		for _, p := range peers {
			p.forgetEvents()
		}
		time.Sleep(10 * time.Second)
		heard := map[string]bool{}
		for i, p := range peers {
			got := p.seen("ws-peer")
			if len(got) < 60 || len(got) > 64 {
				t.Fatalf("peer %d hears %d announcements in an interval", i, len(got))
			}
			for _, e := range got {
				if e == `["ws-peer","`+place(i)+`"]` {
					t.Fatalf("peer %d hears of itself", i)
				}
				heard[e] = true
			}
		}
		if len(heard) != n {
			t.Errorf("%d of %d members were announced to somebody", len(heard), n)
		}
		first := peers[0]
		time.Sleep(50 * time.Second)
		round := map[string]bool{}
		for _, e := range first.seen("ws-peer") {
			round[e] = true
		}
		if len(round) != n-1 {
			t.Errorf("in six intervals the first hears of %d of %d others", len(round), n-1)
		}
		checkList(t, w, n)
	})
}

// checkList joins one more and looks at its list: at most 256, the newest among
// them, none twice.
func checkList(t *testing.T, w *world, n int) {
	late := w.connect(socketio.DialOptions{})
	var answer []any
	if err := json.Unmarshal([]byte(late.call("ss-join", place(n), "")), &answer); err != nil {
		t.Fatal(err)
	}
	list := answer[2].([]any)
	if len(list) != 256 || !slices.Contains(list, any(place(n-1))) || slices.Contains(list, any(place(n))) {
		t.Errorf("the list has %d addresses", len(list))
	}
	unique := map[any]bool{}
	for _, a := range list {
		unique[a] = true
	}
	if len(unique) != len(list) {
		t.Errorf("%d of %d addresses are different", len(unique), len(list))
	}
}

// S-5: of a burst of joins a receiver hears 64 a second at once.
func TestS_5_BurstOfJoins(t *testing.T) {
	o := open
	o.Limits = star.Limits{AddressesPerIP: -1, SessionsPerIP: -1, NewSessionBurst: -1}
	o.Refresh = time.Hour
	bubble(t, o, func(t *testing.T, w *world) {
		first := w.at(place(0))
		for i := range 200 {
			w.at(place(i + 1))
		}
		time.Sleep(800 * time.Millisecond)
		if n := len(first.seen("ws-peer")); n > 2*64+65 || n < 64 {
			t.Errorf("%d announcements of 200 joins within a second", n)
		}
	})
}

// S-5, §8: members with extensions get differences and no refresh, and after a
// reconnect only what they missed.
func TestS_5_Differences(t *testing.T) {
	o := open
	o.Refresh = time.Second
	bubble(t, o, func(t *testing.T, w *world) {
		ext := w.connect(extended)
		ext.join(addrA)
		b := w.at(addrB)
		version, added, removed := peersOf(t, ext.wait(`["parley.peers"`))
		if !slices.Equal(added, []string{addrB}) || len(removed) != 0 {
			t.Errorf("added %q, removed %q", added, removed)
		}
		ext.forgetEvents()
		time.Sleep(10 * time.Second)
		if got := append(ext.seen("parley.peers"), ext.seen("ws-peer")...); len(got) != 0 {
			t.Errorf("while nothing changes it hears %q", got)
		}
		if n := len(b.seen("ws-peer")); n < 9 {
			t.Errorf("the old client beside it hears %d", n)
		}
		ext.stop()
		b.emit("ss-leave", addrB)
		synctest.Wait() // it has no answer, and others don't wait for it
		c := w.at(addrC)
		again := w.connect(socketio.DialOptions{Query: url.Values{"parley": {"1"}, "since": {version}}})
		again.join(addrA)
		_, added, removed = peersOf(t, again.wait(`["parley.peers"`))
		if !slices.Equal(added, []string{addrC}) || !slices.Equal(removed, []string{addrB}) {
			t.Errorf("since %s: added %q, removed %q", version, added, removed)
		}
		again.forgetEvents()
		c.emit("ss-leave", addrC)
		c.join(addrC)
		c.emit("ss-leave", addrC)
		time.Sleep(time.Second)
		gone := false
		for _, e := range again.seen("parley.peers") {
			_, added, removed := peersOf(t, e)
			gone = slices.Contains(removed, addrC) || gone && !slices.Contains(added, addrC)
		}
		if !gone {
			t.Errorf("one that left is still there: %q", again.seen("parley.peers"))
		}
		for _, since := range []string{"", "x", "zzz.zzz", version + "zzzzzz"} {
			odd := w.connect(socketio.DialOptions{Query: url.Values{"parley": {"1"}, "since": {since}}})
			odd.join("/ip4/5.5.5.5")
			odd.stop()
		}
	})
}

func peersOf(t *testing.T, event string) (version string, added, removed []string) {
	t.Helper()
	var name string
	if err := json.Unmarshal([]byte(event), &[]any{&name, &version, &added, &removed}); err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	return version, added, removed
}

// S-15: with sample each hears of at most 16 others, with off of nobody.
func TestS_15_SampleAndOff(t *testing.T) {
	for mode, most := range map[star.Announce]int{star.AnnounceSample: 16, star.AnnounceOff: 0} {
		t.Run(string(mode), func(t *testing.T) {
			o := open
			o.Announce, o.Refresh = mode, time.Second
			o.Limits = star.Limits{AddressesPerIP: -1, SessionsPerIP: -1}
			bubble(t, o, func(t *testing.T, w *world) { sampled(t, w, most) })
		})
	}
}

func sampled(t *testing.T, w *world, most int) {
	var peers []*peer
	heard := map[*peer]map[any]bool{}
	for i := range 40 {
		opts := socketio.DialOptions{}
		if i%4 == 0 {
			opts = extended
		}
		p := w.connect(opts)
		var answer []any
		if err := json.Unmarshal([]byte(p.call("ss-join", place(i), "")), &answer); err != nil {
			t.Fatal(err)
		}
		heard[p] = map[any]bool{}
		for _, a := range answer[2].([]any) {
			heard[p][a] = true
		}
		peers = append(peers, p)
	}
	time.Sleep(5 * time.Second)
	for i, p := range peers {
		for _, e := range p.seen("ws-peer") {
			var a []any
			_ = json.Unmarshal([]byte(e), &a)
			heard[p][a[1]] = true
		}
		for _, e := range p.seen("parley.peers") {
			_, added, _ := peersOf(t, e)
			for _, a := range added {
				heard[p][a] = true
			}
		}
		if n := len(heard[p]); n > most || n < most-1 {
			t.Errorf("peer %d hears of %d others, want %d", i, n, most)
		}
		if heard[p][place(i)] {
			t.Errorf("peer %d hears of itself", i)
		}
	}
}

// A receiver that takes nothing gets no more than fits, and hears again later.
func TestS_5_FullReceivers(t *testing.T) {
	o := open
	o.Refresh = 100 * time.Millisecond
	bubble(t, o, func(t *testing.T, w *world) {
		mute := w.at(addrA)
		mute.block = make(chan struct{})
		for i := range 20 {
			w.at(place(i))
		}
		time.Sleep(30 * time.Second)
		if s := w.star.Stats(); s.Members != 21 {
			t.Errorf("%d members", s.Members)
		}
		close(mute.block)
		time.Sleep(time.Second)
		if n := len(mute.seen("ws-peer")); n > 2000 {
			t.Errorf("%d announcements had waited", n)
		}
	})
}
