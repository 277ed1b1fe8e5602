package socketio_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// bubble runs f in a bubble of virtual time with a world of its own.
func bubble(t *testing.T, f func(t *testing.T, w *world, h *echo)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newEcho()
		w := newWorld(t, socketio.Options{Handler: h})
		f(t, w, h)
		w.stop()
	})
}

// The first packets are those of the recordings, but for the id.
func TestHandshakeAsRecorded(t *testing.T) {
	scenario := startest.Load(t).Named(t, "polling-then-upgrade")
	recorded := ""
	for _, f := range scenario.Frames {
		if f.Kind == "http-response" && f.Body != nil {
			recorded = f.Body.Text
			break
		}
	}
	bubble(t, func(t *testing.T, w *world, h *echo) {
		status, body, header := w.do("GET", "EIO=3&transport=polling&t=abc&b64=1", "", "")
		cut := func(s string) (string, string) {
			before, rest, _ := strings.Cut(s, `"sid":"`)
			return before + rest[20:], rest[:20]
		}
		got, sid := cut(body)
		if want, _ := cut(recorded); status != 200 || got != want {
			t.Errorf("%d %q, want %q", status, got, want)
		}
		for name, want := range map[string]string{"Content-Type": "text/plain; charset=UTF-8", "Access-Control-Allow-Origin": "*",
			"Set-Cookie": "io=" + sid + "; Path=/; HttpOnly; SameSite=Strict"} {
			if header.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, header.Get(name), want)
			}
		}
		c := w.raw("&b64=1")
		w.write(c, ws.Text, `420["a"]`)
		w.expect(c, `430[]`)
	})
}

func TestErrorAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		for _, c := range []struct {
			name, method, query string
			status              int
			body                string
		}{
			{"unknown transport", "GET", "EIO=3&transport=flash", 400, `{"code":0,"message":"Transport unknown"}`},
			{"no transport", "GET", "EIO=3", 400, `{"code":0,"message":"Transport unknown"}`},
			{"unknown session", "GET", "EIO=3&transport=polling&sid=x", 400, `{"code":1,"message":"Session ID unknown"}`},
			{"handshake by POST", "POST", "EIO=3&transport=polling", 400, `{"code":2,"message":"Bad handshake method"}`},
			{"websocket without upgrade", "GET", "EIO=3&transport=websocket", 400, `{"code":3,"message":"Bad request"}`},
			{"wrong transport for the session", "GET", "EIO=3&transport=websocket&sid=" + sid, 400, `{"code":3,"message":"Bad request"}`},
			{"JSONP", "GET", "EIO=3&transport=polling&j=0", 400, `{"code":3,"message":"Bad request"}`},
			{"PUT", "PUT", "EIO=3&transport=polling&sid=" + sid, 400, `{"code":3,"message":"Bad request"}`},
			{"revision 4", "GET", "EIO=4&transport=polling", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		} {
			if status, body, _ := w.do(c.method, c.query, "", ""); status != c.status || body != c.body {
				t.Errorf("%s: %d %s, want %d %s", c.name, status, body, c.status, c.body)
			}
		}
		if status, _, header := w.do("OPTIONS", "EIO=3&transport=polling", "", ""); status != 200 || header.Get("Access-Control-Allow-Headers") != "Content-Type" {
			t.Errorf("OPTIONS: %d %v", status, header)
		}
		for _, query := range []string{"transport=polling", "EIO=2&transport=polling", "EIO=x&transport=polling"} {
			if status, body, _ := w.do("GET", query, "", ""); status != 200 {
				t.Errorf("%s: %d %s", query, status, body)
			}
		}
	})
}

// On an upgrade the body is the bare message.
func TestErrorAnswersOnUpgrade(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		for query, want := range map[string]string{"EIO=3&transport=websocket&sid=nope": "Session ID unknown", "EIO=3&transport=x": "Transport unknown",
			"EIO=3&transport=polling": "Bad request"} {
			req, _ := http.NewRequest("GET", w.base.String()+"/socket.io/?"+query, nil)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "websocket")
			resp, err := w.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var b [100]byte
			n, _ := resp.Body.Read(b[:])
			resp.Body.Close()
			if resp.StatusCode != 400 || string(b[:n]) != want {
				t.Errorf("%s: %d %q, want %q", query, resp.StatusCode, b[:n], want)
			}
		}
	})
}

func TestOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, socketio.Options{Handler: newEcho(), Origins: []string{"https://good.example"}})
		for origin, want := range map[string]int{"": 200, "https://good.example": 200, "https://evil.example": 403, "https://good.example.evil": 403, "null": 403} {
			req, _ := http.NewRequest("GET", w.base.String()+"/socket.io/?EIO=3&transport=polling", nil)
			if origin != "" {
				req.Header.Set("Origin", origin)
			}
			resp, err := w.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("origin %q: %d, want %d", origin, resp.StatusCode, want)
			}
			if origin != "" && want == 200 && (resp.Header.Get("Access-Control-Allow-Origin") != origin || resp.Header.Get("Access-Control-Allow-Credentials") != "true") {
				t.Errorf("origin %q: headers %v", origin, resp.Header)
			}
		}
		w.stop()
	})
}

func TestConnectRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := true
		h := newEcho()
		w := newWorld(t, socketio.Options{Handler: h, Connect: func(s *socketio.Socket, r *http.Request) (json.RawMessage, error) {
			if refuse {
				return nil, &identity.Error{Code: identity.CodeLimit, Text: "too many", RetryAfter: 1500 * time.Millisecond}
			}
			return json.RawMessage(`{"v":1}`), nil
		}})
		status, _, header := w.do("GET", "EIO=3&transport=polling", "", "")
		if status != 503 || header.Get("Retry-After") != "2" {
			t.Errorf("%d, retry after %q", status, header.Get("Retry-After"))
		}
		refuse = false
		if status, body, _ := w.do("GET", "EIO=3&transport=polling", "", ""); status != 200 || !strings.Contains(body, `,"parley":{"v":1}}`) {
			t.Errorf("%d %s", status, body)
		}
		w.srv.Refuse()
		if status, _, _ := w.do("GET", "EIO=3&transport=polling", "", ""); status != 503 {
			t.Errorf("while refusing: %d", status)
		}
		w.stop()
		if len(h.ended) != 1 {
			t.Errorf("%d sessions were told of their end, want 1", len(h.ended))
		}
	})
}

// What breaks the protocol ends the connection with its code, and only that.
func TestAbuse20_ProtocolErrors(t *testing.T) {
	long := strings.Repeat("a", 70_000)
	for _, c := range []struct {
		name   string
		frames []string // b: begins a binary frame
		code   int
	}{
		{"no packet", []string{"x"}, ws.CodeProtocol}, {"empty frame", []string{""}, ws.CodeProtocol},
		{"open from a client", []string{"0{}"}, ws.CodeProtocol}, {"upgrade out of place", []string{"5"}, ws.CodeProtocol},
		{"no message", []string{"4"}, ws.CodeProtocol}, {"kind 9", []string{"49"}, ws.CodeProtocol},
		{"no JSON", []string{`42[`}, ws.CodeProtocol}, {"no name", []string{`42[]`}, ws.CodeProtocol}, {"name is a number", []string{`42[1]`}, ws.CodeProtocol},
		{"object for array", []string{`42{"a":1}`}, ws.CodeProtocol}, {"deep", []string{"42" + strings.Repeat("[", 100_000)}, ws.CodeProtocol},
		{"too long", []string{`42["` + long + `"]`}, ws.CodeProtocol}, {"text between", []string{`451-["a",{"_placeholder":true,"num":0}]`, "42[\"x\"]"}, ws.CodeProtocol},
		{"stray attachment", []string{"b\x04x"}, ws.CodeProtocol}, {"eleven attachments", []string{`4511-["a"]`}, ws.CodeProtocol},
		{"attachment of another type", []string{`451-["a",{"_placeholder":true,"num":0}]`, "b\x03x"}, ws.CodeProtocol},
		{"placeholder without attachment", []string{`451-["a",{"_placeholder":true,"num":1}]`, "b\x04x"}, ws.CodeProtocol},
		{"bad base64", []string{`451-["a",{"_placeholder":true,"num":0}]`, "b4!"}, ws.CodeProtocol}, {"error from a client", []string{`44"x"`}, ws.CodeProtocol},
		{"not UTF-8", []string{"42[\"\xff\"]"}, ws.CodeInvalidData}, {"over the limit", []string{"b" + strings.Repeat("x", 1_000_001)}, ws.CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world, h *echo) {
				bad, good := w.raw(""), w.raw("")
				go func() {
					for _, f := range c.frames {
						op := ws.Text
						if rest, binary := strings.CutPrefix(f, "b"); binary && !strings.HasPrefix(f, "b4") {
							op, f = ws.Binary, rest
						}
						b := bad.Batch()
						b.Add(op, []byte(f))
						b.Flush(nil) // fails where the server has closed already
						b.Done()
					}
				}()
				if code := w.expectClose(bad); code != c.code {
					t.Errorf("closed with %d, want %d", code, c.code)
				}
				if reason := h.waitEnd(t); reason == nil {
					t.Error("no reason")
				}
				bad.NetConn().Close()
				w.write(good, ws.Text, `421["x",1]`)
				w.expect(good, `431[1]`)
			})
		})
	}
}

