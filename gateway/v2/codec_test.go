package v2_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// general is a CBOR library set to the rules of client/PROTOCOL.md as far as it
// has settings for them; acceptable checks the rest.
var general = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 2 * v2.MaxNesting, MaxArrayElements: v2.MaxItems, MaxMapPairs: v2.MaxItems,
		NaN: cbor.NaNDecodeForbidden, Inf: cbor.InfDecodeForbidden, BignumTag: cbor.BignumTagForbidden,
		TimeTag: cbor.DecTagIgnored, ByteStringToString: cbor.ByteStringToStringForbidden,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// acceptable is the rule for data, said again over what the library read.
func acceptable(v any, depth int) bool {
	switch v := v.(type) {
	case nil, bool, uint64, int64, float64, string, []byte:
		return true
	case []any:
		for _, e := range v {
			if !acceptable(e, depth+1) {
				return false
			}
		}
		return depth < v2.MaxNesting
	case map[any]any:
		for k, e := range v {
			if _, text := k.(string); !text || !acceptable(e, depth+1) {
				return false
			}
		}
		return depth < v2.MaxNesting
	case cbor.Tag:
		text, ok := v.Content.([]byte)
		return ok && v.Number == v2.TagJSON && network.ValidJSON(text)
	}
	return false
}

// agree fails where the hand-written check and the general library differ.
func agree(t interface{ Fatalf(string, ...any) }, raw []byte) {
	c, err := v2.ParseData(raw)
	var v any
	gerr := general.Unmarshal(raw, &v)
	want := gerr == nil && acceptable(v, 0)
	// What the library reads as undefined or as a big integer isn't told apart above.
	if want && err != nil && (bytes.IndexByte(raw, 0xf7) >= 0 || bytes.IndexByte(raw, 0x3b) >= 0) {
		return
	}
	if !want && err == nil && bytes.IndexByte(raw, 0x3b) >= 0 {
		return // -1-n beyond 63 bits, which Go's int64 doesn't hold
	}
	if want != (err == nil) {
		t.Fatalf("% x: ParseData says %v, the library %v (%#v)", raw, err, gerr, v)
	}
	if err != nil {
		if identity.CodeOf(err) != identity.CodeMalformed {
			t.Fatalf("error %v has no code", err)
		}
		return
	}
	if err := v2.CheckContent(c); err != nil {
		t.Fatalf("what was read can't be written: %v", err)
	}
	if _, err := c.JSON(); err != nil {
		t.Fatalf("% x can't be told to a v1 page: %v", raw, err)
	}
}

func FuzzData(f *testing.F) {
	for _, v := range append(dataVectors(), badData()...) {
		f.Add(unhexed(v.Hex))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		agree(t, raw)
	})
}

func badData() []vector { data, _ := badVectors(); return data }

func unhexed(s string) []byte {
	var raw []byte
	if _, err := fmt.Sscanf(s, "%x", &raw); err != nil {
		panic(err)
	}
	return raw
}

func anyData() *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Just(any(nil)), rapid.Bool().AsAny(), rapid.Int64().AsAny(), rapid.Uint64().AsAny(),
		rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).AsAny(), rapid.String().AsAny(),
		rapid.SliceOf(rapid.Byte()).AsAny(),
		rapid.Custom(func(t *rapid.T) any {
			text, _ := json.Marshal(rapid.String().Draw(t, "json"))
			return cbor.Tag{Number: v2.TagJSON, Content: text}
		}),
	)
	var tree func(depth int) *rapid.Generator[any]
	tree = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf, rapid.SliceOfN(tree(depth-1), 0, 5).AsAny(),
			rapid.MapOfN(rapid.String(), tree(depth-1), 0, 12).AsAny())
	}
	return tree(4)
}

// TestData_AgreesWithAGeneralLibrary checks values, and values with a byte
// changed, cut off, or doubled.
func TestData_AgreesWithAGeneralLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, err := cbor.Marshal(anyData().Draw(t, "value"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v2.ParseData(raw); err != nil {
			t.Fatalf("% x: %v", raw, err)
		}
		agree(t, raw)
		i := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
		agree(t, raw[:i])
		agree(t, append(bytes.Clone(raw), raw[i:]...))
		changed := bytes.Clone(raw)
		changed[i] = rapid.Byte().Draw(t, "to")
		agree(t, changed)
	})
}

