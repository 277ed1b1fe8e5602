package star_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// limitCase meets one limit of star.md §11.2.
type limitCase struct {
	set func(o *star.Options)
	do  func(t *testing.T, w *world)
}

const pollOpen = "/socket.io/?EIO=3&transport=polling"

// refused opens sessions until one is refused.
func refused(n int) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) {
		for i := range n + 1 {
			status, _, header := get(t, w, pollOpen)
			if want := map[bool]int{true: 503, false: 200}[i == n]; status != want || (status == 503) != (header.Get("Retry-After") != "") {
				t.Errorf("session %d: %d", i, status)
			}
		}
	}
}

// answers sends events one after the other and compares the last answer.
func answers(want string, events ...[]string) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) {
		w.at(addrB)
		p := w.connect(socketio.DialOptions{})
		got := ""
		for _, e := range events {
			got = p.call(e[0], e[1:]...)
		}
		if got != `["`+want+`"]` {
			t.Errorf("the last answer is %s, want %s", got, want)
		}
	}
}

// dialTwice dials B twice from A, with a callee that answers or not.
func dialTwice(answered bool, want string) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		b.accept = answered
		first := a.start("ss-dial", addrA, addrB, "1")
		if answered {
			<-first
		}
		if got := a.call("ss-dial", addrA, addrB, "2"); got != `["`+want+`"]` {
			t.Errorf("the second dial: %s", got)
		}
	}
}

// ends dials B from A and waits for the end of the stream after some bytes.
func ends(bytes int, want string) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		a.dial(addrA, addrB, "d")
		a.chunk("d.dialer", make([]byte, bytes))
		if got := b.wait(`["` + proxy.Error); got != `["`+proxy.Error+`d.dialer","`+want+`"]` {
			t.Errorf("the reader hears %s", got)
		}
	}
}

// closes sends a text and waits for the close frame.
func closes(code int, text string) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) { frames(t, w, text, code) }
}

