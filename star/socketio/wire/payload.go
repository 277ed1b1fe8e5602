package wire

import (
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
)

// The two forms of a polling body (star.md §3.3):
//
//	text    <length>:<packet>…          length in UTF-16 code units;
//	                                    a binary packet is b4 + base64
//	binary  kind digits ff content…     kind 00 string, 01 binary; one byte a digit;
//	                                    strings count bytes; binary content begins 04

// Content types of the two forms.
const (
	TextType   = "text/plain; charset=UTF-8"
	BinaryType = "application/octet-stream"
)

// maxDigits keeps a length far from overflow; bodies have a limit of their own.
const maxDigits = 9

// binaryMessage is the first byte of a binary packet wherever it is not base64.
const binaryMessage = 0x04

var errBadPayload = &identity.Error{Code: identity.CodeMalformed, Text: "not a polling payload"}

// AppendText appends a packet to a text body.
func AppendText(dst []byte, p Packet) []byte {
	if p.Binary {
		n := 2 + base64.StdEncoding.EncodedLen(len(p.Data))
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = append(dst, ':')
		return AppendBase64(dst, p.Data)
	}
	dst = strconv.AppendInt(dst, int64(1+UTF16Len(p.Data)), 10)
	dst = append(dst, ':', byte(p.Type))
	return append(dst, p.Data...)
}

// AppendBase64 appends a binary packet as text: b4 and padded base64.
func AppendBase64(dst, data []byte) []byte {
	return base64.StdEncoding.AppendEncode(append(dst, 'b', byte(Message)), data)
}

// ParseBase64 reads what AppendBase64 writes. The data is new memory.
func ParseBase64(text []byte) (Packet, error) {
	if len(text) < 2 || text[0] != 'b' || text[1] != byte(Message) {
		return Packet{}, errBadPayload
	}
	raw := make([]byte, 1, 1+base64.StdEncoding.DecodedLen(len(text)-2))
	raw[0] = binaryMessage
	raw, err := base64.StdEncoding.AppendDecode(raw, text[2:])
	if err != nil {
		return Packet{}, errBadPayload
	}
	return Packet{Type: Message, Binary: true, Data: raw[1:], Raw: raw}, nil
}

// DecodeText gives fn each packet of a text body, in order, until fn fails. Data
// of text packets lies in body.
func DecodeText(body []byte, fn func(Packet) error) error {
	if !utf8.Valid(body) {
		return errBadPayload
	}
	for len(body) > 0 {
		n, digits := number(body, maxDigits)
		if digits == 0 || digits == len(body) || body[digits] != ':' {
			return errBadPayload
		}
		body = body[digits+1:]
		size, ok := utf16Prefix(body, int(n))
		if !ok {
			return errBadPayload
		}
		text := body[:size]
		if body = body[size:]; size == 0 {
			continue // the reference skips it too
		}
		p, err := parseText(text)
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

func parseText(text []byte) (Packet, error) {
	if text[0] == 'b' {
		return ParseBase64(text)
	}
	return ParsePacket(text)
}

// AppendBinary appends a packet to a binary body.
func AppendBinary(dst []byte, p Packet) []byte {
	kind, first := byte(0), byte(p.Type)
	if p.Binary {
		kind, first = 1, binaryMessage
	}
	dst = append(dst, kind)
	start := len(dst)
	dst = strconv.AppendInt(dst, int64(1+len(p.Data)), 10)
	for i := start; i < len(dst); i++ {
		dst[i] -= '0'
	}
	dst = append(dst, 0xff, first)
	return append(dst, p.Data...)
}

// DecodeBinary gives fn each packet of a binary body, in order, until fn fails.
// Data lies in body.
func DecodeBinary(body []byte, fn func(Packet) error) error {
	for len(body) > 0 {
		kind := body[0]
		n, digits, ok := rawLength(body[1:])
		if !ok || kind > 1 {
			return errBadPayload
		}
		if body = body[1+digits+1:]; n > len(body) {
			return errBadPayload
		}
		content := body[:n]
		if body = body[n:]; n == 0 {
			continue
		}
		p, err := parseContent(kind, content)
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

func rawLength(b []byte) (n, digits int, ok bool) {
	for digits < len(b) && digits <= maxDigits {
		switch c := b[digits]; {
		case c == 0xff:
			return n, digits, digits > 0
		case c > 9:
			return 0, 0, false
		default:
			n = 10*n + int(c)
			digits++
		}
	}
	return 0, 0, false
}

func parseContent(kind byte, content []byte) (Packet, error) {
	if kind == 0 {
		if !utf8.Valid(content) {
			return Packet{}, errBadPayload
		}
		return parseText(content)
	}
	return ParseBinary(content)
}

// ParseBinary reads a binary packet: 0x04 and the bytes, which are not copied.
func ParseBinary(content []byte) (Packet, error) {
	if len(content) == 0 || content[0] != binaryMessage {
		return Packet{}, errBadPacket
	}
	return Packet{Type: Message, Binary: true, Data: content[1:], Raw: content}, nil
}

// UTF16Len counts the UTF-16 code units of valid UTF-8.
func UTF16Len(b []byte) int {
	n := 0
	for len(b) >= 8 {
		n += units(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for _, c := range b {
		if c&0xc0 != 0x80 {
			n++
		}
		if c >= 0xf0 {
			n++
		}
	}
	return n
}

const highBits = 0x8080808080808080

// units counts, in eight bytes of UTF-8, those that begin a character, and once
// more those that begin one of two UTF-16 code units.
func units(w uint64) int {
	if w&highBits == 0 {
		return 8
	}
	follow := w & highBits &^ (w << 1)                    // 10xxxxxx
	four := w & (w << 1) & (w << 2) & (w << 3) & highBits // 1111xxxx
	return 8 - bits.OnesCount64(follow) + bits.OnesCount64(four)
}

// utf16Prefix says how many bytes of b, valid UTF-8, make up exactly n code units.
func utf16Prefix(b []byte, n int) (size int, ok bool) {
	if n > len(b) {
		return 0, false
	}
	for n >= 8 && len(b)-size >= 8 && binary.LittleEndian.Uint64(b[size:])&highBits == 0 { // ASCII
		n -= 8
		size += 8
	}
	for n > 0 {
		if size >= len(b) {
			return 0, false
		}
		r, w := utf8.DecodeRune(b[size:])
		if size += w; r >= 0x10000 {
			n--
		}
		n--
	}
	return size, n == 0
}
