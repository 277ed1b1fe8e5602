package wire_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Every text frame and every body of the recordings is read and written again,
// byte for byte.
func TestRecordingsRoundTrip(t *testing.T) {
	file := startest.Load(t)
	for _, sc := range file.Scenarios {
		t.Run(sc.Name, func(t *testing.T) {
			for _, f := range sc.Frames {
				switch {
				case f.Kind == "ws-text" && strings.HasPrefix(f.Text, "b4"):
					p, err := wire.ParseBase64([]byte(f.Text))
					check(t, err)
					if got := wire.AppendBase64(nil, p.Data); string(got) != f.Text {
						t.Errorf("wrote %q for %q", got, f.Text)
					}
				case f.Kind == "ws-text":
					p, err := wire.ParsePacket([]byte(f.Text))
					check(t, err)
					checkPacket(t, p)
				case f.Body != nil && string(f.Body.Bytes()) != "ok" && !bytes.HasPrefix(f.Body.Bytes(), []byte("{")):
					checkBody(t, f.Body.Bytes(), bytes.Contains(f.Headers, []byte("octet-stream")))
				}
			}
		})
	}
}

func checkBody(t *testing.T, body []byte, binary bool) {
	t.Helper()
	decode, encode := wire.DecodeText, wire.AppendText
	if binary {
		decode, encode = wire.DecodeBinary, wire.AppendBinary
	}
	var again []byte
	check(t, decode(body, func(p wire.Packet) error {
		checkPacket(t, p)
		again = encode(again, p)
		return nil
	}))
	if !bytes.Equal(again, body) {
		t.Errorf("wrote\n%q for\n%q", again, body)
	}
}

func checkPacket(t *testing.T, p wire.Packet) {
	t.Helper()
	if p.Binary || p.Type == wire.Ping || p.Type == wire.Pong {
		return
	}
	if p.Type == wire.Open {
		h, err := wire.ParseOpen(p.Data)
		check(t, err)
		if got := wire.AppendOpen(nil, h); string(got[1:]) != string(p.Data) {
			t.Errorf("wrote %q for %q", got[1:], p.Data)
		}
	}
	if p.Type != wire.Message {
		return
	}
	h, err := wire.ParseHeader(p.Data)
	check(t, err)
	if h.Kind == wire.Connect || h.Kind == wire.Disconnect {
		return
	}
	values, count, err := wire.Array(h.Body, nil, 99, wire.Limits{Attachments: h.Attachments})
	check(t, err)
	var want []json.RawMessage
	check(t, json.Unmarshal(h.Body, &want))
	if count != len(want) || len(values) != len(want) {
		t.Fatalf("%d values in %q, want %d", count, h.Body, len(want))
	}
	for i := range want {
		if !bytes.Equal(values[i], want[i]) {
			t.Errorf("value %d is %q, want %q", i, values[i], want[i])
		}
	}
	checkRebuilt(t, h, values, p.Data)
}

// checkRebuilt writes the message again with the Builder.
func checkRebuilt(t *testing.T, h wire.Header, values [][]byte, text []byte) {
	t.Helper()
	var b wire.Builder
	switch h.Kind {
	case wire.Ack:
		b.Ack(nil, h.ID)
	case wire.Event, wire.BinaryEvent:
		name, err := wire.EventName(values)
		check(t, err)
		if h.Kind == wire.Event {
			b.Event(nil, h.ID, name)
		} else {
			b.Binary(nil, h.Attachments, name)
		}
		values = values[1:]
	default:
		t.Fatalf("kind %c in the recordings", h.Kind)
	}
	for _, v := range values {
		if s, ok := wire.String(v); ok {
			b.Str(s)
		} else if n, ok := wire.Placeholder(v); ok {
			b.Placeholder(n)
		} else {
			b.Raw(string(v))
		}
	}
	if got := b.Done(); string(got[1:]) != string(text) {
		t.Errorf("built %q, want %q", got[1:], text)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
