package gateway_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestUpgrade_IsNeeded(t *testing.T) {
	s := gatewaytest.Start(t)
	req, err := http.NewRequest("GET", s.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = s.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "websocket" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestUpgrade_IsPolicysFirst(t *testing.T) {
	s := gatewaytest.Start(t)
	for name, tt := range map[string]struct {
		header http.Header
		host   string
		status int
	}{
		"no token":     {http.Header{}, "", 401},
		"other origin": {http.Header{"Authorization": s.Header["Authorization"], "Origin": {"https://evil.example"}}, "", 403},
		"other host":   {s.Header, "evil.example", 421},
	} {
		t.Run(name, func(t *testing.T) {
			_, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+"/ws",
				&websocket.DialOptions{HTTPHeader: tt.header, Host: tt.host})
			if err == nil || resp == nil || resp.StatusCode != tt.status {
				t.Errorf("%v, %v; want %d", resp, err, tt.status)
			}
		})
	}
	if got := s.Gateway.Stats(); got.Opened != 0 {
		t.Errorf("%d sessions were made for refused requests", got.Opened)
	}
}

func TestAbuse20_MalformedFramesOfV1(t *testing.T) {
	s := gatewaytest.Start(t)
	p := gatewaytest.Join1(t, s)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	// The data is at depth 3: its first bracket is the frame's third.
	if e := p.Fail("publish", `{"topic":"x","data":`+deep(511)+`}`); e.Code != 400 || e.Message != "invalid params" {
		t.Errorf("513 levels: %v", e)
	}
	p.Call("publish", `{"topic":"x","data":`+deep(510)+`}`)
	if e := p.Fail("publish", `{"topic":"x","data":`+deep(100_000)+`}`); e.Code != 400 || e.Message != "invalid params" {
		t.Errorf("100,000 levels: %v", e)
	}
	for _, odd := range []string{`{"a":1,"a":2}`, strings.Repeat("9", 1000), "1e999999", `"\ud800"`} { // valid, if odd
		p.Call("publish", `{"topic":"x","data":`+odd+`}`)
	}
	for _, bad := range []string{`{"requestid":1,"method":"publish","params":{"data":NaN}}`, strings.Repeat("[", 60_000), `{"requestid":` + strings.Repeat("9", 400) + `,"method":"x"}`} {
		p.Write(bad)
	}
	if e := p.Fail("fly", "{}"); e.Code != 400 {
		t.Errorf("afterwards: %v", e)
	}
	if got := s.Gateway.Stats().Malformed; got != 3 {
		t.Errorf("%d malformed frames were counted, want 3", got)
	}
	for range 20 { // the socket may be closed on the way
		_ = p.WS.Write(t.Context(), websocket.MessageText, []byte("x"))
	}
	if code, reason := p.Closed(); code != 1008 || !strings.Contains(reason, "20 a minute") {
		t.Errorf("after 23 malformed frames: %d %q", code, reason)
	}
}

func TestAbuse20_MalformedFramesOfV2(t *testing.T) {
	s := gatewaytest.Start(t)
	breaks := map[string][]byte{
		"no CBOR": {0xff}, "not an array": {0xa0}, "cut off": {0x82, 0x10}, "text for a kind": {0x81, 0x61, 0x61},
		"a second hello": v2.AppendHello(nil, v2.HelloFrame{Version: 2}), "a request without id": {0x82, 0x10, 0xf6},
		"received what was never sent": v2.AppendCount(nil, v2.KindReceived, 1000),
	}
	for name, frames := range breaks {
		t.Run(name, func(t *testing.T) {
			p := gatewaytest.Join2(t, s, v2.HelloFrame{})
			p.Write(frames)
			if code, reason := p.Closed(); code != 1002 || reason == "" {
				t.Errorf("closed with %d %q, want 1002", code, reason)
			}
		})
	}
	t.Run("a text message", func(t *testing.T) {
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		if err := p.WS.Write(t.Context(), websocket.MessageText, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if code, reason := p.Closed(); code != 1002 || reason == "" {
			t.Errorf("closed with %d %q, want 1002", code, reason)
		}
	})
	t.Run("wrong content is answered", func(t *testing.T) {
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		pair := v2.AppendPair(nil, p.Welcome.Peer, "x")
		for name, frames := range map[string][]byte{
			"data too deep":         v2.AppendSend(nil, 1, pair, network.Content{Type: network.CBOR, Data: append(bytes.Repeat([]byte{0x81}, 2000), 0x80)}, 2, false),
			"a key twice":           v2.AppendSend(nil, 1, pair, network.Content{Type: network.CBOR, Data: []byte{0xa2, 0x61, 'a', 1, 0x61, 'a', 2}}, 2, false),
			"NaN":                   v2.AppendSend(nil, 1, pair, network.Content{Type: network.CBOR, Data: []byte{0xf9, 0x7e, 0}}, 2, false),
			"level 4":               v2.AppendSend(nil, 1, pair, network.Content{Type: network.CBOR, Data: []byte{1}}, 4, false),
			"a peer that isn't one": v2.AppendSend(nil, 1, v2.AppendPair(nil, "bob", "x"), network.Content{Type: network.CBOR, Data: []byte{1}}, 2, false),
			"params no map":         v2.AppendRequest(nil, 1, "start", []byte{0x80}),
			"protocol no text":      v2.AppendRequest(nil, 1, "start", []byte{0xa1, 0x68, 'p', 'r', 'o', 't', 'o', 'c', 'o', 'l', 1}),
			"protocol missing":      v2.AppendRequest(nil, 1, "start", []byte{0xa0}),
			"peers of numbers":      v2.AppendRequest(nil, 1, "addPeers", []byte{0xa1, 0x65, 'p', 'e', 'e', 'r', 's', 0x81, 1}),
			"state with a tag":      v2.AppendRequest(nil, 1, "subscribe", []byte{0xa2, 0x65, 't', 'o', 'p', 'i', 'c', 0x61, 'x', 0x65, 's', 't', 'a', 't', 'e', 0xc1, 1}),
		} {
			p.Write(frames)
			if e := p.Want(v2.KindError); e[0] != uint64(1) || e[1] != "malformed" || e[2] == "" {
				t.Errorf("%s: %v", name, e)
			}
		}
		p.Call("status", map[string]any{})
	})
}

func TestAbuse21_UnknownMethodAndVersion(t *testing.T) {
	s := gatewaytest.Start(t)
	p := gatewaytest.Join2(t, s, v2.HelloFrame{})
	if code, text := p.Fail("fly", map[string]any{}); code != identity.CodeUnknownMethod || text != "unknown method: fly" {
		t.Errorf("unknown method: %s %q", code, text)
	}
	p.Write([]byte{0x81, 0x18, 99, 0x82, 0x0f, 0xf6}) // kinds 99 and 15
	p.Call("status", map[string]any{})
	if got := s.Gateway.Stats().UnknownFrames; got != 1 {
		t.Errorf("%d unknown frames were counted, want the one that is numbered", got)
	}
	old := gatewaytest.Open2(t, s)
	old.Write(v2.AppendHello(nil, v2.HelloFrame{Version: 3}))
	if bye := old.Want(v2.KindBye); bye[0] != "unsupported" {
		t.Errorf("version 3: %v", bye)
	}
	if code, _ := old.Closed(); code != 1002 {
		t.Errorf("version 3: closed with %d", code)
	}
}

func TestAbuse22_IdsUsedAgain(t *testing.T) {
	s := gatewaytest.Start(t)
	p := gatewaytest.Join2(t, s, v2.HelloFrame{})
	params := v2.AppendMap(nil, 0)
	p.Write(append(v2.AppendRequest(nil, 7, "status", params), v2.AppendRequest(nil, 7, "status", params)...))
	for range 2 {
		if r := p.Want(v2.KindResult); r[0] != uint64(7) {
			t.Errorf("%v", r)
		}
	}
	old := gatewaytest.Join1(t, s)
	for _, id := range []int64{-1, -1, -1 << 63, 0, 0} {
		old.Write(fmt.Sprintf(`{"requestid":%d,"method":"listpeers","params":{"topic":"x"},"isresponse":false}`, id))
	}
	answered := map[int64]int{}
	for range 5 {
		if f := old.Next(); f.IsResponse && f.Error == nil {
			answered[f.RequestID]++
		}
	}
	if answered[-1] != 2 || answered[-1<<63] != 1 || answered[0] != 2 {
		t.Errorf("v1: answered %v", answered)
	}
	// v2 has no negative ids: such a frame is none of the protocol.
	p.Write([]byte{0x84, 0x10, 0x20, 0x66, 's', 't', 'a', 't', 'u', 's', 0xa0}) // [16, -1, "status", {}]
	if code, reason := p.Closed(); code != 1002 {
		t.Errorf("v2: a negative id is closed with %d %q", code, reason)
	}
}

func TestAbuse23_SubscriptionsAreLimited(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{Topics: 3, Protocols: 2}))
	p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	for i := range 3 {
		p.Call("subscribe", map[string]any{"topic": fmt.Sprint("t", i)})
		old.Call("subscribe", fmt.Sprintf(`{"topic":"t%d"}`, i))
	}
	const want = "too many topics, limit 3 a page"
	if code, text := p.Fail("subscribe", map[string]any{"topic": "t3"}); code != identity.CodeLimit || text != want {
		t.Errorf("v2: %s %q", code, text)
	}
	if e := old.Fail("subscribe", `{"topic":"t3"}`); e.Code != 500 || e.Message != want {
		t.Errorf("v1: %v", e)
	}
	if f := p.Answer(p.Request("subscribe", map[string]any{"topic": "t3"})); f.Kind != v2.KindError || f.Items != 4 || gatewaytest.Elements(t, f)[3].(uint64) == 0 {
		t.Errorf("v2: a limit without a hint when to try again: frame %d %v", f.Kind, gatewaytest.Elements(t, f))
	}
	p.Call("subscribe", map[string]any{"topic": "t1"}) // again is not one more
	p.Call("unsubscribe", map[string]any{"topic": "t0"})
	p.Call("subscribe", map[string]any{"topic": "t3"})
	for i := range 2 {
		p.Call("start", map[string]any{"protocol": fmt.Sprint("p", i)})
	}
	if code, text := p.Fail("start", map[string]any{"protocol": "p2"}); code != identity.CodeLimit || text != "too many protocols, limit 2 a page" {
		t.Errorf("protocols: %s %q", code, text)
	}
}

