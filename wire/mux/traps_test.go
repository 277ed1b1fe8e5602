package mux

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/muxcap"
	"github.com/parley-p2p/parley/wire/internal/p2pcap"
	"github.com/parley-p2p/parley/wire/internal/wiretest"
)

// The traps of docs/spec/channels.md §15, one test each. Each shows what the
// library does and, where we read, that we don't let it: an upgrade of the
// library that changes one fails here and shows what changed.

func TestTrapMultiSegmentWriting(t *testing.T) {
	build := func(arena capnp.Arena) error {
		_, seg, err := capnp.NewMessage(arena)
		if err != nil {
			return err
		}
		root, err := p2pcap.NewRootP2pMessage(seg)
		if err != nil {
			return err
		}
		arc, err := root.NewMsgGspArcRequest()
		if err != nil {
			return err
		}
		groups, err := arc.NewAspectHashList(10)
		if err != nil {
			return err
		}
		for i := range groups.Len() {
			hashes, err := groups.At(i).NewAspectHashList(10)
			if err != nil {
				return err
			}
			for k := range hashes.Len() {
				if err := hashes.Set(k, make([]byte, 2000)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := build(capnp.MultiSegment(nil)); err == nil || !strings.Contains(err.Error(), "preferred segment is not part of the arena") {
		t.Errorf("MultiSegment gave %v: this trap has changed", err)
	}
	if err := build(capnp.SingleSegment(nil)); err != nil {
		t.Errorf("SingleSegment: %v", err)
	}
}

func root(t *testing.T, rawHex string) (muxcap.MultiplexMessage, []byte) {
	t.Helper()
	raw, err := hex.DecodeString(rawHex)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := capnp.Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	m, err := muxcap.ReadRootMultiplexMessage(msg)
	if err != nil {
		t.Fatal(err)
	}
	return m, raw
}

func TestTrapWrongPointerKind(t *testing.T) {
	m, raw := root(t, "000000000400000000000000010001000300000000000000010000000a00000068656c6c6f000000")
	s, err := m.MsgChannelMessage()
	if err != nil || s.IsValid() || s.ChannelId() != 0 {
		t.Errorf("the library gave %v, %v: this trap has changed", s, err)
	}
	wantMalformed(t, raw)
}

func TestTrapTextWithoutZero(t *testing.T) {
	m, raw := root(t, "0000000006000000000000000100010000000000000000000000000001000100070000000100000001000000120000006868000000000000")
	s, err := m.MsgError()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := s.ErrorText(); text != "" || err != nil {
		t.Errorf("the library gave %q, %v: this trap has changed", text, err)
	}
	wantMalformed(t, raw)
}

func wantMalformed(t *testing.T, raw []byte) {
	t.Helper()
	var m Message
	if err := Decode(raw, &m); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("decoded to %+v, %v; want malformed", m, err)
	}
}

func TestTrapTrailingBytes(t *testing.T) {
	raw := Append(nil, &Message{Kind: Close, Channel: 1})
	longer := append(raw[:len(raw):len(raw)], make([]byte, 8)...)
	if _, err := capnp.Unmarshal(longer); err != nil {
		t.Errorf("the library refuses unpacked trailing bytes, %v: this trap has changed", err)
	}
	if _, err := capnp.UnmarshalPacked(wire.Pack(nil, longer)); err != nil {
		t.Errorf("the library refuses packed trailing words, %v: this trap has changed", err)
	}
	wantMalformed(t, longer)
	if _, err := Unpacked(wire.Packed, wire.Pack(nil, longer), nil); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("packed: %v", err)
	}
}

func TestTrapSharedPointers(t *testing.T) {
	for _, in := range wiretest.MalformedInputs(t) {
		if in.Name != "amplification-shared-blob" {
			continue
		}
		msg, err := capnp.Unmarshal(in.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		m, err := p2pcap.ReadRootP2pMessage(msg)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := m.MsgGspAspectDataResponse()
		groups, _ := data.AspectDataList()
		items, err := groups.At(0).AspectDataList()
		if err != nil {
			t.Fatal(err)
		}
		visited := 0
		for i := range items.Len() {
			b, err := items.At(i)
			if err != nil {
				break
			}
			visited += len(b)
		}
		if visited < 60<<20 || visited > 64<<20 {
			t.Errorf("the library visited %d bytes: this trap has changed", visited)
		}
	}
}

func TestTrapUnknownTagAndEnum(t *testing.T) {
	m, _ := root(t, "00000000030000000000000001000100ff7f0000000000000000000000000000")
	if m.Which() != 0x7fff {
		t.Errorf("the library gave tag %d: this trap has changed", m.Which())
	}
	m, raw := root(t, "000000000500000000000000010001000000000000000000000000000100010007000000090000000000000000000000")
	s, err := m.MsgError()
	if err != nil || s.ErrorCode() != 9 {
		t.Errorf("the library gave code %d, %v: this trap has changed", s.ErrorCode(), err)
	}
	var got Message
	if err := Decode(raw, &got); err != nil || got.Code != Unknown {
		t.Errorf("decoded to %+v, %v; want code unknown", got, err)
	}
}

func TestTrapEmptyText(t *testing.T) {
	_, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	s, err := muxcap.NewRootMsgError(seg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetErrorText(""); err != nil || s.HasErrorText() {
		t.Errorf("the library wrote a list for an empty text (%v): this trap has changed", err)
	}
}

// TestTrapOrderOfObjects: the bytes follow the order of the setters, the
// canonical form does not.
func TestTrapOrderOfObjects(t *testing.T) {
	build := func(toFirst bool) []byte {
		msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
		if err != nil {
			t.Fatal(err)
		}
		r, err := muxcap.NewRootMultiplexMessage(seg)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.NewMsgChannelCreate()
		if err != nil {
			t.Fatal(err)
		}
		set := []func() error{func() error { return s.SetSpaceHash([]byte("space")) }, func() error { return s.SetToId([]byte("bob")) }}
		if toFirst {
			set[0], set[1] = set[1], set[0]
		}
		for _, f := range set {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := msg.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	a, b := build(false), build(true)
	if string(a) == string(b) {
		t.Error("the order of setting no longer shows: this trap has changed")
	}
	if string(canonical(t, a)) != string(canonical(t, b)) {
		t.Error("the canonical forms differ")
	}
}
