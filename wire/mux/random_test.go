package mux

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"capnproto.org/go/capnp/v3"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/muxcap"
	"github.com/parley-p2p/parley/wire/internal/wiretest"
)

// source makes random messages.
type source struct{ *rand.Rand }

func newSource(t testing.TB, salt uint64) source {
	seed := rand.Uint64()
	t.Logf("seed %d, %d", seed, salt)
	return source{rand.New(rand.NewPCG(seed, salt))}
}

func (r source) message() Message {
	m := Message{Kind: Kind(r.IntN(9)), Channel: r.number()}
	switch m.Kind {
	case Error:
		m.Code = Code(r.IntN(8))
		m.Text = r.text()
	case Create:
		m.SpaceHash, m.To, m.From, m.Proof = r.bytes(40), r.bytes(40), r.bytes(40), r.bytes(80)
		m.Window, m.Hops = r.number(), uint8(r.number())
	case Content:
		m.Content = r.bytes(400)
	case RelayRequest, RelayAccept:
		m.Channel = 0
	case Window:
		m.Window, m.Proof = r.number(), r.bytes(80)
	case RelayTerms:
		m.Channel = 0
		m.Terms = Terms{r.long(), r.number(), r.long(), r.long()}
	case Hello:
		m.Channel = 0
		m.Hello = Parameters{r.bytes(40), r.long(), r.number(), r.number(), r.number()}
	}
	return m
}

// number likes the ends of its range.
func (r source) number() uint32 {
	switch r.IntN(4) {
	case 0:
		return 0
	case 1:
		return 0xffff_ffff - uint32(r.IntN(2))
	case 2:
		return uint32(r.IntN(300))
	}
	return r.Uint32()
}

func (r source) long() uint64 { return uint64(r.number()) | uint64(r.number())<<32 }