func TestAbuse24_NamesThatAreRefused(t *testing.T) {
	s := gatewaytest.Start(t)
	p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	for name, topic := range map[string]string{
		"empty": "", "NUL": "a\x00b", "newline": "a\nb", "delete": "a\x7fb", "C1": "a\u0085b", "64 KiB": strings.Repeat("a", 64<<10), "257 bytes": strings.Repeat("a", 257),
		"right to left": "a\u202eb", "isolate": "a\u2067b", "mark": "a\u200fb", "reserved": "/parley/presence",
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"subscribe", "publish"} {
				params := map[string]any{"topic": topic, "data": 1}
				if code, text := p.Fail(method, params); (code != identity.CodeMalformed && code != identity.CodeReserved) || len(text) > 300 {
					t.Errorf("%s: %s %q", method, code, text)
				}
			}
			if name == "reserved" {
				return // which protocols are, the peer knows
			}
			if code, text := p.Fail("start", map[string]any{"protocol": topic}); code != identity.CodeReserved || len(text) > 300 {
				t.Errorf("start: %s %q", code, text)
			}
			if e := old.Fail("subscribe", fmt.Sprintf(`{"topic":%s}`, quote(topic))); e.Code != 500 || len(e.Message) > 300 {
				t.Errorf("v1: %v", e)
			}
			p.Call("unsubscribe", map[string]any{"topic": topic}) // was never there
		})
	}
	for name, topic := range map[string]string{"256 bytes": strings.Repeat("a", 256), "Arabic": "غرفة", "emoji": "🦜 room", "slashes": "/a/b"} {
		t.Run(name, func(t *testing.T) { p.Call("subscribe", map[string]any{"topic": topic}) })
	}
}