// frames sends frames, which newlines separate, those that begin with 0x04 as
// binary ones, and waits for the close frame.
func frames(t *testing.T, w *world, text string, code int) {
	t.Helper()
	u := *w.base
	u.Path, u.RawQuery = "/socket.io/", "EIO=3&transport=websocket"
	c, err := ws.Dial(t.Context(), w.client, &u, nil, 1<<20, &ws.Memory{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	defer c.NetConn().Close()
	go func() {
		b := c.Batch()
		for frame := range strings.SplitSeq(text, "\n") {
			op := ws.Text
			if strings.HasPrefix(frame, "\x04") {
				op = ws.Binary
			}
			b.Add(op, []byte(frame))
		}
		_ = b.Flush(nil) // the server may close first
		b.Done()
	}()
	for {
		m, err := c.Read()
		if err != nil {
			t.Fatalf("no close frame: %v", err)
		}
		if m.Op != ws.Close {
			continue
		}
		if got, _, _ := ws.ParseClose(m.Data); got != code {
			t.Errorf("closed with %d, want %d", got, code)
		}
		return
	}
}

// held dials B from A and sends what B's socket does not take.
func held(until time.Duration) func(t *testing.T, w *world) {
	return func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		a.dial(addrA, addrB, "d")
		synctest.Wait()
		b.block = make(chan struct{})
		w.at("/ip4/4.4.4.4") // an announcement, which blocks the reader
		a.send("d.dialer", 64)
		time.Sleep(until)
	}
}

// proven is a star that asks for proof.
func proven(set func(o *star.Options)) func(o *star.Options) {
	return func(o *star.Options) {
		*o = star.Options{Drain: -1}
		if set != nil {
			set(o)
		}
	}
}

// at2 is a second address of an identity.
func at2(id string) string { return "/dns4/second.test/tcp/80/ws/p2p-websocket-star/ipfs/" + id }

var limitCases = map[string]limitCase{
	"sessions":        {func(o *star.Options) { o.Limits.Sessions = 2 }, refused(2)},
	"sessions_per_ip": {func(o *star.Options) { o.Limits.SessionsPerIP = 2 }, refused(2)},
	"new_sessions":    {func(o *star.Options) { o.Limits.NewSessionsPerIP, o.Limits.NewSessionBurst = 0.01, 2 }, refused(2)},
	"addresses": {func(o *star.Options) { o.Limits.Addresses = 1 },
		answers("Too many addresses", []string{"ss-join", addrA, ""})},
	"addresses_per_session": {func(o *star.Options) { o.Limits.AddressesPerSession = 1 },
		answers("Too many addresses", []string{"ss-join", addrA, ""}, []string{"ss-join", addrC, ""})},
	"addresses_per_ip": {func(o *star.Options) { o.Limits.AddressesPerIP = 2 },
		answers("Too many addresses", []string{"ss-join", addrA, ""}, []string{"ss-join", addrC, ""})},
	"addresses_per_key": {proven(func(o *star.Options) { o.Limits.AddressesPerKey = 1 }), func(t *testing.T, w *world) {
		who := w.file.OfType(t, "ed25519")
		w.connect(socketio.DialOptions{}).prove(strict(who.PeerID), who)
		if got, _ := w.connect(socketio.DialOptions{}).prove(at2(who.PeerID), who); got != `["Too many addresses"]` {
			t.Errorf("a second address: %s", got)
		}
	}},
	"joins": {func(o *star.Options) { o.Limits.Joins, o.Limits.JoinBurst = 1, 2 },
		answers("Rate limit reached", []string{"ss-join", addrA, ""}, []string{"ss-join", addrA, ""}, []string{"ss-join", addrA, ""})},
	"server_joins": {func(o *star.Options) { o.Limits.ServerJoins = 2 },
		answers("Server busy", []string{"ss-join", addrA, ""}, []string{"ss-join", addrC, ""})},
	"challenges": {proven(func(o *star.Options) { o.Limits.Challenges = 1 }), func(t *testing.T, w *world) {
		who := w.file.OfType(t, "ed25519")
		p := w.connect(socketio.DialOptions{})
		first := p.call("ss-join", strict(who.PeerID), who.PubKeyHex)
		p.call("ss-join", at2(who.PeerID), who.PubKeyHex)
		if got := p.call("ss-join", strict(who.PeerID), sign(t, who, nonceOf(t, first))); strings.HasPrefix(got, "[null") {
			t.Errorf("the challenge that was dropped: %s", got)
		}
	}},
	"challenge_life": {proven(func(o *star.Options) { o.Limits.ChallengeLife = time.Second }), func(t *testing.T, w *world) {
		who := w.file.OfType(t, "ed25519")
		p := w.connect(socketio.DialOptions{})
		first := p.call("ss-join", strict(who.PeerID), who.PubKeyHex)
		time.Sleep(time.Second)
		if got := p.call("ss-join", strict(who.PeerID), sign(t, who, nonceOf(t, first))); got != `["Challenge expired"]` {
			t.Errorf("late: %s", got)
		}
	}},
	"wrong_signatures": {proven(func(o *star.Options) { o.Limits.WrongTries = 2 }), func(t *testing.T, w *world) {
		who := w.file.OfType(t, "ed25519")
		p := w.connect(socketio.DialOptions{})
		first := p.call("ss-join", strict(who.PeerID), who.PubKeyHex)
		for range 2 {
			if got := p.call("ss-join", strict(who.PeerID), strings.Repeat("00", 64)); got != `["Signature Invalid"]` {
				t.Errorf("wrong: %s", got)
			}
		}
		if got := p.call("ss-join", strict(who.PeerID), sign(t, who, nonceOf(t, first))); got != `["Challenge expired"]` {
			t.Errorf("right, too late: %s", got)
		}
	}},
	"verifying": {proven(func(o *star.Options) { o.Limits.Verifying = 3 }), verifyTooMany},
	"dials": {func(o *star.Options) { o.Limits.Dials, o.Limits.DialBurst = 1, 1 },
		dialTwice(true, "Rate limit reached")},
	"open_dials": {func(o *star.Options) { o.Streams.DialsOfDialer = 1 }, dialTwice(true, "Too many dials")},
	"callee_dials": {func(o *star.Options) { o.Streams.DialsOfCallee = 1 },
		dialTwice(true, "Too many dials")},
	"server_dials":     {func(o *star.Options) { o.Streams.Dials = 1 }, dialTwice(true, "Too many dials")},
	"unanswered_dials": {func(o *star.Options) { o.Streams.Unanswered = 1 }, dialTwice(false, "Too many dials")},
	"dial_answer": {nil, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		b.accept = false
		if got := a.call("ss-dial", addrA, addrB, "1"); got != `["Dial timed out"]` {
			t.Errorf("not answered: %s", got)
		}
	}},
	"events": {func(o *star.Options) { o.Limits.Events, o.Limits.EventBurst = 1, 2 }, func(t *testing.T, w *world) {
		p, start := w.at(addrA), time.Now()
		for range 5 {
			p.emit("ss-leave", addrB)
		}
		p.call("ss-leave", addrB)
		if took := time.Since(start); took < 3*time.Second {
			t.Errorf("six events at one a second took %v", took)
		}
	}},
	"idle": {nil, func(t *testing.T, w *world) {
		if err := <-w.connect(socketio.DialOptions{}).ended; err == nil {
			t.Error("no reason")
		}
	}},
	"stall":         {nil, held(25 * time.Second)},
	"stream_bytes":  {nil, held(time.Second)},
	"session_bytes": {func(o *star.Options) { o.Streams.Socket = 128 << 10 }, held(time.Second)},
	"server_bytes": {func(o *star.Options) { o.Streams.Server = 64 << 10 }, func(t *testing.T, w *world) {
		held(5*time.Second)(t, w)
		// What the reader's socket was handed before goes with the socket.
		if s := w.star.Stats().Streams; s.Dials != 0 || s.Held > proxy.Window {
			t.Errorf("left: %+v", s)
		}
	}},
	"dial_bytes": {func(o *star.Options) { o.Streams.DialBytes = 10 }, ends(11, "Byte limit reached")},
	"dial_life":  {func(o *star.Options) { o.Streams.DialLife = 2 * time.Second }, ends(1, "Time limit reached")},
	"session_rate": {func(o *star.Options) { o.Limits.SessionRate = 1000 }, func(t *testing.T, w *world) {
		slowly(t, w, w.at(addrA), w.at(addrB))
	}},
	"ip_rate": {func(o *star.Options) { o.Limits.IPRate = 1000 }, func(t *testing.T, w *world) {
		slowly(t, w, w.at(addrA), w.at(addrB))
	}},
	"list": {func(o *star.Options) { o.Limits.ListInAck = 4 }, func(t *testing.T, w *world) {
		for i := range 8 {
			w.at(place(i))
		}
		if got := w.connect(socketio.DialOptions{}).call("ss-join", addrA, ""); strings.Count(got, "/ip4/") != 4 || !strings.Contains(got, place(7)) {
			t.Errorf("the list: %s", got)
		}
	}},
	"refresh_batch": {func(o *star.Options) { o.Limits.RefreshBatch, o.Refresh = 2, time.Second }, func(t *testing.T, w *world) {
		for i := range 70 {
			w.at(place(i))
		}
		time.Sleep(3 * time.Second)
	}},
	"new_members": {func(o *star.Options) { o.Limits.NewPerSecond, o.Refresh = 2, time.Hour }, func(t *testing.T, w *world) {
		p := w.at(addrA)
		for i := range 5 {
			w.at(place(i))
		}
		synctest.Wait()
		if n := len(p.seen("ws-peer")); n != 2 {
			t.Errorf("told of %d in a second", n)
		}
	}},
	"message":     {nil, closes(1009, `42["`+strings.Repeat("x", 1_000_000))},
	"text":        {nil, closes(1002, `42["`+strings.Repeat("x", 70_000)+`"]`)},
	"depth":       {nil, closes(1002, `42["x",`+strings.Repeat("[", 1000))},
	"attachments": {nil, closes(1002, `4511-["x"]`)},
	"stuck": {nil, func(t *testing.T, w *world) {
		held(time.Minute)(t, w)
		if n := w.star.Stats().Members; n != 2 {
			t.Errorf("%d members are left", n)
		}
	}},
	"upgrade": {nil, func(t *testing.T, w *world) {
		_, body, _ := get(t, w, pollOpen)
		u := *w.base
		u.Path, u.RawQuery = "/socket.io/", "EIO=3&transport=websocket&sid="+sidOf(body)
		c, err := ws.Dial(t.Context(), w.client, &u, nil, 1<<20, &ws.Memory{})
		if err != nil {
			t.Fatal(err)
		}
		b := c.Batch()
		b.Add(ws.Text, []byte("2probe"))
		_ = b.Flush(nil)
		b.Done()
		start := time.Now()
		for err == nil {
			_, err = c.Read()
		}
		if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("an upgrade without its end was let go after %v", took)
		}
		c.NetConn().Close()
		c.Release()
	}},
}