// Input that is odd but allowed is served.
func TestOddButAllowed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		c := w.raw("")
		for _, f := range []string{"40", "6", "3late", "4399[]", "430[1]", `40/other`, `42/other,["x"]`, `42["surplus",1,2,3,4,5,6,7,8,9,10]`} {
			w.write(c, ws.Text, f)
		}
		w.expect(c, `44/other,"Invalid namespace"`)
		w.expect(c, `42["echo",1,2,3,4,5,6,7]`)
		w.write(c, ws.Text, `450-["none"]`)
		w.expect(c, `42["echo"]`)
		w.write(c, ws.Text, `452-7["two",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]`)
		w.write(c, ws.Binary, "\x04a")
		w.write(c, ws.Binary, "\x04b")
		w.expect(c, `437[{"_placeholder":true,"num":1}`)
		w.write(c, ws.Text, "2probe")
		w.expect(c, "3probe")
		w.write(c, ws.Text, "41")
		if h.waitEnd(t) != socketio.ErrGoodbye {
			t.Error("no goodbye")
		}
		w.write(c, ws.Text, `42["after goodbye"]`)
		w.write(c, ws.Text, "2")
		w.expect(c, "3")
		w.write(c, ws.Close, "")
		if code := w.expectClose(c); code != ws.CodeNormal {
			t.Errorf("closed with %d", code)
		}
	})
}

// a session from which nothing comes is closed after 45 s, on both
// transports; one that pings stays.
func TestSilentSessions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		start := time.Now()
		silent, alive := w.raw(""), w.raw("")
		w.poller("")
		stop, closed := make(chan struct{}), make(chan struct{})
		go func() { defer close(closed); w.expectClose(silent) }()
		go func() {
			for {
				select {
				case <-time.After(25 * time.Second):
					b := alive.Batch()
					b.Add(ws.Text, []byte("2"))
					b.Flush(nil)
					b.Done()
				case <-stop:
					return
				}
			}
		}()
		for range 2 {
			if err := h.waitEnd(t); err != socketio.ErrSilent {
				t.Errorf("ended by %v", err)
			}
			if took := time.Since(start); took < 42*time.Second || took > 48*time.Second {
				t.Errorf("closed after %v, want 45 s ± 3 s", took)
			}
		}
		<-closed
		for range 10 {
			w.expect(alive, "3")
		}
		close(stop)
		if len(h.ended) > 0 {
			t.Errorf("the living one ended: %v", (<-h.ended).reason)
		}
	})
}

// A client that takes bytes slowly is not silent, though its next ping waits for a
// pong behind them; when it has all, it has to ping again.
func TestA_12_SlowTakersAreNotSilent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		c := w.raw("")
		event := `42["echo","` + strings.Repeat("x", 30_000) + `"]`
		for range 8 {
			w.write(c, ws.Text, event)
		}
		for range 8 {
			time.Sleep(20 * time.Second)
			w.expect(c, event)
		}
		taken := time.Now()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			w.expectClose(c)
		}()
		if err := h.waitEnd(t); err != socketio.ErrSilent {
			t.Errorf("ended by %v", err)
		}
		<-closed
		if took := time.Since(taken); took < 42*time.Second || took > 48*time.Second {
			t.Errorf("closed after %v, want 45 s ± 3 s", took)
		}
	})
}

// S-4: a held reader gets noops in time for its heartbeat and is not called
// silent.
func TestS_4_HeldReaderStaysAlive(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		c := w.raw("")
		w.write(c, ws.Text, `42["hold"]`)
		start := time.Now()
		last := start
		for time.Since(start) < 3*time.Minute {
			w.expect(c, "6")
			if gap := time.Since(last); gap > 10*time.Second {
				t.Errorf("a gap of %v between noops", gap)
			}
			last = time.Now()
		}
		close(h.release)
		w.expect(c, `42["echo"]`)
	})
}

// napper holds each event for a while, as a slow reader does to its sender.
type napper struct{ echo }

func (n *napper) Event(s *socketio.Socket, _ *socketio.Event) error {
	s.Hold()
	defer s.Release()
	select {
	case <-time.After(3 * time.Second): // virtual
	case <-s.Context().Done():
	}
	return nil
}

