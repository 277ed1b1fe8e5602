package v2

import "math"

// The major types of CBOR (RFC 8949 §3.1).
const (
	majorUint  = 0
	majorNeg   = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
	majorOther = 7
)

// The values of major type 7 that may occur, by their additional information.
const (
	infoFalse = 20
	infoTrue  = 21
	infoNull  = 22
	infoHalf  = 25
	infoFloat = 26
	infoDbl   = 27
)

// head reads the head of the item at the start of b: n is its length, 0 where b
// is too short or the head is reserved or of indefinite length. For major type
// 7, info tells values from floats; arg then holds the bits.
func head(b []byte) (major, info byte, arg uint64, n int) {
	if len(b) == 0 {
		return 0, 0, 0, 0
	}
	major, info = b[0]>>5, b[0]&31
	switch {
	case info < 24:
		return major, info, uint64(info), 1
	case info == 24 && len(b) >= 2:
		return major, info, uint64(b[1]), 2
	case info == 25 && len(b) >= 3:
		return major, info, uint64(b[1])<<8 | uint64(b[2]), 3
	case info == 26 && len(b) >= 5:
		return major, info, uint64(b[1])<<24 | uint64(b[2])<<16 | uint64(b[3])<<8 | uint64(b[4]), 5
	case info == 27 && len(b) >= 9:
		hi := uint64(b[1])<<24 | uint64(b[2])<<16 | uint64(b[3])<<8 | uint64(b[4])
		lo := uint64(b[5])<<24 | uint64(b[6])<<16 | uint64(b[7])<<8 | uint64(b[8])
		return major, info, hi<<32 | lo, 9
	}
	return 0, 0, 0, 0
}

// skip gives the length of the item at the start of b, 0 where there is no whole
// item of definite lengths. It looks at the structure alone, at any depth and
// without recursion: the lengths are definite, so counting what is still to come
// is enough.
func skip(b []byte) int {
	left, off := uint64(1), 0
	for left > 0 {
		major, _, arg, n := head(b[off:])
		if n == 0 {
			return 0
		}
		off += n
		left--
		rest := uint64(len(b) - off)
		switch major {
		case majorBytes, majorText:
			if arg > rest {
				return 0
			}
			off += int(arg)
		case majorArray:
			if arg > rest {
				return 0
			}
			left += arg
		case majorMap:
			if arg > rest/2 {
				return 0
			}
			left += 2 * arg
		case majorTag:
			left++
		}
	}
	return off
}

// appendHead appends the shortest head of a major type.
func appendHead(dst []byte, major byte, arg uint64) []byte {
	m := major << 5
	switch {
	case arg < 24:
		return append(dst, m|byte(arg))
	case arg <= math.MaxUint8:
		return append(dst, m|24, byte(arg))
	case arg <= math.MaxUint16:
		return append(dst, m|25, byte(arg>>8), byte(arg))
	case arg <= math.MaxUint32:
		return append(dst, m|26, byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
	}
	return append(dst, m|27, byte(arg>>56), byte(arg>>48), byte(arg>>40), byte(arg>>32),
		byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
}

// The appenders below make up every frame. Each writes one item, or the head of
// an array or map whose elements follow.

// AppendUint appends an unsigned integer.
func AppendUint(dst []byte, n uint64) []byte { return appendHead(dst, majorUint, n) }

// AppendText appends a text string, which must be valid UTF-8.
func AppendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

// AppendBytes appends a byte string.
func AppendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(b))), b...)
}

// AppendArray appends the head of an array of n elements.
func AppendArray(dst []byte, n int) []byte { return appendHead(dst, majorArray, uint64(n)) }

// AppendMap appends the head of a map of n pairs.
func AppendMap(dst []byte, n int) []byte { return appendHead(dst, majorMap, uint64(n)) }

// AppendBool appends true or false.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, majorOther<<5|infoTrue)
	}
	return append(dst, majorOther<<5|infoFalse)
}

// AppendNull appends null.
func AppendNull(dst []byte) []byte { return append(dst, majorOther<<5|infoNull) }

// AppendFloat appends a number as JavaScript would: an integer where it is one,
// a double otherwise. Numbers that JSON doesn't have become null.
func AppendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return AppendNull(dst)
	}
	if f == math.Trunc(f) && math.Abs(f) <= MaxID {
		if f < 0 {
			return appendHead(dst, majorNeg, uint64(-f)-1)
		}
		return AppendUint(dst, uint64(f))
	}
	v := math.Float64bits(f)
	return append(dst, majorOther<<5|infoDbl, byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32),
		byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}