// slowly sends 3,000 bytes where 1,000 a second may.
func slowly(t *testing.T, _ *world, a, b *peer) {
	a.dial(addrA, addrB, "d")
	start := time.Now()
	for range 6 {
		a.chunk("d.dialer", make([]byte, 500))
	}
	b.received("d.dialer", 3000)
	if took := time.Since(start); took < 1500*time.Millisecond || took > 4*time.Second {
		t.Errorf("3,000 bytes at 1,000 a second took %v", took)
	}
}

// verifyTooMany lets more signatures wait than may, and looks whether others go on.
func verifyTooMany(t *testing.T, w *world) {
	who := w.file.OfType(t, "ed25519")
	caller := w.connect(socketio.DialOptions{})
	caller.prove(strict(who.PeerID), who)
	release := w.star.HoldVerifiers()
	may := 3 + w.star.Verifiers()
	var waiting []<-chan string
	for i := range may + 2 {
		p := w.connect(socketio.DialOptions{})
		addr := fmt.Sprintf("/dns4/h%d.test/tcp/80/ws/p2p-websocket-star/ipfs/%s", i, who.PeerID)
		signature := sign(t, who, nonceOf(t, p.call("ss-join", addr, who.PubKeyHex)))
		waiting = append(waiting, p.start("ss-join", addr, signature))
		synctest.Wait()
	}
	caller.dial(strict(who.PeerID), strict(who.PeerID), "meanwhile")
	caller.chunk("meanwhile.dialer", []byte("hello"))
	caller.received("meanwhile.dialer", 5)
	for _, late := range waiting[may:] {
		if got := <-late; got != `["Server busy"]` {
			t.Errorf("one that is too many: %s", got)
		}
	}
	release()
	for _, one := range waiting[:may] {
		if got := <-one; !strings.HasPrefix(got, "[null,null,[") {
			t.Errorf("one that waited: %s", got)
		}
	}
}

