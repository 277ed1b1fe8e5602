package ws

import "encoding/binary"

// mask exclusive-ors b with the key, repeated; pos is how far into the key b
// begins. It works in place, in words of eight bytes.
func mask(b []byte, key [4]byte, pos int) {
	k32 := binary.LittleEndian.Uint32(key[:])
	k32 = k32>>(8*(pos&3)) | k32<<(32-8*(pos&3))
	k := uint64(k32)<<32 | uint64(k32)
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