func TestAbuse25_TooLargeIsAnError(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{MaxMessage: 1000}))
	p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	big := strings.Repeat("a", 1<<20+1)
	if code, text := p.Fail("publish", map[string]any{"topic": "x", "data": []byte(big)}); code != identity.CodeTooLarge || text != "message too large: 1048577 bytes, limit 1048576" {
		t.Errorf("publish: %s %q", code, text)
	}
	if e := old.Fail("publish", `{"topic":"x","data":"`+big[:1<<20-1]+`"}`); e.Code != 500 || e.Message != "message too large: 1048577 bytes, limit 1048576" {
		t.Errorf("publish, v1: %v", e)
	}
	old.Call("publish", `{"topic":"x","data":"`+big[:1<<20-2]+`"}`)
	p.Send(p.Welcome.Peer, "x", []byte(big[:1001]), network.Handled, false)
	if e := p.Want(v2.KindError); e[1] != "too-large" || e[2] != "message too large: 1001 bytes, limit 1000" {
		t.Errorf("send: %v", e)
	}
	if e := old.Fail("send", `{"peer":"`+old.ID+`","protocol":"x","data":"`+big[:999]+`"}`); e.Message != "message too large: 1001 bytes, limit 1000" {
		t.Errorf("send, v1: %v", e)
	}
}