// bytes gives nil, or 1 to n bytes with runs of zeros in them.
func (r source) bytes(n int) []byte {
	if r.IntN(5) == 0 {
		return nil
	}
	b := make([]byte, 1+r.IntN(n))
	for i := range b {
		if r.IntN(3) > 0 {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

func (r source) text() string {
	const letters = "abc xyzé.'()[]=,"
	out := []rune{}
	for range r.IntN(20) {
		out = append(out, []rune(letters)[r.IntN(15)])
	}
	return string(out)
}

// textOf writes m as the capnp tool reads it.
func textOf(m *Message) string {
	switch m.Kind {
	case Error:
		return fmt.Sprintf("(msgError = (channelId = %d, errorCode = %s%s))", m.Channel, m.Code, text("errorText", m.Text))
	case Create:
		return fmt.Sprintf("(msgChannelCreate = (channelId = %d%s%s%s%s, window = %d, hops = %d))", m.Channel,
			data("spaceHash", m.SpaceHash), data("toId", m.To), data("fromId", m.From), data("fromProof", m.Proof), m.Window, m.Hops)
	case Close:
		return fmt.Sprintf("(msgChannelClose = %d)", m.Channel)
	case Content:
		return fmt.Sprintf("(msgChannelMessage = (channelId = %d%s))", m.Channel, data("content", m.Content))
	case RelayRequest:
		return "(msgRelayRequest = void)"
	case RelayAccept:
		return "(msgRelayAccept = void)"
	case Window:
		return fmt.Sprintf("(msgChannelWindow = (channelId = %d, add = %d%s))", m.Channel, m.Window, data("toProof", m.Proof))
	case RelayTerms:
		return fmt.Sprintf("(msgRelayTerms = (expireMs = %d, maxCircuits = %d, maxBytes = %d, maxMs = %d))",
			m.Terms.ExpireMs, m.Terms.MaxCircuits, m.Terms.MaxBytes, m.Terms.MaxMs)
	}
	return fmt.Sprintf("(msgHello = (features = %d, initialWindow = %d, maxContent = %d, maxChannels = %d%s))",
		m.Hello.Features, m.Hello.InitialWindow, m.Hello.MaxContent, m.Hello.MaxChannels, data("nonce", m.Hello.Nonce))
}

func data(name string, b []byte) string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf(", %s = 0x\"%x\"", name, b)
}

// text leaves an empty text null, as we do (docs/spec/channels.md §15).
func text(name, s string) string {
	if s == "" {
		return ""
	}
	out := ", " + name + " = \""
	for _, c := range []byte(s) {
		out += fmt.Sprintf("\\x%02x", c)
	}
	return out + "\""
}

// TestDifferentialTool compares with the independent implementation, batch by
// batch: what it writes from a text is read as the message that the text says;
// what we write it reads as the same text, packs to the same bytes and brings to
// the same canonical form.
func TestDifferentialTool(t *testing.T) {
	tool := wiretest.NewTool(t, "muxcap/mux.capnp", "MultiplexMessage")
	r := newSource(t, 1)
	const batch = 2000
	for left := wiretest.Rounds(t, 10_000); left > 0 && !t.Failed(); left -= batch {
		messages := make([]Message, min(batch, left))
		var said, ours bytes.Buffer
		for i := range messages {
			messages[i] = r.message()
			fmt.Fprintln(&said, textOf(&messages[i]))
			ours.Write(Append(nil, &messages[i]))
		}
		theirs := tool.Convert("text:binary", said.Bytes())
		for i, raw := range wiretest.Split(t, theirs) {
			var got Message
			if err := Decode(raw, &got); err != nil || !reflect.DeepEqual(got, messages[i]) {
				t.Fatalf("message %d: %+v, %v; want %s", i, got, err, textOf(&messages[i]))
			}
		}
		for _, form := range []string{"binary:text", "binary:canonical"} {
			if a, b := tool.Convert(form, theirs), tool.Convert(form, ours.Bytes()); !bytes.Equal(a, b) {
				t.Fatalf("%s differs at byte %d of %d", form, firstDifference(a, b), len(a))
			}
		}
		var packed bytes.Buffer
		for _, raw := range wiretest.Split(t, ours.Bytes()) {
			packed.Write(wire.Pack(nil, raw))
		}
		// Packing works on a stream: a run may cross from one message into the
		// next, so what is compared is what both unpack to.
		if back := tool.Convert("packed:binary", packed.Bytes()); !bytes.Equal(back, ours.Bytes()) {
			t.Fatalf("our packed form differs at byte %d", firstDifference(back, ours.Bytes()))
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestDifferentialGenerated holds the hand-written codecs to the generated code.
func TestDifferentialGenerated(t *testing.T) {
	r := newSource(t, 2)
	for range wiretest.Rounds(t, 10_000) {
		m := r.message()
		want := generated(t, &m)
		raw := Append(nil, &m)
		if !bytes.Equal(canonical(t, raw), canonical(t, want)) {
			t.Fatalf("encoder differs for %s\n%x\n%x", textOf(&m), raw, want)
		}
		for _, form := range [][]byte{raw, want} {
			var fast, any Message
			if err := Decode(form, &fast); err != nil {
				t.Fatal(err)
			}
			if err := decodeAny(form, &any); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(fast, any) || !reflect.DeepEqual(fast, m) {
				t.Fatalf("decoders differ for %s:\n%+v\n%+v", textOf(&m), fast, any)
			}
		}
		checkRecordForms(t, &m, raw)
	}
}

// checkRecordForms checks the record of m in both encodings, and the head of a
// content.
func checkRecordForms(t *testing.T, m *Message, raw []byte) {
	t.Helper()
	for _, e := range []wire.Encoding{wire.Unpacked, wire.Packed} {
		rec := AppendRecord([]byte("before"), e, m)[6:]
		size, taken, err := wire.ParseSize(rec)
		if err != nil || size != len(rec)-taken {
			t.Fatalf("%v record: size %d of %d, %v", e, size, len(rec), err)
		}
		back, err := Unpacked(e, rec[taken:], nil)
		if err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("%v record gives %x, %v; want %x", e, back, err, raw)
		}
	}
	id, n, ok := ParseContentHead(raw, len(raw))
	if ok != (m.Kind == Content) || ok && (id != m.Channel || n != len(m.Content)) {
		t.Fatalf("head of %s: %d, %d, %v", textOf(m), id, n, ok)
	}
}

// generated builds m with the generated code.
func generated(t *testing.T, m *Message) []byte {
	t.Helper()
	msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(err)
	root, err := muxcap.NewRootMultiplexMessage(seg)
	check(err)
	set := func(f func([]byte) error, b []byte) {
		if b != nil {
			check(f(b))
		}
	}
	switch m.Kind {
	case Error:
		s, err := root.NewMsgError()
		check(err)
		s.SetChannelId(m.Channel)
		s.SetErrorCode(muxcap.ErrorCode(m.Code))
		check(s.SetErrorText(m.Text))
	case Create:
		s, err := root.NewMsgChannelCreate()
		check(err)
		s.SetChannelId(m.Channel)
		s.SetWindow(m.Window)
		s.SetHops(m.Hops)
		set(s.SetSpaceHash, m.SpaceHash)
		set(s.SetToId, m.To)
		set(s.SetFromId, m.From)
		set(s.SetFromProof, m.Proof)
	case Close:
		root.SetMsgChannelClose(m.Channel)
	case Content:
		s, err := root.NewMsgChannelMessage()
		check(err)
		s.SetChannelId(m.Channel)
		set(s.SetContent, m.Content)
	case RelayRequest:
		root.SetMsgRelayRequest()
	case RelayAccept:
		root.SetMsgRelayAccept()
	case Window:
		s, err := root.NewMsgChannelWindow()
		check(err)
		s.SetChannelId(m.Channel)
		s.SetAdd(m.Window)
		set(s.SetToProof, m.Proof)
	case RelayTerms:
		s, err := root.NewMsgRelayTerms()
		check(err)
		s.SetExpireMs(m.Terms.ExpireMs)
		s.SetMaxCircuits(m.Terms.MaxCircuits)
		s.SetMaxBytes(m.Terms.MaxBytes)
		s.SetMaxMs(m.Terms.MaxMs)
	case Hello:
		s, err := root.NewMsgHello()
		check(err)
		s.SetFeatures(m.Hello.Features)
		s.SetInitialWindow(m.Hello.InitialWindow)
		s.SetMaxContent(m.Hello.MaxContent)
		s.SetMaxChannels(m.Hello.MaxChannels)
		set(s.SetNonce, m.Hello.Nonce)
	}
	raw, err := msg.Marshal()
	check(err)
	return raw
}

// FuzzDecode: no panic, bounded memory, and both decoders agree.
func FuzzDecode(f *testing.F) {
	for _, v := range wiretest.Vectors(f, "multiplex.capnp") {
		f.Add([]byte(v.Unpacked))
		f.Add([]byte(v.MultiSegmentForm))
	}
	for _, in := range wiretest.MalformedInputs(f) {
		if len(in.Bytes) < 1000 {
			f.Add(in.Bytes)
		}
	}
	r := source{rand.New(rand.NewPCG(1, 1))}
	for range 50 {
		m := r.message()
		f.Add(Append(nil, &m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var fast, any Message
		errFast := Decode(raw, &fast)
		var errAny error
		if got := wiretest.Allocated(func() { errAny = decodeAny(raw, &any) }); got > wiretest.MaxAllocation(len(raw)) {
			t.Fatalf("allocated %d bytes for %d", got, len(raw))
		}
		if (errFast == nil) != (errAny == nil) || errFast == nil && !reflect.DeepEqual(fast, any) {
			t.Fatalf("decoders differ: %+v, %v; %+v, %v", fast, errFast, any, errAny)
		}
		if errFast != nil || !fast.Kind.Known() || fast.Missing {
			return
		}
		var again Message
		if err := Decode(Append(nil, &fast), &again); err != nil || !sameMeaning(&fast, &again) {
			t.Fatalf("written again: %+v, %v; want %+v", again, err, fast)
		}
	})
}

func sameMeaning(a, b *Message) bool { return bytes.Equal(Append(nil, a), Append(nil, b)) }

var sink []byte

func BenchmarkAppendContent(b *testing.B) {
	for _, n := range []int{16, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := Message{Kind: Content, Channel: 1, Content: make([]byte, n)}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				sink = AppendRecord(sink[:0], wire.Unpacked, &m)
			}
		})
	}
}

func BenchmarkDecodeContent(b *testing.B) {
	raw := Append(nil, &Message{Kind: Content, Channel: 1, Content: make([]byte, 16)})
	b.ReportAllocs()
	var m Message
	for b.Loop() {
		if err := Decode(raw, &m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeCreate(b *testing.B) {
	raw := Append(nil, &Message{Kind: Create, Channel: 1, SpaceHash: make([]byte, 32), To: make([]byte, 32), From: make([]byte, 32), Proof: make([]byte, 64)})
	b.ReportAllocs()
	var m Message
	for b.Loop() {
		if err := Decode(raw, &m); err != nil {
			b.Fatal(err)
		}
	}
}

// TestOpenContentRecord: it writes what AppendContentRecord does.
func TestOpenContentRecord(t *testing.T) {
	for n := range 70 {
		content := make([]byte, n)
		for i := range content {
			content[i] = byte(i + 1)
		}
		rec := bytes.Repeat([]byte{0xff}, ContentRecordSize(n))
		copy(OpenContentRecord(rec, 77, n), content)
		if want := AppendContentRecord(nil, 77, content); !bytes.Equal(rec, want) {
			t.Errorf("%d bytes: %x, want %x", n, rec, want)
		}
	}
}
