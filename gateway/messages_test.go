package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// pages starts a gateway with two v2 pages, of which b listens to chat.
func pages(t *testing.T, opts ...gatewaytest.Option) (s *gatewaytest.Server, a, b *gatewaytest.Page2) {
	t.Helper()
	s = gatewaytest.Start(t, opts...)
	a, b = gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
	b.Call("start", map[string]any{"protocol": "chat"})
	return s, a, b
}

func TestV2_Levels(t *testing.T) {
	_, a, b := pages(t)
	for _, level := range []network.Level{network.Queued, network.Delivered, network.Handled} {
		id := a.Send(b.Welcome.Peer, "chat", 1, level, false)
		m := b.Want(v2.KindMessage)
		if level == network.Handled {
			b.Write(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)))
		}
		if r := a.Want(v2.KindResult); r[0] != id || r[1].(uint64) < uint64(level) {
			t.Errorf("level %v: %v", level, r)
		}
	}
}

func TestV2_RequestAndReply(t *testing.T) {
	_, a, b := pages(t)
	id := a.Send(b.Welcome.Peer, "chat", "what?", network.Handled, true)
	m := b.Want(v2.KindMessage)
	if m[4] != uint64(v2.FlagReply) {
		t.Fatalf("message %v", m)
	}
	b.Write(v2.AppendReply(nil, m[0].(uint64), network.Content{Type: network.JSON, Data: []byte(`{"a": 1}`)}))
	if r := a.Want(v2.KindResult); r[0] != id || string(r[1].(cbor.Tag).Content.([]byte)) != `{"a": 1}` {
		t.Errorf("result %v", r)
	}
	refused := a.Send(b.Welcome.Peer, "chat", "and?", network.Handled, true)
	m = b.Want(v2.KindMessage)
	b.Write(v2.AppendRefuse(nil, m[0].(uint64), "forbidden", "none of your business"))
	if e := a.Want(v2.KindError); e[0] != refused || e[1] != "forbidden" || e[2] != "none of your business" {
		t.Errorf("error %v", e)
	}
	// A code that nobody knows, a delivery that is settled, and one that never was.
	unknown := a.Send(b.Welcome.Peer, "chat", "x", network.Handled, false)
	m = b.Want(v2.KindMessage)
	b.Write(v2.AppendRefuse(nil, m[0].(uint64), "no-such-code", strings.Repeat("ü", 2000)))
	if e := a.Want(v2.KindError); e[0] != unknown || e[1] != "refused" || len(e[2].(string)) > 1024 {
		t.Errorf("error %v", e)
	}
	b.Write(v2.AppendRefuse(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)), 12345, "refused", ""))
	b.Write(v2.AppendReply(nil, 99, network.Content{Type: network.CBOR, Data: []byte{0xf7}}))
	b.Call("status", map[string]any{})
}

func TestV2_ReplyThatIsMalformedIsRefused(t *testing.T) {
	_, a, b := pages(t)
	a.Send(b.Welcome.Peer, "chat", 1, network.Handled, true)
	m := b.Want(v2.KindMessage)
	b.Write(v2.AppendReply(nil, m[0].(uint64), network.Content{Type: network.CBOR, Data: []byte{0xf7}}))
	if e := a.Want(v2.KindError); e[1] != "malformed" {
		t.Errorf("error %v", e)
	}
}

func TestV2_Cancel(t *testing.T) {
	_, a, _ := pages(t)
	id := a.Send(nobody, "chat", 1, network.Handled, false)
	a.Write(v2.AppendCount(nil, v2.KindCancel, id))
	if e := a.Want(v2.KindError); e[0] != id || e[1] != "cancelled" {
		t.Errorf("error %v", e)
	}
	a.Write(v2.AppendCount(nil, v2.KindCancel, id)) // too late, and harmless
	a.Call("status", map[string]any{})
}

func TestV2_PingPong(t *testing.T) {
	_, a, _ := pages(t)
	a.Write(v2.AppendCount(nil, v2.KindPing, 77))
	if p := a.Want(v2.KindPong); p[0] != uint64(77) {
		t.Errorf("pong %v", p)
	}
	var flood []byte
	for range 200 {
		flood = v2.AppendCount(flood, v2.KindPing, 1)
	}
	a.Write(flood)
	if code, _ := a.Closed(); code != 1008 {
		t.Errorf("200 pings: closed with %d", code)
	}
}

