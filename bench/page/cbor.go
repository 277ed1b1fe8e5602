package page

import (
	"encoding/binary"
	"errors"
)

// The CBOR major types (RFC 8949 §3.1).
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
)

func appendHead(dst []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(dst, m|byte(n))
	case n < 1<<8:
		return append(dst, m|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, m|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, m|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, m|27), n)
}

func appendArray(dst []byte, n int) []byte   { return appendHead(dst, majorArray, uint64(n)) }
func appendUint(dst []byte, n uint64) []byte { return appendHead(dst, majorUint, n) }

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(b))), b...)
}

var errFrame = errors.New("frame can't be read")

// scanner reads the items of a CBOR sequence. After the first error every call
// returns zero values.
type scanner struct {
	rest []byte
	err  error
}

func (s *scanner) head() (major byte, n uint64) {
	if s.err != nil || len(s.rest) == 0 {
		s.err = errFrame
		return 0, 0
	}
	major, low := s.rest[0]>>5, s.rest[0]&31
	if low < 24 {
		s.rest = s.rest[1:]
		return major, uint64(low)
	}
	size := 1 << (low - 24)
	if low > 27 || len(s.rest) < 1+size {
		s.err = errFrame
		return 0, 0
	}
	for _, b := range s.rest[1 : 1+size] {
		n = n<<8 | uint64(b)
	}
	s.rest = s.rest[1+size:]
	return major, n
}

func (s *scanner) take(n uint64) []byte {
	if s.err != nil || n > uint64(len(s.rest)) {
		s.err = errFrame
		return nil
	}
	b := s.rest[:n]
	s.rest = s.rest[n:]
	return b
}

func (s *scanner) uint() uint64 {
	major, n := s.head()
	if major != majorUint {
		s.err = errFrame
	}
	return n
}

func (s *scanner) string() []byte {
	major, n := s.head()
	if major != majorText && major != majorBytes {
		s.err = errFrame
		return nil
	}
	return s.take(n)
}

// raw steps over one item and returns its bytes.
func (s *scanner) raw() []byte {
	start := s.rest
	s.skip()
	return start[:len(start)-len(s.rest)]
}

func (s *scanner) skip() {
	major, n := s.head()
	switch major {
	case majorBytes, majorText:
		s.take(n)
	case majorArray:
		for ; n > 0 && s.err == nil; n-- {
			s.skip()
		}
	case majorMap:
		for n *= 2; n > 0 && s.err == nil; n-- {
			s.skip()
		}
	case majorTag:
		s.skip()
	}
}
