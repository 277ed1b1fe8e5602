package peer

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// vector is one frame of testdata/frames.json, as docs/protocols/message.md
// describes it. Other implementations can be held to the same file.
type vector struct {
	Name    string `json:"name"`
	Hex     string `json:"hex"`
	Kind    kind   `json:"kind"`
	Epoch   string `json:"epoch,omitempty"`
	Seq     uint64 `json:"seq,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Settled uint64 `json:"settled,omitempty"`
	Window  uint64 `json:"window,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Base    uint64 `json:"base,omitempty"`
	Memory  uint64 `json:"memory,omitempty"`
	Level   uint64 `json:"level,omitempty"`
	Reason  uint64 `json:"reason,omitempty"`
	Code    string `json:"code,omitempty"`
	Text    string `json:"text,omitempty"`
	Type    uint8  `json:"type,omitempty"`
	Flags   uint64 `json:"flags,omitempty"`
	Payload string `json:"payload,omitempty"` // hex
}

func readVectors[V any](t testing.TB, file string) (list []V) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no vectors")
	}
	return list
}

// encode writes the vector's fields with the encoders of this package.
func (v vector) encode(t testing.TB) []byte {
	var epoch [epochSize]byte
	copy(epoch[:], unhex(t, v.Epoch))
	payload := unhex(t, v.Payload)
	switch v.Kind {
	case kindHello:
		return appendHello(nil, epoch, v.Seq, v.Settled)
	case kindWelcome:
		return appendWelcome(nil, v.Seq, v.Window, v.Max, v.Base, v.Memory)
	case kindData, kindReply:
		return append(appendContentHead(nil, v.Kind, v.Seq, network.ContentType(v.Type), v.Flags, len(payload)), payload...)
	case kindAck:
		return appendAck(nil, v.Seq, v.Level)
	case kindRefuse:
		return appendRefuse(nil, v.Seq, identity.Code(v.Code), v.Text)
	case kindWindow:
		return appendWindow(nil, v.Window)
	case kindBye:
		return appendBye(nil, byeReason(v.Reason), v.Seq, v.Text)
	case kindSettled:
		return appendSettled(nil, v.Seq)
	}
	t.Fatalf("vector of unknown kind %d", v.Kind)
	return nil
}

func vectorOf(name string, raw []byte, f *frame) vector {
	v := vector{Name: name, Hex: hex.EncodeToString(raw), Kind: f.kind, Seq: f.seq, Version: f.version,
		Settled: f.settled, Window: f.window, Max: f.max, Base: f.base, Memory: f.memory, Level: f.level,
		Reason: uint64(f.reason), Code: f.code, Text: f.text, Type: uint8(f.content.Type), Flags: f.flags,
		Payload: hex.EncodeToString(f.content.Data)}
	if f.kind == kindHello {
		v.Epoch = hex.EncodeToString(f.epoch[:])
	}
	return v
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestFrameVectors(t *testing.T) {
	kinds := make(map[kind]bool)
	for _, v := range readVectors[vector](t, "frames.json") {
		t.Run(v.Name, func(t *testing.T) {
			kinds[v.Kind] = true
			raw := unhex(t, v.Hex)
			if got := v.encode(t); !bytes.Equal(got, raw) {
				t.Fatalf("encodes as %x", got)
			}
			r := newFrameReader(bytes.NewReader(raw), 1<<20)
			var f frame
			if err := r.next(&f); err != nil {
				t.Fatal(err)
			}
			if got := vectorOf(v.Name, raw, &f); got != v {
				t.Fatalf("decodes as %+v", got)
			}
			if r.more() {
				t.Fatal("bytes are left")
			}
		})
	}
	if len(kinds) != int(kindSettled)+1 {
		t.Fatalf("only kinds %v have vectors", kinds)
	}
}

// Later versions may add kinds, and fields behind the known ones.
func TestUnknownKindsAndFieldsAreSkipped(t *testing.T) {
	raw := appendBody(nil, []byte{99, 1, 2, 3})                            // a kind of the future
	raw = appendBody(raw, appendUvarints([]byte{byte(kindAck)}, 5, 2, 77)) // an ack with one field more
	r := newFrameReader(bytes.NewReader(raw), 1000)
	var f frame
	if err := r.next(&f); err != nil || f.kind != 99 {
		t.Fatalf("unknown kind: %+v, %v", f, err)
	}
	if err := r.next(&f); err != nil || f.kind != kindAck || f.seq != 5 || f.level != wireHandled {
		t.Fatalf("longer ack: %+v, %v", f, err)
	}
}

// refVector is one frame of testdata/reference.json.
type refVector struct {
	Name string `json:"name"`
	Head string `json:"head"` // hex of the length
	Body string `json:"body"`
	Type string `json:"type"`
	ID   string `json:"id"`
	Data string `json:"data,omitempty"` // the message's JSON text
}

func TestReferenceFrameVectors(t *testing.T) {
	for _, v := range readVectors[refVector](t, "reference.json") {
		t.Run(v.Name, func(t *testing.T) {
			raw := append(unhex(t, v.Head), v.Body...)
			f, err := newRefReader(bytes.NewReader(raw), 1000).read()
			if err != nil {
				t.Fatal(err)
			}
			if f.Type != v.Type || f.ID != v.ID || string(f.Data) != v.Data {
				t.Fatalf("decodes as %+v", f)
			}
		})
	}
	// What we write, byte for byte.
	if got := string(appendRefData(nil, "1", []byte(`{"reply":1}`))); got != "\x00\x00\x002"+`{"type":"data","id":"1","data":"eyJyZXBseSI6MX0="}` {
		t.Fatalf("data is %q", got)
	}
	if got := string(appendRefAck(nil, `a"b`)); got != "\x00\x00\x00\x1a"+`{"type":"ack","id":"a\"b"}` {
		t.Fatalf("ack is %q", got)
	}
}

func FuzzFrames(f *testing.F) {
	for _, v := range readVectors[vector](f, "frames.json") {
		f.Add(unhex(f, v.Hex))
	}
	f.Add([]byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newFrameReader(bytes.NewReader(raw), 1<<16)
		var fr frame
		for {
			if err := r.next(&fr); err != nil {
				return
			}
			if fr.kind > kindSettled {
				continue
			}
			// What was read and written again reads the same, but for text that is cut.
			again := vectorOf("", nil, &fr)
			encoded := again.encode(t)
			var second frame
			if fr.kind == kindHello && fr.version != protocolVersion {
				continue
			}
			if err := newFrameReader(bytes.NewReader(encoded), 1<<16).next(&second); err != nil {
				t.Fatalf("%+v was read, but not a second time: %v", fr, err)
			}
			if got := vectorOf("", nil, &second); got != again {
				t.Fatalf("%+v became %+v", again, got)
			}
		}
	})
}

