package p2p

import "encoding/binary"

// DecodePing reads a ping or pong from an unpacked content in one of the layouts
// that are usual for it. It allocates nothing else and gives nil for anything
// else, which Decode then reads.
func DecodePing(raw []byte) Message {
	const rootPointer = 0x0001_0001_0000_0000
	if len(raw) < 40 || len(raw) > 48 || len(raw)%8 != 0 {
		return nil
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(raw[8*i:]) }
	data := len(raw)/8 - 4
	if word(0) != uint64(3+data)<<32 || word(1) != rootPointer || word(3) != uint64(data)<<32 {
		return nil
	}
	switch word(2) {
	case uint64(KindPing):
		return &Ping{SentMs: word(4)}
	case uint64(KindPong):
		m := &Pong{PingSentMs: word(4)}
		if data == 2 {
			m.ReceivedMs = word(5)
		}
		return m
	}
	return nil
}
