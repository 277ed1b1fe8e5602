package gateway_test

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// fuzzed starts a gateway whose sends fail at once, so that nothing that a
// fuzzer makes up is waited for.
func fuzzed(f *testing.F) *gatewaytest.Server {
	b := gatewaytest.NewBackend()
	b.SendTimeout = time.Millisecond
	return gatewaytest.Start(f, gatewaytest.WithBackend(b))
}

// bounded fails where n bytes from a page made everything together, test
// included, allocate out of proportion.
func bounded(t *testing.T, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+500*n); got > limit {
		t.Fatalf("%d bytes made it allocate %d", n, got)
	}
}

// FuzzV1Frames gives a page's frames, one a line, to a session that has a peer.
// Whatever they are, the session goes on, or is closed with a reason.
func FuzzV1Frames(f *testing.F) {
	for _, s := range gatewaytest.V1Scripts() {
		var frames []string
		for _, line := range strings.Split(s.Steps, "\n") {
			if _, frame, ok := strings.Cut(strings.TrimSpace(line), " > "); ok {
				frames = append(frames, frame)
			}
		}
		f.Add([]byte(strings.Join(frames, "\n")))
	}
	s := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		p := gatewaytest.Join1(t, s)
		bounded(t, len(data), func() {
			for _, frame := range bytes.Split(data, []byte("\n")) {
				kind := websocket.MessageText
				if !utf8.Valid(frame) {
					kind = websocket.MessageBinary
				}
				if p.WS.Write(t.Context(), kind, frame) != nil {
					break // closed on the way
				}
			}
			_ = p.WS.Write(t.Context(), websocket.MessageText, []byte(`{"requestid":-99,"method":"the last"}`))
			for {
				f, err := p.Read()
				if err != nil {
					if code, reason := gatewaytest.CloseOf(err); code != 1008 {
						t.Fatalf("closed with %d %q", code, reason)
					}
					return
				}
				if f.RequestID == -99 && f.Error != nil && f.Error.Message == "unknown method: the last" {
					return
				}
			}
		})
		_ = p.WS.Close(websocket.StatusNormalClosure, "")
	})
}

// FuzzV2Frames gives a message to a session that listens to itself.
func FuzzV2Frames(f *testing.F) {
	pair := v2.AppendPair(nil, nobody, "chat")
	data := network.Content{Type: network.CBOR, Data: []byte{0x81, 0x61, 'x'}}
	topic := v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "topic"), "room")
	space := v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "space"), "s")
	for _, frames := range [][]byte{
		v2.AppendSend(nil, 1, pair, data, network.Handled, true),
		v2.AppendRequest(nil, 2, "subscribe", topic),
		v2.AppendRequest(nil, 3, "members", topic),
		v2.AppendRequest(nil, 4, "path", v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "peer"), nobody)),
		v2.AppendCount(v2.AppendCount(nil, v2.KindReceived, 2), v2.KindPing, 1),
		v2.AppendReply(v2.AppendCount(nil, v2.KindHandled, 1), 2, data),
		v2.AppendRefuse(v2.AppendCount(nil, v2.KindCancel, 1), 1, "refused", "no"),
		v2.AppendEnd(v2.AppendCredit(v2.AppendChannelContent(nil, 1, []byte("x")), 1, 1<<17), 1, "", "", false),
		v2.AppendEnd(v2.AppendChannelContent(nil, 2, make([]byte, 1000)), 2, "limit", "no", false),
		v2.AppendRequest(nil, 5, "leave", space),
		v2.AppendRequest(nil, 6, "unlisten", v2.AppendText(v2.AppendText(v2.AppendText(v2.AppendText(v2.AppendMap(nil, 2), "space"), "s"), "protocol"), "p")),
		v2.AppendRequest(nil, 7, "info", v2.AppendUint(v2.AppendText(v2.AppendMap(nil, 1), "channel"), 1)),
		{0x81, 0x18, 99}, {0xff},
	} {
		f.Add(frames)
	}
	s := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		p.Call("start", map[string]any{"protocol": "chat"})
		p.Call("subscribe", map[string]any{"topic": "room"})
		p.JoinSpace("s")
		p.Listen("s", "p")
		p.Open("s", p.Welcome.Peer, "p", 1) // to itself: number 2
		bounded(t, len(data), func() {
			if len(data) > 0 {
				p.Write(data)
			}
			const last = v2.MaxID
			_ = p.WS.Write(t.Context(), websocket.MessageBinary, v2.AppendRequest(nil, last, "the last", v2.AppendMap(nil, 0)))
			for {
				f, err := p.Read()
				if err != nil {
					if code, reason := gatewaytest.CloseOf(err); !slices.Contains([]websocket.StatusCode{1000, 1002, 1008}, code) {
						t.Fatalf("closed with %d %q", code, reason)
					}
					return
				}
				if f.Kind != v2.KindError {
					continue
				}
				if _, _, text, _, _ := f.Fault(); text == "unknown method: the last" {
					return
				}
			}
		})
		_ = p.WS.Close(websocket.StatusNormalClosure, "")
	})
}