// FuzzStreams lets a remote say anything: to a handler and to an opener, in both
// framings. Nothing panics or hangs, and what comes out of it is bounded.
func FuzzStreams(f *testing.F) {
	for _, v := range readVectors[vector](f, "frames.json") {
		f.Add(true, false, append(hello(1), unhex(f, v.Hex)...))
		f.Add(false, false, append(appendWelcome(nil, 0, 1000, 1000, 0, 0), unhex(f, v.Hex)...))
	}
	for _, v := range readVectors[refVector](f, "reference.json") {
		f.Add(true, true, append(unhex(f, v.Head), v.Body...))
		f.Add(false, true, append(unhex(f, v.Head), v.Body...))
	}
	f.Fuzz(func(t *testing.T, opener, plain bool, raw []byte) {
		w := newWorld(t)
		defer w.close()
		to := handling()
		bob, m := w.peer(w.node(Config{MaxMessage: 1 << 16}), 1, to, chat)
		evil := w.cluster.Host(key(t, 66))
		protocol := ownPrefix + chat
		if plain {
			protocol = chat
		}
		say := func(s network.Stream) {
			_, _ = s.Write(raw)
			_ = s.CloseWrite()
			_ = end(s)
			_ = s.Reset()
		}
		if opener {
			s, err := evil.Open(t.Context(), bob.ID(), protocol)
			if err != nil {
				t.Fatal(err)
			}
			say(s)
		} else {
			said := make(chan struct{}, 100)
			evil.Handle(protocol, func(_ context.Context, s network.Stream) {
				say(s)
				said <- struct{}{}
			})
			r := send(t, m, evil.Local(), "1", network.Handled)
			<-said
			m.Leave()
			r.wait(t)
		}
		if n := len(to.texts()); n > len(raw)/4 {
			t.Fatalf("%d messages came of %d bytes", n, len(raw))
		}
	})
}

func FuzzReferenceFrames(f *testing.F) {
	for _, v := range readVectors[refVector](f, "reference.json") {
		f.Add(append(unhex(f, v.Head), v.Body...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newRefReader(bytes.NewReader(raw), 1<<16)
		for {
			whole := r.here()
			frame, err := r.read()
			if whole && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a frame that is here was waited for")
			}
			if err != nil {
				return
			}
			if frame.ID == "" || frame.Type == refData && !network.ValidJSON(frame.Data) {
				t.Fatalf("accepted %+v", frame)
			}
			again, err := newRefReader(bytes.NewReader(appendRefAck(nil, frame.ID)), 1<<20).read()
			if err != nil || again.ID != frame.ID {
				t.Fatalf("the ack for %q reads as %+v, %v", frame.ID, again, err)
			}
		}
	})
}
