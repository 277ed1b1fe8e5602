package network

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// jsonToCBOR reads a valid JSON text in which {"$bytes":"…"} stands for bytes.
// What CBOR can't hold exactly (numbers past 64 bits, lone surrogates, nesting
// past MaxCBORDepth) becomes embedded JSON, so nothing is rounded. ok is false
// where an object has a key twice.
func jsonToCBOR(text []byte) (item []byte, ok bool) {
	r := jsonReader{text: text, out: make([]byte, 0, len(text)), ok: true}
	r.value(0)
	return r.out, r.ok
}

type jsonReader struct {
	text []byte // valid JSON, checked before
	pos  int
	out  []byte
	ok   bool
}

func (r *jsonReader) value(depth int) {
	r.space()
	switch c := r.text[r.pos]; c {
	case '{', '[':
		if depth >= MaxCBORDepth {
			from := r.pos
			r.skip()
			r.embed(r.text[from:r.pos])
		} else if c == '[' {
			r.array(depth)
		} else if !r.bytesObject() {
			r.object(depth)
		}
	case '"':
		r.str()
	case 't', 'f', 'n':
		r.literal(c)
	default:
		r.number()
	}
}

func (r *jsonReader) array(depth int) {
	start, n := len(r.out), uint64(0)
	r.pos++
	for r.space(); r.text[r.pos] != ']'; n++ {
		r.value(depth + 1)
		r.comma()
	}
	r.pos++
	r.insertHead(start, cborArray, n)
}

func (r *jsonReader) object(depth int) {
	var keys keySet
	start, n := len(r.out), uint64(0)
	r.pos++
	for r.space(); r.text[r.pos] != '}'; n++ {
		from := len(r.out)
		r.str()
		if r.out[from]>>5 != cborText || !keys.add(bytes.Clone(r.out[from:])) {
			r.ok = false // a key twice, or one that is no valid text
		}
		r.space()
		r.pos++ // the colon
		r.value(depth + 1)
		r.comma()
	}
	r.pos++
	r.insertHead(start, cborMap, n)
}

// bytesObject reads {"$bytes":"…"} if that is what stands here.
func (r *jsonReader) bytesObject() bool {
	const open = `{` + bytesKey + `:"`
	rest := r.text[r.pos:]
	if !bytes.HasPrefix(rest, []byte(open)) {
		return false
	}
	rest = rest[len(open):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 || end+1 >= len(rest) || rest[end+1] != '}' {
		return false
	}
	raw, err := base64.StdEncoding.AppendDecode(nil, rest[:end])
	if err != nil || bytes.ContainsAny(rest[:end], "\r\n") {
		return false
	}
	r.out = append(appendHead(r.out, cborBytes, uint64(len(raw))), raw...)
	r.pos += len(open) + end + 2
	return true
}

func (r *jsonReader) str() {
	from := r.pos
	r.pos = stringEnd(r.text, from) + 1
	raw := r.text[from:r.pos]
	plain := raw[1 : len(raw)-1]
	if bytes.IndexByte(plain, '\\') >= 0 {
		if loneSurrogate(plain) {
			r.embed(raw)
			return
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			r.ok = false
			return
		}
		plain = []byte(s)
	}
	r.out = append(appendHead(r.out, cborText, uint64(len(plain))), plain...)
}

// loneSurrogate reports whether s may have an escaped half of a surrogate pair
// without its other half. It errs on the safe side.
func loneSurrogate(s []byte) bool {
	for i := 0; i+6 <= len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		if s[i+1] != 'u' {
			i++
			continue
		}
		unit := hex4(s[i+2:])
		if unit>>10 == 0xDC00>>10 {
			return true
		}
		if unit>>10 == 0xD800>>10 {
			if i+12 > len(s) || s[i+6] != '\\' || s[i+7] != 'u' || hex4(s[i+8:])>>10 != 0xDC00>>10 {
				return true
			}
			i += 6
		}
		i += 5
	}
	return false
}

func hex4(s []byte) uint64 {
	n, _ := strconv.ParseUint(string(s[:4]), 16, 16)
	return n
}

func (r *jsonReader) literal(c byte) {
	switch c {
	case 't':
		r.out, r.pos = append(r.out, cborOther<<5|21), r.pos+4
	case 'f':
		r.out, r.pos = append(r.out, cborOther<<5|20), r.pos+5
	default:
		r.out, r.pos = append(r.out, cborOther<<5|22), r.pos+4
	}
}

// number reads a number: as an integer of 64 bits or a float if that is exactly
// what the text says.
func (r *jsonReader) number() {
	from := r.pos
	for r.pos < len(r.text) && strings.IndexByte("+-0123456789.eE", r.text[r.pos]) >= 0 {
		r.pos++
	}
	text := string(r.text[from:r.pos])
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		r.out = appendHead(r.out, cborUint, u)
		return
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil && i < 0 {
		r.out = appendHead(r.out, cborNeg, uint64(-1-i))
		return
	}
	f, err := strconv.ParseFloat(text, 64)
	if w := (jsonWriter{}); err == nil {
		if w.float(f); string(w.out) == text {
			r.out = binary.BigEndian.AppendUint64(append(r.out, cborOther<<5|27), math.Float64bits(f))
			return
		}
	}
	r.embed([]byte(text))
}

func (r *jsonReader) embed(text []byte) {
	r.out = appendHead(r.out, cborTag, tagEmbeddedJSON)
	r.out = append(appendHead(r.out, cborBytes, uint64(len(text))), text...)
}

// skip moves behind the array or object that begins here.
func (r *jsonReader) skip() {
	for depth := 0; ; r.pos++ {
		switch r.text[r.pos] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			r.pos = stringEnd(r.text, r.pos)
		}
		if depth == 0 {
			r.pos++
			return
		}
	}
}

func (r *jsonReader) space() {
	for r.pos < len(r.text) && strings.IndexByte(" \t\r\n", r.text[r.pos]) >= 0 {
		r.pos++
	}
}

// comma moves over a comma and the space around it, if one stands here.
func (r *jsonReader) comma() {
	if r.space(); r.text[r.pos] == ',' {
		r.pos++
		r.space()
	}
}

// insertHead puts the head of an array or map before what out holds from start.
func (r *jsonReader) insertHead(start int, major byte, n uint64) {
	var head [9]byte
	h := appendHead(head[:0], major, n)
	r.out = append(r.out, h...)
	copy(r.out[start+len(h):], r.out[start:len(r.out)-len(h)])
	copy(r.out[start:], h)
}

func appendHead(dst []byte, major byte, arg uint64) []byte {
	m := major << 5
	switch {
	case arg < 24:
		return append(dst, m|byte(arg))
	case arg <= math.MaxUint8:
		return append(dst, m|24, byte(arg))
	case arg <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, m|25), uint16(arg))
	case arg <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, m|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(dst, m|27), arg)
}
