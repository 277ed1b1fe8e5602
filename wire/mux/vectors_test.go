package mux

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/wiretest"
)

// emptyText names the vector whose Text is empty but not null: what it means is
// the same, the bytes are not (docs/spec/channels.md §15).
const emptyText = "multiplex/error-badSpaceHash"

func TestVectors(t *testing.T) {
	for _, v := range wiretest.Vectors(t, "multiplex.capnp") {
		t.Run(v.Name, func(t *testing.T) {
			var want Message
			if err := Decode(v.Unpacked, &want); err != nil {
				t.Fatal(err)
			}
			unpacked, err := Unpacked(wire.Packed, v.Packed, nil)
			if err != nil {
				t.Fatal(err)
			}
			for form, raw := range map[string][]byte{"packed": unpacked, "multi-segment": v.MultiSegmentForm, "canonical": table(v.Canonical)} {
				var got Message
				if err := Decode(raw, &got); err != nil {
					t.Errorf("%s: %v", form, err)
				} else if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %+v, want %+v", form, got, want)
				}
			}
			var any Message
			if err := decodeAny(v.Unpacked, &any); err != nil || !reflect.DeepEqual(any, want) {
				t.Errorf("generic decoder: %+v, %v; want %+v", any, err, want)
			}
			if want.Missing || v.Name == emptyText {
				return
			}
			if got := canonical(t, Append(nil, &want)); !bytes.Equal(got, v.Canonical) {
				t.Errorf("encoded\n%x, want\n%x", got, v.Canonical)
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

// TestMeaning checks what the vectors say, for the kinds whose vectors name
// their values.
func TestMeaning(t *testing.T) {
	want := map[string]Message{
		"multiplex/error-badChannelId":       {Kind: Error, Channel: 7, Code: BadChannelID, Text: "no such channel"},
		"multiplex/error-connection-level":   {Kind: Error, Channel: WholeConnection, Text: "protocol violation"},
		"multiplex/error-badFromId":          {Kind: Error, Channel: 2, Code: BadFromID, Text: "blocked é"},
		emptyText:                            {Kind: Error, Channel: 2, Code: BadSpaceHash},
		"multiplex/channel-create-short-ids": {Kind: Create, Channel: 1, SpaceHash: []byte("space"), To: []byte("bob"), From: []byte("alice")},
		"multiplex/channel-create-null-ids":  {Kind: Create, Channel: 3},
		"multiplex/channel-close":            {Kind: Close, Channel: 1},
		"multiplex/channel-message":          {Kind: Content, Channel: 1, Content: []byte("hello")},
		"multiplex/channel-message-null":     {Kind: Content, Channel: 1},
		"multiplex/relay-request":            {Kind: RelayRequest},
		"multiplex/relay-accept":             {Kind: RelayAccept},
		"multiplex/all-default":              {Kind: Error, Missing: true},
	}
	for _, v := range wiretest.Vectors(t, "multiplex.capnp") {
		w, ok := want[v.Name]
		if !ok {
			continue
		}
		delete(want, v.Name)
		var got Message
		if err := Decode(v.Unpacked, &got); err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("%s: got %+v, %v; want %+v", v.Name, got, err, w)
		}
	}
	for name := range want {
		t.Errorf("no vector %s", name)
	}
}

// TestAdditions holds the bytes that docs/spec/channels.md §16 gives for
// parley's additions.
func TestAdditions(t *testing.T) {
	tests := []struct {
		name             string
		m                Message
		unpacked, packed string
	}{
		{
			"window",
			Message{Kind: Window, Channel: 1, Window: 131072},
			"000000000500000000000000010001000600000000000000000000000100010001000000000002000000000000000000",
			"100550010101065001014101020000",
		},
		{
			"terms",
			Message{Kind: RelayTerms, Terms: Terms{ExpireMs: 3600000, MaxCircuits: 16, MaxBytes: 131072, MaxMs: 120000}},
			"000000000700000000000000010001000700000000000000000000000400000080ee36000000000010000000000000000000020000000000c0d4010000000000",
			"1007500101010710040780ee360110040207c0d401",
		},
		{
			"hello",
			Message{Kind: Hello, Hello: Parameters{Nonce: bytes.Repeat([]byte{0xa1}, 32), Features: 3, InitialWindow: 262144, MaxContent: 65536, MaxChannels: 1024}},
			"000000000b0000000000000001000100080000000000000000000000030001000300000000000000000004000000010000040000000000000100000002010000" + strings.Repeat("a1", 32), "",
		},
		{
			"limit",
			Message{Kind: Error, Channel: 9, Code: Limit},
			"000000000500000000000000010001000000000000000000000000000100010009000000050000000000000000000000",
			"100550010100005001011109050000",
		},
		{
			"refused",
			Message{Kind: Error, Channel: WholeConnection, Code: RelayRefused},
			"0000000005000000000000000100010000000000000000000000000001000100ffffffff060000000000000000000000",
			"100550010100005001011fffffffff060000",
		},
		{
			"create",
			Message{Kind: Create, Channel: 1, SpaceHash: []byte("space"), To: []byte("bob"), From: []byte("alice"), Proof: []byte("proof"), Window: 32768, Hops: 1},
			"000000000d000000000000000100010001000000000000000000000002000400010000000080000001000000000000000d0000002a0000000d0000001a0000000d0000002a0000000d0000002a0000007370616365000000626f620000000000616c69636500000070726f6f66000000",
			"100d50010101015002042101800101110d2a110d1a110d2a110d2a1f737061636507626f621f616c6963651f70726f6f66",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := Append(nil, &tt.m)
			if got := hex.EncodeToString(raw); got != tt.unpacked {
				t.Errorf("unpacked\n%s, want\n%s", got, tt.unpacked)
			}
			if got := hex.EncodeToString(wire.Pack(nil, raw)); tt.packed != "" && got != tt.packed {
				t.Errorf("packed\n%s, want\n%s", got, tt.packed)
			}
			var got Message
			if err := Decode(raw, &got); err != nil || !reflect.DeepEqual(got, tt.m) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.m)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range wiretest.MalformedInputs(t) {
		if in.Schema == "p2p.capnp" {
			continue
		}
		t.Run(in.Name, func(t *testing.T) {
			for _, codec := range []struct {
				name   string
				decode func([]byte, *Message) error
			}{{"usual layout first", Decode}, {"generic", decodeAny}} {
				var m Message
				var err error
				got := wiretest.Allocated(func() { err = decodeForm(in, codec.decode, &m) })
				if limit := wiretest.MaxAllocation(len(in.Bytes)); got > limit {
					t.Errorf("%s: allocated %d bytes, limit %d", codec.name, got, limit)
				}
				if reject := in.Expect == "reject"; errors.Is(err, wire.ErrMalformed) != reject {
					t.Errorf("%s: error %v, want rejected: %v", codec.name, err, reject)
				}
				checkAccepted(t, in.Name, &m)
			}
		})
	}
}

func decodeForm(in wiretest.Malformed, decode func([]byte, *Message) error, m *Message) error {
	raw := in.Bytes
	if in.Packed {
		var err error
		if raw, err = Unpacked(wire.Packed, raw, nil); err != nil {
			return err
		}
	}
	return decode(raw, m)
}

// checkAccepted checks what an accepted input decodes to.
func checkAccepted(t *testing.T, name string, m *Message) {
	t.Helper()
	switch name {
	case "unknown-union-tag": // tag 6, which this schema knows: the null struct is refused
		if m.Kind != Window || !errors.Is(m.Check(), wire.ErrMalformed) {
			t.Errorf("got %+v, %v", m, m.Check())
		}
	case "unknown-enum":
		if m.Code != Unknown || m.Channel != 7 || m.Check() != nil {
			t.Errorf("got %+v, want code unknown on channel 7", m)
		}
	case "extra-data-word-newer-schema":
		if m.Kind != Close || m.Channel != 7 {
			t.Errorf("got %+v, want close 7", m)
		}
	}
}

// TestUnknownTag uses a tag that no schema will have for long.
func TestUnknownTag(t *testing.T) {
	raw, _ := hex.DecodeString("00000000030000000000000001000100ff7f0000000000000000000000000000")
	var m Message
	if err := Decode(raw, &m); err != nil || m.Kind != 0x7fff || m.Kind.Known() || m.Check() != nil {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestNullStructIsRefused: tags 0, 1, 3, 6, 7 and 8 need their struct.
func TestNullStructIsRefused(t *testing.T) {
	for k := Error; k <= Hello; k++ {
		raw := appendShort(nil, k, 5)
		var m Message
		if err := Decode(raw, &m); err != nil {
			t.Fatalf("kind %d: %v", k, err)
		}
		if refused := m.Check() != nil; refused != k.needsStruct() {
			t.Errorf("kind %d: refused %v", k, refused)
		}
	}
}
