package socketio_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

const polling = "EIO=3&transport=polling&sid="

func (w *world) post(sid, body string) {
	w.t.Helper()
	if status, got, header := w.do("POST", polling+sid, "text/plain;charset=UTF-8", body); status != 200 || got != "ok" || header.Get("Content-Type") != "text/html" {
		w.t.Fatalf("POST %q: %d %q %v", body, status, got, header)
	}
}

func TestPollingOverlap(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		first := make(chan string)
		go func() {
			_, body, _ := w.do("GET", polling+sid, "", "")
			first <- body
		}()
		synctest.Wait()
		if status, _, _ := w.do("GET", polling+sid, "", ""); status != 500 {
			t.Errorf("second GET: %d", status)
		}
		if body := <-first; body != "1:1" {
			t.Errorf("the first GET got %q", body)
		}
		h.waitEnd(t)

		sid = w.poller("")
		go w.do("POST", polling+sid, "text/plain", text(`42["hold"]`))
		synctest.Wait()
		if status, _, _ := w.do("POST", polling+sid, "text/plain", "1:2"); status != 500 {
			t.Errorf("second POST: %d", status)
		}
		h.waitEnd(t)
	})
}

func TestPollingLimits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		for _, body := range []string{strings.Repeat("x", 1_000_001), ""} {
			sid, want := w.poller(""), 413
			query := polling + sid
			if body == "" {
				want, body = 400, "5:4x"
			}
			if status, _, _ := w.do("POST", query, "text/plain", body); status != want {
				t.Errorf("POST: %d, want %d", status, want)
			}
			h.waitEnd(t)
		}
	})
}

// An event and its attachment may come in different bodies, and in either form.
func TestPollingAttachments(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		b64, xhr := w.poller("&b64=1"), w.poller("")
		half := `451-["x",{"_placeholder":true,"num":0}]`
		w.post(b64, text(half))
		w.post(b64, `10:b4AAH+/w==`)
		back := `451-["echo",{"_placeholder":true,"num":0}]`
		if _, body, header := w.do("GET", polling+b64, "", ""); body != text(back)+`10:b4AAH+/w==` {
			t.Errorf("base64: %q %v", body, header)
		}
		if status, body, _ := w.do("POST", polling+xhr, "application/octet-stream", "\x00\x03\x09\xff"+half+"\x01\x05\xff\x04\x00\x01\xfe\xff"); status != 200 {
			t.Fatalf("binary POST: %d %q", status, body)
		}
		_, body, header := w.do("GET", polling+xhr, "", "")
		if want := "\x00\x04\x02\xff" + back + "\x01\x05\xff\x04\x00\x01\xfe\xff"; body != want || header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("binary: %q %v, want %q", body, header, want)
		}
		w.post(xhr, "13:42[\"e\",\"é😀\"]")
		if _, body, _ := w.do("GET", polling+xhr, "", ""); body != "16:42[\"echo\",\"é😀\"]" {
			t.Errorf("UTF-16 lengths: %q", body)
		}
	})
}

// text is a text packet in a polling body.
func text(packet string) string {
	return string(wire.AppendText(nil, wire.Packet{Type: wire.Type(packet[0]), Data: []byte(packet[1:])}))
}

// As recorded: 41, then 1; the waiting GET is answered with a noop.
func TestPollingGoodbye(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		got := make(chan string)
		go func() {
			_, body, _ := w.do("GET", polling+sid, "", "")
			got <- body
		}()
		synctest.Wait()
		w.post(sid, "2:41")
		if h.waitEnd(t) != socketio.ErrGoodbye {
			t.Error("no goodbye")
		}
		w.post(sid, "1:1")
		if body := <-got; body != "1:6" {
			t.Errorf("the waiting GET got %q", body)
		}
		synctest.Wait()
		if w.srv.Len() != 0 {
			t.Error("the session is still there")
		}
		sid = w.poller("")
		w.post(sid, "2:41")
		h.waitEnd(t)
		time.Sleep(15 * time.Second)
		if w.srv.Len() != 0 {
			t.Error("a session without an end after goodbye is still there")
		}
	})
}