func TestFrameLimit_IsRaisedWithThePeer(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{MaxFrame: 1 << 20}))
	before := gatewaytest.Open1(t, s)
	before.Write(strings.Repeat(" ", 64<<10+1))
	if code, _ := before.Closed(); code != 1009 {
		t.Errorf("64 KiB before peer: %d", code)
	}
	p := gatewaytest.Join1(t, s)
	p.Write(strings.Repeat(" ", 1<<20-100) + `{"requestid":5,"method":"fly"}`)
	p.Response(5)
	p.Write(strings.Repeat(" ", 1<<20+1))
	if code, _ := p.Closed(); code != 1009 {
		t.Errorf("over gateway.maxFrame: %d", code)
	}
	q := gatewaytest.Open2(t, s)
	q.Write(make([]byte, 64<<10+1))
	if code, _ := q.Closed(); code != 1009 {
		t.Errorf("64 KiB before welcome: %d", code)
	}
}

func TestSessions_AreLimited(t *testing.T) {
	s := gatewaytest.Start(t, gatewaytest.WithConfig(gateway.Config{Sessions: 3, PerOrigin: 1}),
		gatewaytest.WithAccess(access.Config{Bearer: "test-token", Origins: []string{"https://app.example.org"}}))
	foreign := s.Header.Clone()
	foreign.Set("Origin", "https://app.example.org")
	guest := &gatewaytest.Server{URL: s.URL, Header: foreign}
	first := gatewaytest.Join2(t, guest, v2.HelloFrame{})
	second := gatewaytest.Open2(t, guest)
	second.Write(v2.AppendHello(nil, v2.HelloFrame{Version: 2}))
	if bye := second.Want(v2.KindBye); bye[0] != "limit" || bye[1] != "too many sessions of this origin, limit 1" || bye[2] != uint64(5000) {
		t.Errorf("bye %v", bye)
	}
	if code, _ := second.Closed(); code != 1013 {
		t.Errorf("closed with %d", code)
	}
	if code, reason := gatewaytest.Open1(t, guest).Closed(); code != 1013 || !strings.Contains(reason, "limit 1") {
		t.Errorf("v1: closed with %d %q", code, reason)
	}
	gatewaytest.Join2(t, s, v2.HelloFrame{})
	gatewaytest.Join1(t, s)
	if code, reason := gatewaytest.Open1(t, s).Closed(); code != 1013 || reason != "too many sessions, limit 3" {
		t.Errorf("a fourth session: %d %q", code, reason)
	}
	// A session that is there can be resumed nevertheless.
	if again := first.Resume(guest, first.Got); !again.Welcome.Resumed {
		t.Error("a full gateway doesn't resume")
	}
	if code, reason := first.Closed(); code != 1001 || reason != "another socket took the session" {
		t.Errorf("the first socket: %d %q", code, reason)
	}
	if got := s.Gateway.Stats(); got.Sessions != 3 || got.Refused != 3 {
		t.Errorf("stats %+v", got)
	}
}

func TestG_S7_RequestsAreLimitedByRate(t *testing.T) {
	inBubble(t, gateway.Config{RequestRate: 5}, func(t *testing.T, s *gatewaytest.Server) { // no time passes
		p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
		var frames []byte
		for i := range 50 {
			frames = v2.AppendRequest(frames, uint64(i), "status", v2.AppendMap(nil, 0))
			old.Write(fmt.Sprintf(`{"requestid":%d,"method":"listpeers","params":{"topic":"x"}}`, 100+i))
		}
		p.Write(frames)
		limited := 0
		for range 50 {
			f := p.Next()
			got := gatewaytest.Elements(t, f)
			if f.Kind == v2.KindError {
				limited++
				if got[1] != "limit" || got[2] != "too many requests, limit 5 a second" || got[3].(uint64) == 0 {
					t.Fatalf("error %v", got)
				}
			}
		}
		if limited != 40 {
			t.Errorf("%d of 50 were refused, want 40", limited)
		}
		limited = 0
		for range 50 {
			if f := old.Next(); f.Error != nil {
				limited++
				if f.Error.Code != 500 || f.Error.Message != "too many requests, limit 5 a second" {
					t.Fatalf("error %v", *f.Error)
				}
			}
		}
		if limited != 40 {
			t.Errorf("v1: %d of 50 were refused, want 40", limited)
		}
		<-time.After(time.Second)
		p.Call("status", map[string]any{})
		old.Call("listpeers", `{"topic":"x"}`)
	})
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String() + `"`
}
