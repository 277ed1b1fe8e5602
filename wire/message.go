package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"capnproto.org/go/capnp/v3/packed"
)

// Bounds of one message, all checked before anything is allocated for it.
const (
	MaxSegments = 512
	maxTable    = 4 + 4*MaxSegments + 4 // bytes of the largest segment table, padded
)

// Table reads the segment table at the start of raw: its length in bytes, the
// number of segments and their sum in bytes. It reports ErrMalformed for more
// than MaxSegments, for segments above MaxRecord in all, and for a table that
// is cut off.
func Table(raw []byte) (table, segments, body int, err error) {
	if len(raw) < 8 {
		return 0, 0, 0, fmt.Errorf("%w: no segment table", ErrMalformed)
	}
	count := uint64(binary.LittleEndian.Uint32(raw)) + 1
	if count > MaxSegments {
		return 0, 0, 0, fmt.Errorf("%w: %d segments, limit %d", ErrMalformed, count, MaxSegments)
	}
	table = tableLen(int(count))
	if len(raw) < table {
		return 0, 0, 0, fmt.Errorf("%w: segment table is cut off", ErrMalformed)
	}
	var sum uint64
	for i := range int(count) {
		sum += 8 * uint64(SegmentWords(raw, i))
	}
	if sum > MaxRecord {
		return 0, 0, 0, fmt.Errorf("%w: segments of %d bytes, limit %d", ErrMalformed, sum, MaxRecord)
	}
	return table, int(count), int(sum), nil
}

// SegmentWords is the size of segment i, in words of 8 bytes, as the table that
// Table accepted says.
func SegmentWords(raw []byte, i int) uint32 { return binary.LittleEndian.Uint32(raw[4+4*i:]) }

func tableLen(segments int) int { return (4 + 4*segments + 7) &^ 7 }

// CheckUnpacked checks that raw is a segment table and exactly the bytes it
// declares, no more and no less.
func CheckUnpacked(raw []byte) (table, segments int, err error) {
	table, segments, body, err := Table(raw)
	if err != nil {
		return 0, 0, err
	}
	if len(raw) != table+body {
		return 0, 0, fmt.Errorf("%w: %d bytes where the segment table says %d", ErrMalformed, len(raw), table+body)
	}
	return table, segments, nil
}

// Pack appends the packed form of an unpacked message, whose length is always a
// multiple of 8.
func Pack(dst, message []byte) []byte { return packed.Pack(dst, message) }

// Unpack gives the unpacked form of a packed message, in scratch where that is
// large enough. What the segment table declares is checked against the limit
// and against the length of the whole before anything else is unpacked.
func Unpack(scratch, src []byte) ([]byte, error) {
	words, err := packedWords(src)
	if err != nil {
		return nil, err
	}
	var start [maxTable]byte
	head := unpackPrefix(start[:min(maxTable, 8*words)], src)
	table, _, body, err := Table(head)
	if err != nil {
		return nil, err
	}
	if 8*words != table+body {
		return nil, fmt.Errorf("%w: %d bytes unpacked where the segment table says %d", ErrMalformed, 8*words, table+body)
	}
	if cap(scratch) < 8*words {
		scratch = make([]byte, 0, 8*words)
	}
	out, err := packed.Unpack(scratch[:0], src)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return out, nil
}

// packedWords counts the words src unpacks to, without unpacking it.
func packedWords(src []byte) (int, error) {
	const most = (MaxRecord + maxTable) / 8
	words := 0
	for i := 0; i < len(src); {
		words++
		tag := src[i]
		i += 1 + bits.OnesCount8(tag)
		switch tag {
		case 0x00, 0xff:
			if i >= len(src) {
				return 0, fmt.Errorf("%w: packed bytes are cut off", ErrMalformed)
			}
			run := int(src[i])
			words += run
			i++
			if tag == 0xff {
				i += 8 * run
			}
		}
		if i > len(src) {
			return 0, fmt.Errorf("%w: packed bytes are cut off", ErrMalformed)
		}
		if words > most {
			return 0, fmt.Errorf("%w: unpacks to more than %d bytes", ErrMalformed, MaxRecord)
		}
	}
	return words, nil
}

// unpackPrefix fills dst with the first bytes of what src, which packedWords
// accepted, unpacks to. len(dst) is a multiple of 8 and not more than that.
func unpackPrefix(dst, src []byte) []byte {
	for n := 0; n < len(dst); {
		tag := src[0]
		src = src[1:]
		for bit := range 8 {
			if tag&(1<<bit) != 0 {
				dst[n] = src[0]
				src = src[1:]
			}
			n++
		}
		switch tag {
		case 0x00:
			n += 8 * int(src[0])
			src = src[1:]
		case 0xff:
			run := 8 * int(src[0])
			if n < len(dst) {
				copy(dst[n:], src[1:1+run])
			}
			n += run
			src = src[1+run:]
		}
	}
	return dst
}