// S-4: a reader that is held again and again, each time for less than the noops are
// apart, gets them all the same: its pings are behind what it has sent.
func TestS_4_HeldAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, socketio.Options{Handler: &napper{echo: *newEcho()}})
		c := w.raw("")
		go func() {
			for range 60 {
				b := c.Batch()
				b.Add(ws.Text, []byte(`42["nap"]`))
				_ = b.Flush(nil) // fails at the end
				b.Done()
			}
		}()
		last := time.Now()
		for start := last; time.Since(start) < 2*time.Minute; last = time.Now() {
			w.expect(c, "6")
			if gap := time.Since(last); gap > 11*time.Second {
				t.Errorf("a gap of %v between noops", gap)
			}
		}
		c.NetConn().Close()
		w.stop()
	})
}

// A client that takes nothing is dropped after 45 s, with all that waited.
func TestStuckSessions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		c := w.raw("")
		start := time.Now()
		go func() {
			for range 30 { // pings keep it from being silent
				b := c.Batch()
				b.Add(ws.Text, []byte(`42["x"]`))
				b.Flush(nil)
				b.Done()
				time.Sleep(2 * time.Second)
			}
		}()
		if err := h.waitEnd(t); err != socketio.ErrStuck {
			t.Errorf("ended by %v", err)
		}
		if took := time.Since(start); took < 42*time.Second || took > 48*time.Second {
			t.Errorf("dropped after %v, want 45 s ± 3 s", took)
		}
		time.Sleep(time.Minute)
	})
}

// A flood of pings whose answers are not taken stops being read.
func TestAbuse15_PingFlood(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		flood, other := w.raw(""), w.raw("")
		w.write(flood, ws.Text, `42["who"]`)
		s := <-h.connected
		sent := make(chan int, 1)
		go func() {
			n := 0
			for ; n < 100_000; n++ {
				b := flood.Batch()
				b.Add(ws.Text, []byte("2"+strings.Repeat("p", 100)))
				err := b.Flush(nil)
				b.Done()
				if err != nil {
					break
				}
			}
			sent <- n
		}()
		synctest.Wait()
		if _, control := s.Waiting(); control > 64<<10+200 {
			t.Errorf("%d bytes of answers wait", control)
		}
		w.write(other, ws.Text, `421["x"]`)
		w.expect(other, `431[]`)
		flood.NetConn().Close()
		if n := <-sent; n > 2000 {
			t.Errorf("%d pings were read", n)
		}
	})
}

func TestCloseSaysLastWords(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		c := w.raw("")
		sid := w.poller("&b64=1")
		w.write(c, ws.Text, `42["who"]`)
		w.expect(c, `42["echo"]`)
		if status, body, _ := w.do("POST", "EIO=3&transport=polling&sid="+sid, "text/plain;charset=UTF-8", `9:42["who"]`); status != 200 || body != "ok" {
			t.Fatalf("POST: %d %q", status, body)
		}
		for range 2 {
			(<-h.connected).Close(ws.CodeGoingAway, nil)
		}
		if code := w.expectClose(c); code != ws.CodeGoingAway {
			t.Errorf("closed with %d", code)
		}
		if _, body, _ := w.do("GET", "EIO=3&transport=polling&sid="+sid, "", ""); body != `10:42["echo"]` {
			t.Errorf("last words %q", body)
		}
		if _, body, _ := w.do("GET", "EIO=3&transport=polling&sid="+sid, "", ""); body != "1:1" {
			t.Errorf("end of the poll is %q", body)
		}
		synctest.Wait()
		if status, _, _ := w.do("GET", "EIO=3&transport=polling&sid="+sid, "", ""); status != 400 {
			t.Errorf("after the end: %d", status)
		}
	})
}

// The end of a server waits for those who poll as long as they may take to come
// again, and not for those who have gone.
func TestCloseWaitsForThosePolling(t *testing.T) {
	for _, c := range []struct {
		away time.Duration // since the last poll
		took time.Duration // the end
	}{{0, 5 * time.Second}, {2 * time.Second, 3 * time.Second}, {6 * time.Second, 0}} {
		bubble(t, func(t *testing.T, w *world, _ *echo) {
			w.poller("")
			time.Sleep(c.away)
			start := time.Now()
			w.stop()
			if took := time.Since(start).Round(100 * time.Millisecond); took != c.took {
				t.Errorf("away for %v: the end took %v, want %v", c.away, took, c.took)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world, _ *echo) {
		sid := w.poller("")
		time.Sleep(10 * time.Second)
		got := make(chan string)
		go func() {
			_, body, _ := w.do("GET", polling+sid, "", "")
			got <- body
		}()
		synctest.Wait()
		start := time.Now()
		w.stop()
		if body, took := <-got, time.Since(start).Round(100*time.Millisecond); body != "1:1" || took != 0 {
			t.Errorf("one that waits is told %q, after %v", body, took)
		}
	})
}
