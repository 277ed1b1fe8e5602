package p2p

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/wire"
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
	switch Kind(r.IntN(18)) {
	case KindError:
		return &Error{Text: r.text()}
	case KindHandshake:
		return &Handshake{r.number(), r.number(), r.long()}
	case KindArcRequest, KindArcResponse:
		return &GspArc{Response: r.yes(), Arc: r.arc(), Time: r.limit(), Count: r.limit(), Hashes: r.groups()}
	case KindAspectDataRequest:
		return &AspectDataRequest{Hashes: r.groups()}
	case KindAspectDataResponse, KindAspectBroadcast:
		return &AspectData{Broadcast: r.yes(), Records: r.groups()}
	case KindDirectRequest, KindDirectResponse:
		return &Direct{Response: r.yes(), RequestID: r.text(), Data: r.bytes(100)}
	case KindQueryRequest, KindQueryResponse:
		return &Query{Response: r.yes(), RequestID: r.text(), Entry: r.bytes(40), Data: r.bytes(100)}
	case KindPing:
		return &Ping{r.long()}
	case KindPong:
		return &Pong{r.long(), r.long()}
	case KindRecRoot:
		m := &RecRoot{Round: r.number(), State: uint16(r.number()), RootLo: r.long(), RootHi: r.long(), Count: r.long(), Salt: r.bytes(16)}
		if r.yes() {
			m.Pieces = make([]Arc, r.IntN(4))
			for i := range m.Pieces {
				m.Pieces[i] = Arc{r.number(), r.number()}
			}
		}
		return m
	case KindRecSketch:
		return &RecSketch{r.number(), r.number(), r.number(), r.long(), r.long(), r.long(), r.bytes(200)}
	case KindRecWant:
		return &RecWant{r.number(), r.number(), r.bytes(40), r.bytes(40), r.bytes(40), r.arc(), r.bytes(9), r.bytes(32), r.yes()}
	case KindRecBusy:
		return &RecBusy{r.number(), r.number(), uint16(r.number())}
	}
	return &RecBookmark{r.number(), r.yes(), r.long(), r.long(), r.long(), r.long(), r.long(), r.bytes(64)}
}

func (r source) yes() bool { return r.IntN(2) == 0 }

func (r source) number() uint32 {
	switch r.IntN(3) {
	case 0:
		return 0
	case 1:
		return uint32(r.IntN(300))
	}
	return r.Uint32()
}

func (r source) long() uint64 { return uint64(r.number()) | uint64(r.number())<<32 }

func (r source) limit() *uint64 {
	if r.yes() {
		return nil
	}
	return number(r.long())
}

func (r source) arc() *Arc {
	if r.yes() {
		return nil
	}
	return &Arc{r.number(), r.number()}
}

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

func (r source) groups() []Group {
	if r.IntN(5) == 0 {
		return nil
	}
	groups := make([]Group, 1+r.IntN(4))
	for i := range groups {
		groups[i].Entry = r.bytes(32)
		if r.yes() {
			groups[i].Items = make([][]byte, 1+r.IntN(4))
			for k := range groups[i].Items {
				groups[i].Items[k] = r.bytes(40)
			}
		}
	}
	return groups
}

func (r source) text() string {
	const letters = "abc xyz.'()[]=,"
	var out strings.Builder
	for range r.IntN(20) {
		out.WriteByte(letters[r.IntN(len(letters))])
	}
	return out.String()
}