// TestFrames_RoundTrip holds the hot frames' decoders to what was encoded.
func TestFrames_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, err := cbor.Marshal(anyData().Draw(t, "value"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := v2.ParseData(raw)
		if err != nil {
			t.Fatal(err)
		}
		id := rapid.Uint64Range(0, v2.MaxID).Draw(t, "id")
		peer, protocol := rapid.String().Draw(t, "peer"), rapid.String().Draw(t, "protocol")
		reply, level := rapid.Bool().Draw(t, "reply"), network.Level(rapid.IntRange(0, 3).Draw(t, "level"))
		pair := v2.AppendPair(nil, peer, protocol)

		s, err := next(t, v2.AppendSend(nil, id, pair, c, level, reply)).Send()
		if err != nil || s.ID != id || string(s.Peer) != peer || string(s.Protocol) != protocol || s.Level != level ||
			s.Reply != reply || !bytes.Equal(s.Pair, pair) || !same(s.Content, c) {
			t.Fatalf("send: %+v, %v", s, err)
		}
		m, err := next(t, appendMessage(nil, id, pair, c, reply)).Message()
		if err != nil || m.Delivery != id || string(m.Peer) != peer || string(m.Protocol) != protocol || m.Reply != reply || !same(m.Content, c) {
			t.Fatalf("message: %+v, %v", m, err)
		}
		n, got, err := next(t, v2.AppendReply(nil, id, c)).Reply()
		if err != nil || n != id || !same(got, c) {
			t.Fatalf("reply: %d %+v, %v", n, got, err)
		}
		if n, err := next(t, v2.AppendCount(nil, v2.KindHandled, id)).Count(); err != nil || n != id {
			t.Fatalf("handled: %d, %v", n, err)
		}
	})
}

func same(a, b network.Content) bool { return a.Type == b.Type && bytes.Equal(a.Data, b.Data) }

func next(t *rapid.T, raw []byte) v2.Frame {
	f, rest, err := v2.Next(raw)
	if err != nil || len(rest) > 0 {
		t.Fatalf("% x: %v", raw, err)
	}
	return f
}

// FuzzFrames looks for panics and for memory that grows with claims instead of
// bytes.
func FuzzFrames(f *testing.F) {
	_, bad := badVectors()
	for _, v := range append(frameVectors(), bad...) {
		f.Add(unhexed(v.Hex))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		allocated := allocatedBy(func() { readAll(raw) })
		if limit := uint64(64*len(raw) + 256<<10); allocated > limit {
			t.Fatalf("%d bytes made it allocate %d", len(raw), allocated)
		}
	})
}

func readAll(raw []byte) {
	for len(raw) > 0 {
		f, rest, err := v2.Next(raw)
		if err != nil {
			return
		}
		_, _ = f.Hello()
		_, _ = f.Count()
		_, _ = f.Send()
		_, _ = f.Request()
		_, _, _ = f.Reply()
		_, _, _ = f.Refuse()
		_, _, _ = f.Bye()
		_, _ = f.Message()
		_, _, _ = f.Result()
		_, _ = f.Welcome()
		_, _, _ = f.ChannelContent()
		_, _, _ = f.Credit()
		_, _ = f.End()
		raw = rest
	}
}

func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAbuse20_ClaimsAllocateNothing(t *testing.T) {
	heads := map[string]string{
		"array": "9b7fffffffffffffff", "map": "bb7fffffffffffffff", "text": "7b7fffffffffffffff", "bytes": "5b7fffffffffffffff",
		"array of 131072": "9a00020000", "peers": "8410016861646450656572" + "73a1657065657273" + "9a00020000",
	}
	for name, claim := range heads {
		t.Run(name, func(t *testing.T) {
			raw := unhexed(claim)
			if n := allocatedBy(func() { readAll(raw); _, _ = v2.ParseData(raw) }); n > 64<<10 {
				t.Fatalf("%d bytes made it allocate %d", len(raw), n)
			}
		})
	}
}

func TestAbuse20_DepthOfAHundredThousand(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x81}, 100_000), 0x01)
	frame := v2.AppendSend(nil, 1, v2.AppendPair(nil, bob, "p"), network.Content{Type: network.CBOR, Data: deep}, 2, false)
	f, rest, err := v2.Next(frame)
	if err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	if s, err := f.Send(); s.ID != 1 || identity.CodeOf(err) != identity.CodeMalformed {
		t.Fatalf("%+v, %v", s, err)
	}
}

func BenchmarkSendDecode(b *testing.B) {
	raw := v2.AppendSend(nil, 1, v2.AppendPair(nil, bob, "chat"), item(map[string]any{"text": string(make([]byte, 80))}), 2, false)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		f, _, err := v2.Next(raw)
		if err != nil {
			b.Fatal(err)
		}
		if _, err = f.Send(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessageEncode(b *testing.B) {
	pair, c := v2.AppendPair(nil, bob, "chat"), item(map[string]any{"text": string(make([]byte, 80))})
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendMessage(buf[:0], 12345, pair, c, false)
	}
}
