package v2_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// joined gives the frame that f appends to a batch, as it is written.
func joined(dst []byte, f func(b *v2.Batch)) []byte {
	var b v2.Batch
	f(&b)
	return append(dst, bytes.Join(b.Parts(nil), nil)...)
}

func appendMessage(dst []byte, delivery uint64, pair []byte, c network.Content, reply bool) []byte {
	return joined(dst, func(b *v2.Batch) { b.Message(delivery, pair, c, reply) })
}

func appendPublication(dst []byte, topic, peer string, c network.Content) []byte {
	return joined(dst, func(b *v2.Batch) { b.Publication(topic, peer, c) })
}

func appendResultContent(dst []byte, id uint64, c network.Content) []byte {
	return joined(dst, func(b *v2.Batch) { b.ResultContent(id, c) })
}

// TestBatch_LargeContentsAreWrittenAsSmallOnes holds a message made of parts to
// one that is copied together.
func TestBatch_LargeContentsAreWrittenAsSmallOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b v2.Batch
		var want []byte
		pair := v2.AppendPair(nil, "bob", "chat")
		large := 0
		for i := range rapid.IntRange(0, 6).Draw(t, "frames") {
			size := rapid.SampledFrom([]int{0, 1, 300, 16<<10 - 1, 16 << 10, 70_000}).Draw(t, "size")
			c := network.Content{Type: network.Bytes, Data: bytes.Repeat([]byte{byte(i)}, size)}
			if rapid.Bool().Draw(t, "json") {
				c = network.Content{Type: network.JSON, Data: append(bytes.Repeat([]byte(" "), size), '1')}
			}
			if v2.Apart(len(c.Data)) {
				large++
			}
			b.Message(uint64(i), pair, c, false)
			b.Buf = v2.AppendCount(b.Buf, v2.KindPong, uint64(i))
			want = v2.AppendArray(want, 6)
			want = v2.AppendUint(v2.AppendUint(want, uint64(v2.KindMessage)), uint64(i))
			want = v2.AppendUint(v2.AppendContent(append(want, pair...), c), 0)
			want = v2.AppendCount(want, v2.KindPong, uint64(i))
		}
		parts := b.Parts(nil)
		if got := bytes.Join(parts, nil); !bytes.Equal(got, want) || b.Len() != len(want) {
			t.Fatalf("%d bytes, Len %d, want %d", len(got), b.Len(), len(want))
		}
		if len(want) > 0 && len(parts) != 2*large+1 {
			t.Fatalf("%d parts for %d large contents", len(parts), large)
		}
		b.Reset(nil)
		if b.Len() != 0 || len(b.Parts(nil)) != 0 {
			t.Fatal("something is left after Reset")
		}
	})
}