// S-7: every limit there is has a test that meets it, an answer, and its metric.
func TestS_7_EveryLimitIsMetAndCounted(t *testing.T) {
	for limit, c := range limitCases {
		t.Run(limit, func(t *testing.T) {
			o := open
			if c.set != nil {
				c.set(&o)
			}
			bubble(t, o, func(t *testing.T, w *world) {
				name := `parley_star_limit_hits_total{limit="` + limit + `"}`
				if n, ok := w.star.Metric(name); !ok || n != 0 {
					t.Fatalf("%s is %v at the start, %v", name, n, ok)
				}
				c.do(t, w)
				synctest.Wait()
				if n, _ := w.star.Metric(name); n == 0 {
					t.Errorf("%s is still 0", name)
				}
				for _, p := range w.peers {
					if p.block != nil {
						close(p.block)
					}
				}
			})
		})
	}
	elsewhere := map[string]bool{"connections": true, "connections_per_ip": true} // of real ports: TestAbuse18_ConnectionsWithoutSession
	srv, err := star.NewHandler(open)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`parley_star_limit_hits_total\{limit="([^"]+)"\}`).FindAllStringSubmatch(srv.Metrics(), -1) {
		if _, ok := limitCases[m[1]]; !ok && !elsewhere[m[1]] {
			t.Errorf("no test meets the limit %s", m[1])
		}
	}
}