// textOf writes m as the capnp tool reads it.
func textOf(m Message) string {
	names := [...]string{
		"msgError", "msgHandshake", "msgGspArcRequest", "msgGspArcResponse", "msgGspAspectDataRequest",
		"msgGspAspectDataResponse", "msgGspAspectBroadcast", "msgDirectRequest", "msgDirectResponse", "msgQueryRequest",
		"msgQueryResponse", "msgPing", "msgPong", "msgRecRoot", "msgRecSketch", "msgRecWant", "msgRecBusy", "msgRecBookmark",
	}
	f := fields{}
	switch m := m.(type) {
	case *Error:
		f.text("errorText", m.Text)
	case *Handshake:
		f.add("storeArcRadius", m.StoreRadius).add("queryArcRadius", m.QueryRadius).add("features", m.Features)
	case *GspArc:
		f.arc("aspectConstraintArc", m.Arc)
		f.limit("aspectConstraintTime", "gteEpochMs", m.Time)
		f.limit("aspectConstraintCount", "gteLocalCount", m.Count)
		f.groups("aspectHashList", "aspectHashList", m.Hashes)
	case *AspectDataRequest:
		f.groups("aspectHashList", "aspectHashList", m.Hashes)
	case *AspectData:
		f.groups("aspectDataList", "aspectDataList", m.Records)
	case *Direct:
		f.text("requestId", m.RequestID)
		f.data("data", m.Data)
	case *Query:
		f.text("requestId", m.RequestID)
		f.data("entryAddress", m.Entry)
		f.data("data", m.Data)
	case *Ping:
		f.add("sendEpochMs", m.SentMs)
	case *Pong:
		f.add("pingSendEpochMs", m.PingSentMs).add("pingReceivedEpochMs", m.ReceivedMs)
	case *RecRoot:
		f.add("round", m.Round).add("state", m.State).add("rootLo", m.RootLo).add("rootHi", m.RootHi).add("count", m.Count)
		f.data("salt", m.Salt)
		f.pieces("pieces", m.Pieces)
	case *RecSketch:
		f.add("round", m.Round).add("hour", m.Hour).add("first", m.First).add("count", m.Count).add("rootLo", m.RootLo).add("rootHi", m.RootHi)
		f.data("cells", m.Cells)
	case *RecWant:
		f.add("round", m.Round).add("cellsTo", m.CellsTo).add("listMore", m.ListMore)
		f.data("want", m.Want)
		f.data("have", m.Have)
		f.data("list", m.List)
		f.arc("listArc", m.ListArc)
		f.data("bits", m.Bits)
		f.data("listAfter", m.ListAfter)
	case *RecBusy:
		f.add("round", m.Round).add("retryMs", m.RetryMs).add("reason", m.Reason)
	case *RecBookmark:
		f.add("round", m.Round).add("reply", m.Reply).add("epoch", m.Epoch).add("from", m.From).add("next", m.Next)
		f.add("ackEpoch", m.AckEpoch).add("ackNext", m.AckNext)
		f.data("hashes", m.Hashes)
	}
	return fmt.Sprintf("(%s = (%s))", names[m.Kind()], strings.Join(f.parts, ", "))
}

// fields collects the fields of a struct as text.
type fields struct{ parts []string }

func (f *fields) add(name string, v any) *fields {
	f.parts = append(f.parts, fmt.Sprintf("%s = %v", name, v))
	return f
}

func (f *fields) text(name, s string) {
	if s != "" {
		var out strings.Builder
		for _, c := range []byte(s) { // the tool looks for brackets in strings too
			fmt.Fprintf(&out, "\\x%02x", c)
		}
		f.add(name, `"`+out.String()+`"`)
	}
}

func (f *fields) data(name string, b []byte) {
	if b != nil {
		f.add(name, hexOf(b))
	}
}

func hexOf(b []byte) string {
	if len(b) == 0 {
		return `""`
	}
	return fmt.Sprintf("0x\"%x\"", b)
}

func (f *fields) arc(name string, a *Arc) {
	if a != nil {
		f.add(name, arcText(*a))
	}
}

func arcText(a Arc) string { return fmt.Sprintf("(arcStart = %d, arcEnd = %d)", a.Start, a.End) }

func (f *fields) limit(name, field string, v *uint64) {
	if v != nil {
		f.add(name, fmt.Sprintf("(%s = %d)", field, *v))
	}
}

func (f *fields) pieces(name string, pieces []Arc) {
	if pieces == nil {
		return
	}
	var parts []string
	for _, a := range pieces {
		parts = append(parts, arcText(a))
	}
	f.add(name, "["+strings.Join(parts, ", ")+"]")
}

func (f *fields) groups(name, items string, groups []Group) {
	if groups == nil {
		return
	}
	var parts []string
	for _, g := range groups {
		in := fields{}
		in.data("entryAddress", g.Entry)
		if g.Items != nil {
			var list []string
			for _, item := range g.Items {
				list = append(list, hexOf(item))
			}
			in.add(items, "["+strings.Join(list, ", ")+"]")
		}
		parts = append(parts, "("+strings.Join(in.parts, ", ")+")")
	}
	f.add(name, "["+strings.Join(parts, ", ")+"]")
}

