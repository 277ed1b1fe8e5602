package p2p

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"
	"golang.org/x/crypto/blake2b"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/wiretest"
)

func TestVectors(t *testing.T) {
	vectors := wiretest.Vectors(t, "p2p.capnp")
	if len(vectors) != 19 {
		t.Fatalf("%d vectors, want 19", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			want, err := Decode(v.Unpacked)
			if err != nil {
				t.Fatal(err)
			}
			unpacked, err := Unpacked(wire.Packed, v.Packed, nil)
			if err != nil {
				t.Fatal(err)
			}
			for form, raw := range map[string][]byte{"packed": unpacked, "multi-segment": v.MultiSegmentForm, "canonical": table(v.Canonical)} {
				got, err := Decode(raw)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %+v, %v; want %+v", form, got, err, want)
				}
			}
			got, err := Append(nil, want)
			if err != nil || !bytes.Equal(got, table(v.Canonical)) {
				t.Errorf("encoded\n%x, %v; want\n%x", got, err, table(v.Canonical))
			}
		})
	}
}

// table puts a segment table before a single segment.
func table(segment []byte) []byte {
	n := len(segment) / 8
	return append([]byte{0, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), 0}, segment...)
}

func canonical(t testing.TB, raw []byte) []byte {
	t.Helper()
	msg, err := capnp.Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	root, err := msg.Root()
	if err != nil {
		t.Fatal(err)
	}
	c, err := capnp.Canonicalize(root.Struct())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func number(n uint64) *uint64 { return &n }

// TestMeaning checks what the vectors say.
func TestMeaning(t *testing.T) {
	entry := unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	want := map[string]Message{
		"p2p/error":             &Error{Text: "no"},
		"p2p/handshake-full":    &Handshake{StoreRadius: 0x80000001, QueryRadius: 0x80000001},
		"p2p/handshake-quarter": &Handshake{StoreRadius: 0x20000000, QueryRadius: 0x80000001},
		"p2p/gsp-arc-request-empty": &GspArc{
			Arc: &Arc{0xffffff00, 0x100}, Time: number(0), Count: number(0),
			Hashes: []Group{},
		},
		"p2p/gsp-arc-request-null-constraints": &GspArc{Hashes: []Group{{Entry: []byte("e"), Items: [][]byte{bytes.Repeat([]byte{0x11}, 32)}}}},
		"p2p/gsp-aspect-broadcast-empty":       &AspectData{Broadcast: true, Records: []Group{}},
		"p2p/gsp-aspect-broadcast":             &AspectData{Broadcast: true, Records: []Group{{Entry: entry, Items: [][]byte{[]byte("hello-1")}}}},
		"p2p/direct-request":                   &Direct{RequestID: "req_alex_3", Data: []byte("wah")},
		"p2p/direct-response":                  &Direct{Response: true, RequestID: "req_alex_3", Data: []byte("echo: wah")},
		"p2p/query-request":                    &Query{RequestID: "q1", Entry: entry, Data: []byte("test_query")},
		"p2p/query-response":                   &Query{Response: true, RequestID: "q1", Entry: entry, Data: []byte{}},
		"p2p/ping":                             &Ping{SentMs: 42},
		"p2p/pong":                             &Pong{PingSentMs: 42, ReceivedMs: 99},
	}
	for _, v := range wiretest.Vectors(t, "p2p.capnp") {
		w, ok := want[v.Name]
		if !ok {
			continue
		}
		delete(want, v.Name)
		got, err := Decode(v.Unpacked)
		if err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("%s: got %+v, %v; want %+v", v.Name, got, err, w)
		}
	}
	for name := range want {
		t.Errorf("no vector %s", name)
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// TestAdditions holds the bytes that docs/spec/gossip.md §14 gives.
func TestAdditions(t *testing.T) {
	const root = "4e8edd19cde2a8ea29f66465d15835f1"
	lo, hi := uint64(0xeaa8e2cd19dd8e4e), uint64(0xf13558d16564f629)
	tests := []struct {
		name, want string
		m          Message
	}{
		{
			"root ask", "00000000060000000000000001000100 0d00000000000000 0000000003000000 0100000000000000" + root,
			&RecRoot{Round: 1, RootLo: lo, RootHi: hi},
		},
		{
			"root same", "00000000040000000000000001000100 0d00000000000000 0000000001000000 0100000001000000",
			&RecRoot{Round: 1, State: 1},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := Append(nil, tt.m)
			if err != nil || !bytes.Equal(raw, unhex(tt.want)) {
				t.Errorf("got\n%x, %v; want\n%x", raw, err, unhex(tt.want))
			}
			got, err := Decode(raw)
			if err != nil || !reflect.DeepEqual(got, tt.m) {
				t.Errorf("decoded %+v, %v", got, err)
			}
		})
	}
	busy := unhex("000000000500000000000000010001001000000000000000000000000200000001000000881300000000000000000000")
	if got, err := Decode(busy); err != nil || !reflect.DeepEqual(got, &RecBusy{Round: 1, RetryMs: 5000}) {
		t.Errorf("busy: %+v, %v", got, err)
	}
	features := unhex("000000000500000000000000010001000100000000000000000000000200000000000020010000800700000000000000")
	m := &Handshake{StoreRadius: 0x20000000, QueryRadius: 0x80000001, Features: 7}
	if got, err := Append(nil, m); err != nil || !bytes.Equal(got, features) {
		t.Errorf("handshake with features: %x, %v", got, err)
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range wiretest.MalformedInputs(t) {
		if in.Schema == "multiplex.capnp" {
			continue
		}
		t.Run(in.Name, func(t *testing.T) {
			var m Message
			var err error
			got := wiretest.Allocated(func() {
				raw := in.Bytes
				if in.Packed {
					raw, err = Unpacked(wire.Packed, raw, nil)
				}
				if err == nil {
					m, err = Decode(raw)
				}
			})
			if limit := wiretest.MaxAllocation(len(in.Bytes)); got > limit {
				t.Errorf("allocated %d bytes, limit %d", got, limit)
			}
			if reject := in.Expect == "reject"; errors.Is(err, wire.ErrMalformed) != reject {
				t.Errorf("error %v, want rejected: %v", err, reject)
			}
			switch in.Name {
			case "unknown-union-tag-p2p": // tag 13, which this schema knows
				if other, ok := m.(*Other); !ok || !other.Missing || other.Tag != KindRecRoot {
					t.Errorf("got %+v, want a root without its struct", m)
				}
			case "older-schema-short-struct":
				if !reflect.DeepEqual(m, &Pong{PingSentMs: 42}) {
					t.Errorf("got %+v, want pong 42, 0", m)
				}
			}
		})
	}
}

func TestUnknownTag(t *testing.T) {
	m, err := Decode(unhex("00000000030000000000000001000100ff7f0000000000000000000000000000"))
	if other, ok := m.(*Other); err != nil || !ok || other.Missing || other.Tag != 0x7fff {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := Append(nil, m); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("encoded an unknown message: %v", err)
	}
}

// aliceRecord is the vector of docs/spec/gossip.md §5.
const aliceRecord = "000000000100040000b4bdc1700100000d0000005a000000110000002a00000011000000020100001d00000002020000746578742f706c61696e00000000000068656c6c6f0000008a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5cdd7d73013e16425510f4fd29769118fbd2bba0cdaf8abc07e805280ef15331be8891c705c1c82127dea137eb67ab32e0737c127fd7df1d044b7b8379d8001207"

func TestRecord(t *testing.T) {
	raw := unhex(aliceRecord)
	r, err := ParseRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	if r.TypeHint != "text/plain" || r.PublishMs != 1583798400000 || string(r.Body) != "hello" {
		t.Errorf("got %+v", r)
	}
	digest := unhex("996d675a37d16abd4c7523fe74253a1da56f616c739886ea2ce44f563ae69be6")
	if !ed25519.Verify(r.Author[:], digest, r.Signature[:]) {
		t.Error("the signature is not of the digest")
	}
	if got := AppendRecord(nil, &r); !bytes.Equal(got, raw) {
		t.Errorf("written again\n%x", got)
	}
	if sum := blake2b.Sum256(raw); hex.EncodeToString(sum[:]) != "656b1bcc80de467846ef8b53d535a47987c3a69275c2b0272238d3866ed2974e" {
		t.Errorf("hash %x", sum)
	}
}

func TestRecordHasOneForm(t *testing.T) {
	raw := unhex(aliceRecord)
	change := func(at int, v byte) []byte {
		b := bytes.Clone(raw)
		b[at] = v
		return b
	}
	extended := append(bytes.Clone(raw), make([]byte, 8)...)
	tests := map[string][]byte{
		"trailing word":  extended,
		"cut off":        raw[:len(raw)-8],
		"odd length":     raw[:len(raw)-1],
		"dirty padding":  change(16+4*8+15, 1),
		"text not ended": change(16+4*8+10, 1),
		"empty":          nil,
	}
	empty := Record{PublishMs: 1583798400000}
	if got := len(AppendRecord(nil, &empty)); got != 144 {
		t.Errorf("record without hint and body has %d bytes, want 144", got)
	}
	for name, in := range tests {
		if _, err := ParseRecord(in); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want malformed", name, err)
		}
	}
}

// TestBitListIsNoListOfStructs: the library reads its elements as empty structs.
func TestBitListIsNoListOfStructs(t *testing.T) {
	raw := unhex("0000000006000000 0000000001000100 0400000000000000 0000000000000100 0100000039000000 ffffffffffffffff 0000000000000000")
	if m, err := Decode(raw); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("got %+v, %v; want malformed", m, err)
	}
}
