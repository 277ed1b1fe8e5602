package mux

import "encoding/binary"

// ContentHead is the number of bytes ParseContentHead looks at.
const ContentHead = contentHead

// ParseContentHead reads the first 48 bytes of a record of size bytes. It
// reports ok where they begin a Content in the usual layout, whose n bytes then
// follow, padded to the end of the record.
func ParseContentHead(head []byte, size int) (channel uint32, n int, ok bool) {
	if len(head) < contentHead || word(head, 1) != rootPointer || word(head, 2) != uint64(Content) || word(head, 3) != structPointer {
		return 0, 0, false
	}
	n, ok = listLen(head, size)
	id := word(head, 4)
	return uint32(id), n, ok && id>>32 == 0
}

// decodeFixed reads the usual layout of kinds 2 to 6. It reports false, with m
// as it was, for everything else.
func decodeFixed(raw []byte, m *Message) bool {
	if len(raw) < 32 || word(raw, 1) != rootPointer {
		return false
	}
	if len(raw) == 32 {
		return decodeShort(raw, m)
	}
	if len(raw) < contentHead || word(raw, 3) != structPointer {
		return false
	}
	n, ok := listLen(raw, len(raw))
	if !ok {
		return false
	}
	id := word(raw, 4)
	switch word(raw, 2) {
	case uint64(Content):
		if id>>32 != 0 {
			return false
		}
		m.Kind, m.Channel = Content, uint32(id)
		m.Content = listBytes(raw, n)
	case uint64(Window):
		m.Kind, m.Channel, m.Window = Window, uint32(id), uint32(id>>32)
		m.Proof = listBytes(raw, n)
	default:
		return false
	}
	return true
}

func decodeShort(raw []byte, m *Message) bool {
	if word(raw, 0) != 3<<32 || word(raw, 3) != 0 {
		return false
	}
	tag := word(raw, 2)
	switch k := Kind(tag); k {
	case Close:
		if tag>>16&0xffff != 0 {
			return false
		}
		m.Kind, m.Channel = k, uint32(tag>>32)
	case RelayRequest, RelayAccept:
		if tag>>16 != 0 {
			return false
		}
		m.Kind = k
	default:
		return false
	}
	return true
}

// listLen reads the list pointer at word 5 and checks that it, the segment
// table and the size of the record say the same.
func listLen(head []byte, size int) (int, bool) {
	p := word(head, 5)
	n := 0
	if p != 0 {
		if p&(1<<35-1) != listPointer {
			return 0, false
		}
		n = int(p >> 35)
	}
	words := uint64(5 + (n+7)/8)
	return n, word(head, 0) == words<<32 && uint64(size) == 8*(words+1)
}

// listBytes gives the n bytes behind the head, nil where the pointer is null.
func listBytes(raw []byte, n int) []byte {
	if word(raw, 5) == 0 {
		return nil
	}
	return raw[contentHead : contentHead+n : contentHead+n]
}

func word(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