func TestV2_Methods(t *testing.T) {
	_, a, b := pages(t)
	a.Call("addPeers", map[string]any{"peers": []string{b.Welcome.Peer}, "addresses": []string{"/ip4/192.0.2.1/tcp/1"}})
	a.Call("removePeers", map[string]any{"peers": []string{b.Welcome.Peer}})
	if code, _ := a.Fail("addPeers", map[string]any{"peers": []string{"bob"}}); code != "malformed" {
		t.Errorf("addPeers of no id: %s", code)
	}
	path := a.Call("path", map[string]any{"peer": nobody}).(map[any]any)
	tried := path["tried"].([]any)[0].(map[any]any)
	if path["peer"] != nobody || path["path"] != "none" || path["address"] != "" || path["rtt"] != uint64(0) || tried["path"] != "direct" || tried["error"] != "no address found" {
		t.Errorf("path %v", path)
	}
	if rtt := a.Call("path", map[string]any{"peer": b.Welcome.Peer}).(map[any]any)["rtt"]; rtt != 0.5 {
		t.Errorf("rtt %v", rtt)
	}
	a.Call("subscribe", map[string]any{"topic": "room"})
	status := a.Call("status", map[string]any{}).(map[any]any)
	if status["topics"] != uint64(1) || status["protocols"] != uint64(0) || status["peers"] != uint64(1) {
		t.Errorf("status %v", status)
	}
	if _, ok := status["uptime"].(uint64); !ok {
		t.Errorf("status %v", status)
	}
}

// TestMixedPages holds a room of v1 and v2 pages: only levels and binary differ.
func TestMixedPages(t *testing.T) {
	s, a, _ := pages(t)
	old := gatewaytest.Join1(t, s)
	old.Call("start", `{"protocol":"chat"}`)
	old.Call("subscribe", `{"topic":"room"}`)
	a.Call("subscribe", map[string]any{"topic": "room"})
	a.Call("start", map[string]any{"protocol": "chat"})
	if f := old.Next(); f.Method != "peerChange" {
		t.Fatalf("frame %+v", f)
	}
	id := a.Send(old.ID, "chat", map[string]any{"b": []byte{0, 255}}, network.Handled, false)
	want := fmt.Sprintf(`{"peer":%q,"protocol":"chat","data": {"b":{"$bytes":"AP8="}}}`, a.Welcome.Peer)
	if f := old.Next(); f.Method != "peerData" || string(f.Params) != want {
		t.Errorf("v1 gets %s, want %s", f.Params, want)
	}
	if r := a.Want(v2.KindResult); r[0] != id || r[1] != uint64(network.Delivered) {
		t.Errorf("to a v1 page: %v", r)
	}
	sent := old.Request("send", fmt.Sprintf(`{"peer":%q,"protocol":"chat","data":{"z":1,"a":12345678901234567890123},"ack":0}`, a.Welcome.Peer))
	m := a.Want(v2.KindMessage)
	if text := string(m[3].(cbor.Tag).Content.([]byte)); text != `{"z":1,"a":12345678901234567890123}` {
		t.Errorf("v2 gets %s", text)
	}
	a.Write(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)))
	if f := old.Next(); f.Method != "ack" {
		t.Errorf("v1 gets %+v, want its ack", f)
	}
	if f := old.Response(sent); f.Error != nil {
		t.Errorf("send: %v", *f.Error)
	}
	old.Call("publish", `{"topic":"room","data":"from v1"}`)
	if p := a.Want(v2.KindPublication); string(p[2].(cbor.Tag).Content.([]byte)) != `"from v1"` {
		t.Errorf("publication %v", p)
	}
}

func TestV1_PresenceStateIsNoJoin(t *testing.T) {
	s, a, _ := pages(t)
	old := gatewaytest.Join1(t, s)
	a.Call("subscribe", map[string]any{"topic": "room", "state": "here"})
	old.Call("subscribe", `{"topic":"room"}`)
	a.Call("subscribe", map[string]any{"topic": "room", "state": "away"})
	a.Call("unsubscribe", map[string]any{"topic": "room"})
	var got []bool
	for range 2 {
		var change struct{ Joined bool }
		if err := json.Unmarshal(old.Next().Params, &change); err != nil {
			t.Fatal(err)
		}
		got = append(got, change.Joined)
	}
	if !got[0] || got[1] {
		t.Errorf("v1 hears %v, want once of coming and once of going", got)
	}
}

// TestG_D3_ManyOutstandingSends sends to a page that hasn't started, so that all
// are outstanding at once, and then starts.
func TestG_D3_ManyOutstandingSends(t *testing.T) {
	const n = 1500 // more than run at once; the others wait in the socket
	s := gatewaytest.Start(t)
	a, b := gatewaytest.Join1(t, s), gatewaytest.Join1(t, s)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			a.Write(fmt.Sprintf(`{"requestid":%d,"method":"send","params":{"peer":%q,"protocol":"late","data":%d,"ack":%d},"isresponse":false}`, i, b.ID, i, i))
		}
	}()
	b.Call("start", `{"protocol":"late"}`)
	for i := range n {
		var m struct{ Data int }
		if err := json.Unmarshal(b.Next().Params, &m); err != nil || m.Data != i {
			t.Fatalf("message %d came as the %dth, %v", m.Data, i, err)
		}
	}
	<-sent
	for i := range n {
		if f := a.Next(); f.Method != "ack" || string(f.Params) != fmt.Sprintf(`{"ack":%d}`, i) {
			t.Fatalf("frame %+v, want ack %d", f, i)
		}
		if f := a.Next(); !f.IsResponse || f.RequestID != int64(i) || f.Error != nil {
			t.Fatalf("frame %+v, want the response to %d: nothing may come between", f, i)
		}
	}
}