// TestDifferentialTool is as the test of the same name in package mux. The text
// form can't say that an element of a list of bytes is null, so messages are
// compared by what they mean.
func TestDifferentialTool(t *testing.T) {
	tool := wiretest.NewTool(t, "p2pcap/p2p.capnp", "P2pMessage")
	r := newSource(t, 3)
	const batch = 2000
	for left := wiretest.Rounds(t, 10_000); left > 0 && !t.Failed(); left -= batch {
		messages := make([]Message, min(batch, left))
		var said, ours bytes.Buffer
		for i := range messages {
			messages[i] = r.message()
			fmt.Fprintln(&said, textOf(messages[i]))
			ours.Write(mustAppend(t, messages[i]))
		}
		theirs := wiretest.Split(t, tool.Convert("text:binary", said.Bytes()))
		for i, raw := range theirs {
			got, err := Decode(raw)
			if err != nil || textOf(got) != textOf(messages[i]) {
				t.Fatalf("message %d: %+v, %v; want %s", i, got, err, textOf(messages[i]))
			}
		}
		want := tool.Convert("binary:canonical", ours.Bytes())
		var segments bytes.Buffer
		for _, raw := range wiretest.Split(t, ours.Bytes()) {
			segments.Write(raw[8:])
		}
		if !bytes.Equal(want, segments.Bytes()) {
			t.Fatal("what we write is not the canonical form")
		}
		if a, b := tool.Convert("binary:text", bytes.Join(theirs, nil)), tool.Convert("binary:text", ours.Bytes()); !bytes.Equal(a, b) {
			t.Fatal("the tool reads our bytes as another text")
		}
	}
}

func mustAppend(t testing.TB, m Message) []byte {
	t.Helper()
	raw, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRoundTrip(t *testing.T) {
	r := newSource(t, 4)
	for range wiretest.Rounds(t, 10_000) {
		m := r.message()
		raw := mustAppend(t, m)
		got, err := Decode(raw)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("got %s, %v; want %s", textOf(got), err, textOf(m))
		}
		back, err := Unpacked(wire.Packed, wire.Pack(nil, raw), nil)
		if err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("packed and back: %x, %v", back, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range wiretest.Vectors(f, "p2p.capnp") {
		f.Add([]byte(v.Unpacked))
		f.Add([]byte(v.MultiSegmentForm))
	}
	r := source{rand.New(rand.NewPCG(1, 1))}
	for range 50 {
		f.Add(mustAppend(f, r.message()))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m Message
		var err error
		if got := wiretest.Allocated(func() { m, err = Decode(raw) }); got > wiretest.MaxAllocation(len(raw)) {
			t.Fatalf("allocated %d bytes for %d", got, len(raw))
		}
		if err != nil {
			return
		}
		if _, other := m.(*Other); other {
			return
		}
		written := mustAppend(t, m)
		again, err := Decode(written)
		if err != nil && len(written) < len(raw) {
			return // many elements with nothing in them, for which we write no word and then refuse so many
		}
		if err != nil || textOf(again) != textOf(m) {
			t.Fatalf("written again: %s, %v; want %s", textOf(again), err, textOf(m))
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(unhex(aliceRecord))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := ParseRecord(raw); err == nil && !bytes.Equal(AppendRecord(nil, &r), raw) {
			t.Fatal("accepted a record it would not write")
		}
	})
}

func FuzzDecodePing(f *testing.F) {
	f.Add(mustAppend(f, &Ping{42}))
	f.Add(mustAppend(f, &Pong{42, 99}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := DecodePing(raw)
		if m == nil {
			return
		}
		want, err := decodeAny(raw)
		if err != nil || !reflect.DeepEqual(m, want) {
			t.Fatalf("got %+v; the generic decoder gives %+v, %v", m, want, err)
		}
	})
}

func BenchmarkDecodeData(b *testing.B) {
	m := &AspectData{}
	for range 100 {
		m.Records = append(m.Records, Group{Entry: make([]byte, 32), Items: [][]byte{make([]byte, 300)}})
	}
	raw := mustAppend(b, m)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTrapCanonicalList pins why nothing but tests calls the library's
// Canonicalize: on a list of structs without pointers it reads past its input.
func TestTrapCanonicalList(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the library brings lists of plain structs to canonical form: this trap has changed")
		}
	}()
	canonical(t, mustAppend(t, &RecRoot{Round: 1, Pieces: []Arc{{1, 2}, {3, 4}}}))
}