// A client that goes away in the middle of a poll ends its session.
func TestPollGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		c, err := w.net.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("GET /socket.io/?" + polling + sid + " HTTP/1.1\r\nHost: x\r\n\r\n"))
		synctest.Wait()
		c.Close()
		h.waitEnd(t)
	})
}

// A response is closed at the limit, and the rest waits for the next GET.
func TestPollingResponseSize(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		big := `42["` + strings.Repeat("a", 60_000) + `"]`
		for range 40 {
			w.post(sid, text(big))
		}
		total, responses := 0, 0
		for total < 40*len(`42["echo"]`) {
			_, body, _ := w.do("GET", polling+sid, "", "")
			if len(body) > 1_100_000 {
				t.Fatalf("a response of %d bytes", len(body))
			}
			total += strings.Count(body, `["echo"`) * len(`42["echo"]`)
			responses++
		}
	})
}

func TestUpgradeByHand(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		c := w.raw("&sid=" + sid)
		got := make(chan string, 1)
		go func() {
			_, body, _ := w.do("GET", polling+sid, "", "")
			got <- body
		}()
		synctest.Wait()
		w.write(c, ws.Text, "2probe")
		w.expect(c, "3probe")
		start := time.Now()
		if body := <-got; body != "1:6" || time.Since(start) > 150*time.Millisecond {
			t.Errorf("the waiting GET got %q after %v", body, time.Since(start))
		}
		w.post(sid, text(`420["before"]`)) // polling still works
		w.write(c, ws.Text, "5")
		w.expect(c, "430[]")
		w.write(c, ws.Text, `421["after"]`)
		w.expect(c, "431[]")
		if status, _, _ := w.do("GET", polling+sid, "", ""); status != 400 {
			t.Errorf("GET after the upgrade: %d", status)
		}
		if status, _, _ := w.do("POST", polling+sid, "text/plain", "1:2"); status != 400 {
			t.Errorf("POST after the upgrade: %d", status)
		}
	})
}

// A GET that still waits when 5 comes is answered with a noop.
func TestUpgradeWhileGetWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		c := w.raw("&sid=" + sid)
		w.write(c, ws.Text, "2probe")
		w.expect(c, "3probe")
		got := make(chan string, 1)
		go func() {
			_, body, _ := w.do("GET", polling+sid, "", "")
			got <- body
		}()
		synctest.Wait()
		w.write(c, ws.Text, "5")
		if body := <-got; body != "1:6" {
			t.Errorf("the waiting GET got %q", body)
		}
		w.write(c, ws.Text, `421["after"]`)
		w.expect(c, "431[]")
	})
}

// An upgrade that is not finished, or wrong, leaves polling as it was.
func TestAbuse39_UpgradeRaces(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, h *echo) {
		sid := w.poller("")
		works := func() {
			t.Helper()
			w.post(sid, text(`420["x"]`))
			if _, body, _ := w.do("GET", polling+sid, "", ""); body != "5:430[]" {
				t.Errorf("polling gives %q", body)
			}
		}
		for _, frames := range [][]string{{}, {"2probe"}, {"2wrong"}, {"2probe", "6"}, {`42["x"]`}, {"5"}} {
			c := w.raw("&sid=" + sid)
			start := time.Now()
			for _, f := range frames {
				w.write(c, ws.Text, f)
				if f == "2probe" {
					w.expect(c, "3probe")
				}
			}
			if status, _, _ := w.do("GET", "EIO=3&transport=websocket&sid="+sid, "", ""); status != 400 {
				t.Errorf("%v: a second upgrade beside the first: %d", frames, status)
			}
			if _, err := c.Read(); err == nil {
				t.Errorf("%v: the WebSocket goes on", frames)
			}
			if took := time.Since(start); took > 11*time.Second {
				t.Errorf("%v: closed after %v", frames, took)
			}
			synctest.Wait()
			works()
		}
	})
}