func TestG_D9_FullOutboxIsAnError(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.Outbox = 1000
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b))
	p := gatewaytest.Join1(t, s)
	data := strings.Repeat("x", 400)
	send := func() int64 {
		return p.Request("send", fmt.Sprintf(`{"peer":%q,"protocol":"late","data":%q,"ack":-1}`, nobody, data))
	}
	for range 2 {
		if f := p.Response(send()); f.Error != nil {
			t.Fatalf("within the limit: %v", *f.Error)
		}
	}
	if f := p.Response(send()); f.Error == nil || f.Error.Message != "send queue full: "+nobody+" late" {
		t.Errorf("over it: %+v", f)
	}
}

// TestG_D10_SlowPageIsTold fills a page that reads nothing: publications are
// dropped, oldest first, and the page is told how many; messages are not.
func TestG_D10_SlowPageIsTold(t *testing.T) {
	inBubble(t, gateway.Config{SessionBuffer: 64 << 10}, func(t *testing.T, s *gatewaytest.Server) {
		a, slow := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
		slow.Call("subscribe", map[string]any{"topic": "room"})
		slow.Call("start", map[string]any{"protocol": "chat"})
		const n = 200
		data := make([]byte, 1000)
		for i := range n {
			data[0] = byte(i)
			a.Call("publish", map[string]any{"topic": "room", "data": data})
		}
		a.Send(slow.Welcome.Peer, "chat", "not lost", network.Delivered, false)
		synctest.Wait()

		lost, got, last, message := uint64(0), 0, -1, false
		for int(lost)+got < n || !message {
			f := slow.Next()
			e := gatewaytest.Elements(t, f)
			switch f.Kind {
			case v2.KindLost:
				lost += e[1].(uint64)
			case v2.KindPublication:
				got++
				if i := int(e[2].([]byte)[0]); i <= last {
					t.Fatalf("publication %d came behind %d", i, last)
				} else {
					last = i
				}
			case v2.KindMessage:
				message = true
			}
			slow.Write(v2.AppendCount(nil, v2.KindReceived, slow.Got))
		}
		if lost == 0 || last != n-1 || s.Gateway.Stats().PublicationsLost != lost {
			t.Errorf("%d lost, %d came, the last was %d; counted %d", lost, got, last, s.Gateway.Stats().PublicationsLost)
		}
	})
}

// TestAbuse26_SlowPage slows the sender and nobody else.
func TestAbuse26_SlowPage(t *testing.T) {
	inBubble(t, gateway.Config{SessionBuffer: 64 << 10}, func(t *testing.T, s *gatewaytest.Server) {
		a, slow, other := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
		slow.Call("start", map[string]any{"protocol": "chat"})
		other.Call("start", map[string]any{"protocol": "chat"})
		const n = 300
		for range n {
			a.Send(slow.Welcome.Peer, "chat", make([]byte, 1000), network.Delivered, false)
		}
		synctest.Wait()
		id := a.Send(other.Welcome.Peer, "chat", "hi", network.Delivered, false)
		delivered := 0
		for { // the other page's answer comes though most to the slow one are outstanding
			r := a.Want(v2.KindResult)
			if r[0] == id {
				break
			}
			delivered++
		}
		if delivered >= n/2 {
			t.Errorf("%d of %d were delivered to a page that reads nothing", delivered, n)
		}
		for range n {
			m := slow.Want(v2.KindMessage)
			slow.Write(v2.AppendCount(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)), v2.KindReceived, slow.Got))
		}
		for ; delivered < n; delivered++ {
			a.Want(v2.KindResult)
		}
	})
}

