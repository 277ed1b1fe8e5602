package ws

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Every length and every place in the key give what one byte after another gives,
// and a payload in two parts what it gives in one.
func TestMask(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	lengths := []int{0, 1, 3, 7, 8, 63, 64, 65, maskWide - 1, maskWide, maskWide + 1, maskWide + maskWidth + 13, 64<<10 + 1}
	for range 100 {
		lengths = append(lengths, rng.IntN(3*maskWide))
	}
	for _, n := range lengths {
		plain := make([]byte, n)
		for i := range plain {
			plain[i] = byte(rng.Uint32())
		}
		for pos := range 5 {
			want := bytes.Clone(plain)
			for i := range want {
				want[i] ^= key[(pos+i)&3]
			}
			got, cut := bytes.Clone(plain), rng.IntN(n+1)
			mask(got[:cut], key, pos)
			mask(got[cut:], key, pos+cut)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, cut at %d, %d into the key", n, cut, pos)
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	data, key := make([]byte, 64<<10), [4]byte{1, 2, 3, 4}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		mask(data, key, 1)
	}
}
