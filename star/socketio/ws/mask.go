package ws

import (
	"crypto/subtle"
	"encoding/binary"
)

// maskWidth is how much of a key, repeated, is laid out for long payloads; maskWide
// is from where on that pays.
const (
	maskWidth = 1 << 10
	maskWide  = 4 << 10
)

// mask exclusive-ors b with the key, repeated; pos is how far into the key b
// begins. It works in place, in words of eight bytes, and of what the processor has
// where b is long.
func mask(b []byte, key [4]byte, pos int) {
	k32 := binary.LittleEndian.Uint32(key[:])
	k32 = k32>>(8*(pos&3)) | k32<<(32-8*(pos&3))
	k := uint64(k32)<<32 | uint64(k32)
	if len(b) >= maskWide {
		b = maskLong(b, k)
	}
	for len(b) >= 64 {
		p := b[:64:64]
		for i := 0; i < 64; i += 8 {
			binary.LittleEndian.PutUint64(p[i:], binary.LittleEndian.Uint64(p[i:])^k)
		}
		b = b[64:]
	}
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(k)
		k >>= 8
	}
}

// maskLong does so with the whole widths of b and gives the rest, of which the key
// begins anew.
func maskLong(b []byte, k uint64) (rest []byte) {
	var wide [maskWidth]byte
	for i := 0; i < maskWidth; i += 8 {
		binary.LittleEndian.PutUint64(wide[i:], k)
	}
	for len(b) >= maskWidth {
		subtle.XORBytes(b[:maskWidth], b[:maskWidth], wide[:])
		b = b[maskWidth:]
	}
	return b
}