func TestStuckPage_IsClosed(t *testing.T) {
	t.Run("v1 that reads nothing", func(t *testing.T) {
		inBubble(t, gateway.Config{SessionBuffer: 4 << 10}, func(t *testing.T, s *gatewaytest.Server) {
			a, stuck := gatewaytest.Join1(t, s), gatewaytest.Join1(t, s)
			stuck.Call("start", `{"protocol":"chat"}`)
			for range 20 {
				a.Request("send", fmt.Sprintf(`{"peer":%q,"protocol":"chat","data":%q,"ack":-1}`, stuck.ID, strings.Repeat("x", 1000)))
			}
			for range 20 {
				a.Next()
			}
			time.Sleep(29 * time.Second)
			if n := s.Backend.Peers(); n != 2 {
				t.Errorf("%d peers after 29 s", n)
			}
			go func() { _, _ = a.Read() }() // answers pings
			time.Sleep(5 * time.Second)
			if n := s.Backend.Peers(); n != 1 {
				t.Errorf("%d peers after 34 s", n)
			}
		})
	})
	t.Run("v2 that confirms nothing", func(t *testing.T) {
		inBubble(t, gateway.Config{SessionBuffer: 4 << 10}, func(t *testing.T, s *gatewaytest.Server) {
			a, stuck := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
			stuck.Call("start", map[string]any{"protocol": "chat"})
			for range 20 {
				a.Send(stuck.Welcome.Peer, "chat", make([]byte, 1000), network.Delivered, false)
			}
			stuck.Patience = time.Minute
			began := time.Now()
			code, reason := stuck.Closed()
			if took := time.Since(began); code != 1013 || took < 30*time.Second || took > 31*time.Second {
				t.Errorf("closed with %d %q after %v, want 1013 after 30 s", code, reason, took)
			}
			if again := stuck.Resume(s, stuck.Got); !again.Welcome.Resumed {
				t.Error("the session is gone")
			}
		})
	})
}

// TestKeepAlive_PageThatHasToWaitIsNotSilent makes the gateway stop reading a
// page for longer than silence is allowed.
func TestKeepAlive_PageThatHasToWaitIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gatewaytest.NewBackend()
		b.SendTimeout = 3 * time.Minute
		s := gatewaytest.Start(t, gatewaytest.WithListener(gatewaytest.NewPipes()), gatewaytest.WithBackend(b), gatewaytest.WithConfig(gateway.Config{Requests: 1}))
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		p.Patience = 10 * time.Minute
		first, second := p.Send(nobody, "x", 1, network.Handled, false), p.Send(nobody, "x", 2, network.Handled, false)
		for _, id := range []uint64{first, second} {
			if e := p.Want(v2.KindError); e[0] != id || e[1] != "unreachable" {
				t.Errorf("error %v", e)
			}
		}
	})
}

func TestStop_NothingFollowsItsAnswer(t *testing.T) {
	s := gatewaytest.Start(t)
	a, b := gatewaytest.Join1(t, s), gatewaytest.Join1(t, s)
	for round := range 20 {
		b.Call("start", `{"protocol":"chat"}`)
		b.Call("subscribe", `{"topic":"room"}`)
		for range 20 {
			a.Request("send", fmt.Sprintf(`{"peer":%q,"protocol":"chat","data":1,"ack":-1}`, b.ID))
			a.Request("publish", `{"topic":"room","data":1}`)
		}
		stop, leave := b.Request("stop", `{"protocol":"chat"}`), b.Request("unsubscribe", `{"topic":"room"}`)
		last := b.Request("listpeers", `{"topic":"other"}`)
		stopped, left := false, false
		for {
			f, err := b.Read()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case f.IsResponse && f.RequestID == stop:
				stopped = true
			case f.IsResponse && f.RequestID == leave:
				left = true
			case f.Method == "peerData" && stopped, f.Method == "topicData" && left, f.Method == "peerChange" && left:
				t.Fatalf("round %d: %s after its end was answered", round, f.Method)
			}
			if f.IsResponse && f.RequestID == last {
				break
			}
		}
		// What was sent too late for this round is there for the next one, or not
		// at all; it must not disturb it.
		for drained := 0; drained < 20; {
			if f := a.Next(); f.IsResponse {
				drained++
			}
		}
	}
}

func TestPublish_KeepsItsOrder(t *testing.T) {
	s, a, b := pages(t)
	old := gatewaytest.Join1(t, s)
	old.Call("subscribe", `{"topic":"room"}`)
	b.Call("subscribe", map[string]any{"topic": "room"})
	var frames []byte
	const n = 500
	for i := range n {
		params, err := cbor.Marshal(map[string]any{"topic": "room", "data": i})
		if err != nil {
			t.Fatal(err)
		}
		frames = v2.AppendRequest(frames, uint64(1000+i), "publish", params)
	}
	a.Write(frames)
	for i := range n {
		if p := b.Want(v2.KindPublication); p[2] != uint64(i) {
			t.Fatalf("publication %v came as the %dth", p[2], i)
		}
		f := old.Next()
		for f.Method != "topicData" {
			f = old.Next()
		}
		if !strings.HasSuffix(string(f.Params), fmt.Sprintf(`"data":%d}`, i)) {
			t.Fatalf("v1: %s came as the %dth", f.Params, i)
		}
	}
}
