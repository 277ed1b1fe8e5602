package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/packed"
	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/wiretest"
)

// TestVectorForms holds all 48 vectors, whatever their schema: packing gives the
// packed form and back, and every form has the same canonical one.
func TestVectorForms(t *testing.T) {
	vectors := wiretest.Vectors(t, "")
	if len(vectors) != 48 {
		t.Fatalf("%d vectors, want 48", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			if got := wire.Pack(nil, v.Unpacked); !bytes.Equal(got, v.Packed) {
				t.Errorf("packed\n%x, want\n%x", got, v.Packed)
			}
			got, err := wire.Unpack(nil, v.Packed)
			if err != nil || !bytes.Equal(got, v.Unpacked) {
				t.Errorf("unpacked\n%x, %v; want\n%x", got, err, v.Unpacked)
			}
			for form, raw := range map[string][]byte{"unpacked": v.Unpacked, "multi-segment": v.MultiSegmentForm} {
				if _, _, err := wire.CheckUnpacked(raw); err != nil {
					t.Errorf("%s: %v", form, err)
				}
				if got := canonical(t, raw); !bytes.Equal(got, v.Canonical) {
					t.Errorf("%s: canonical\n%x, want\n%x", form, got, v.Canonical)
				}
			}
		})
	}
}

func canonical(t *testing.T, raw []byte) []byte {
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

func TestTableLimits(t *testing.T) {
	table := func(segments int, words uint32) []byte {
		b := []byte{byte(segments - 1), byte((segments - 1) >> 8), 0, 0}
		for range segments {
			b = append(b, byte(words), byte(words>>8), byte(words>>16), byte(words>>24))
		}
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		return b
	}
	tests := []struct {
		name string
		in   []byte
		bad  bool
	}{
		{"512 segments", table(512, 0), false},
		{"513 segments", table(513, 0), true},
		{"1 MiB in one", table(1, wire.MaxRecord/8), false},
		{"a word more", table(1, wire.MaxRecord/8+1), true},
		{"sum past 1 MiB", table(2, wire.MaxRecord/16+1), true},
		{"sum past 32 bits", table(511, 0xffff_ffff), true},
		{"cut off", table(9, 0)[:16], true},
		{"nothing", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := wire.Table(tt.in)
			if errors.Is(err, wire.ErrMalformed) != tt.bad {
				t.Errorf("got %v, want malformed: %v", err, tt.bad)
			}
		})
	}
}

func TestTrailingBytesAreRefused(t *testing.T) {
	raw := append([]byte{0, 0, 0, 0, 1, 0, 0, 0}, make([]byte, 8)...)
	if _, _, err := wire.CheckUnpacked(raw); err != nil {
		t.Fatal(err)
	}
	longer := append(raw[:len(raw):len(raw)], make([]byte, 8)...)
	if _, _, err := wire.CheckUnpacked(longer); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("unpacked: %v", err)
	}
	if _, err := wire.Unpack(nil, wire.Pack(nil, longer)); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("packed: %v", err)
	}
}

// TestTrapPackedZeroRun pins why Unpack counts before it unpacks: the library
// allocates 1,024 times the input without an error.
func TestTrapPackedZeroRun(t *testing.T) {
	bomb := append([]byte{0x70, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x00, 0xff}, 4096)...)
	got := wiretest.Allocated(func() {
		if _, err := wire.Unpack(nil, bomb); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("error %v, want malformed", err)
		}
	})
	if limit := wiretest.MaxAllocation(len(bomb)); got > limit {
		t.Errorf("allocated %d bytes, limit %d", got, limit)
	}
	out, err := packed.Unpack(nil, bomb)
	if err != nil || len(out) < 1000*len(bomb)/2 {
		t.Errorf("the library gave %d bytes, %v: this trap has changed", len(out), err)
	}
}

func TestUnpackIsTheInverseOfPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(0, 255), rapid.Uint64()), 0, 600).Draw(t, "words")
		raw := []byte{0, 0, 0, 0, byte(len(words)), byte(len(words) >> 8), 0, 0}
		for _, w := range words {
			for range 8 {
				raw = append(raw, byte(w))
				w >>= 8
			}
		}
		got, err := wire.Unpack(make([]byte, 0, 64), wire.Pack(nil, raw))
		if err != nil || !bytes.Equal(got, raw) {
			t.Fatalf("got %x, %v; want %x", got, err, raw)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	for _, v := range wiretest.Vectors(f, "") {
		f.Add([]byte(v.Packed))
	}
	f.Add([]byte{0x70, 0xff, 0xff, 0xff, 0, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := wire.Unpack(nil, in)
		if err != nil {
			return
		}
		if _, _, err := wire.CheckUnpacked(got); err != nil {
			t.Fatalf("unpacked to what is refused: %v", err)
		}
		want, err := packed.Unpack(nil, in)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("differs from the library: %v", err)
		}
	})
}
