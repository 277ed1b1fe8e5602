package network

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
)

// The major types of CBOR (RFC 8949 §3.1) and the one tag in use.
const (
	cborUint  = 0
	cborNeg   = 1
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7 // floats, booleans, null

	tagEmbeddedJSON = 262
)

// cborToJSON writes one CBOR item as JSON; see Content.JSON.
func cborToJSON(item []byte) ([]byte, error) {
	w := jsonWriter{cborReader: cborReader{rest: item}}
	w.out = append(make([]byte, 0, len(item)+len(item)/4+16), ' ')
	w.value(0)
	if w.err == nil && len(w.rest) > 0 {
		w.fail("data holds more than one CBOR item")
	}
	if w.err != nil {
		return nil, w.err
	}
	if !w.hasBytes {
		return w.out[1:], nil
	}
	for _, at := range w.embedded {
		if bytes.Contains(w.out[at.from:at.to], []byte(bytesKey)) {
			return w.escapeEmbedded(), nil
		}
	}
	return w.out, nil
}

// cborReader walks over CBOR; after the first failure everything reads as zero.
type cborReader struct {
	rest []byte
	err  error
}

func (r *cborReader) fail(text string) {
	if r.err == nil {
		r.err = &identity.Error{Code: identity.CodeMalformed, Text: text}
	}
	r.rest = nil
}

// head reads the major type of an item, its argument, and the low five bits.
func (r *cborReader) head() (major byte, arg uint64, info byte) {
	if len(r.rest) == 0 {
		r.fail("data ends in the middle of a CBOR item")
		return 0, 0, 0
	}
	major, info = r.rest[0]>>5, r.rest[0]&31
	r.rest = r.rest[1:]
	if info < 24 {
		return major, uint64(info), info
	}
	if info > 27 {
		r.fail("data holds CBOR of indefinite length")
		return 0, 0, 0
	}
	raw := r.take(1 << (info - 24))
	if raw == nil {
		return 0, 0, 0
	}
	var wide [8]byte
	copy(wide[8-len(raw):], raw)
	return major, binary.BigEndian.Uint64(wide[:]), info
}

// take gives the next n bytes, nil where there are fewer.
func (r *cborReader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail("data ends in the middle of a CBOR item")
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

type span struct{ from, to int }

type jsonWriter struct {
	cborReader
	out      []byte
	hasBytes bool
	embedded []span // where texts of tag 262 stand in out
}

func (w *jsonWriter) value(depth int) {
	major, arg, info := w.head()
	if w.err != nil {
		return
	}
	switch major {
	case cborUint:
		w.out = strconv.AppendUint(w.out, arg, 10)
	case cborNeg:
		w.negative(arg)
	case cborBytes:
		w.out = appendBytesObject(w.out, w.take(arg))
		w.hasBytes = true
	case cborText:
		w.text(w.take(arg))
	case cborArray, cborMap:
		if depth >= MaxCBORDepth {
			w.fail("data is nested too deep, limit " + strconv.Itoa(MaxCBORDepth))
			return
		}
		if major == cborArray {
			w.array(arg, depth)
		} else {
			w.object(arg, depth)
		}
	case cborTag:
		w.tag(arg, depth)
	case cborOther:
		w.other(arg, info)
	}
}

// negative writes -1-arg, which may be one below what 64 bits hold.
func (w *jsonWriter) negative(arg uint64) {
	w.out = append(w.out, '-')
	if arg == math.MaxUint64 {
		w.out = append(w.out, "18446744073709551616"...)
		return
	}
	w.out = strconv.AppendUint(w.out, arg+1, 10)
}

func (w *jsonWriter) array(n uint64, depth int) {
	w.out = append(w.out, '[')
	for i := uint64(0); i < n && w.err == nil; i++ {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.value(depth + 1)
	}
	w.out = append(w.out, ']')
}

func (w *jsonWriter) object(n uint64, depth int) {
	var keys keySet
	w.out = append(w.out, '{')
	for i := uint64(0); i < n && w.err == nil; i++ {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		major, arg, _ := w.head()
		if w.err == nil && major != cborText {
			w.fail("data has a map key that is not text")
		}
		key := w.take(arg)
		if w.err == nil && !keys.add(key) {
			w.fail("data has the same map key twice")
		}
		if string(key) == bytesKey[1:len(bytesKey)-1] {
			w.out = append(w.out, escapedKey...)
		} else {
			w.text(key)
		}
		w.out = append(w.out, ':')
		w.value(depth + 1)
	}
	w.out = append(w.out, '}')
}

func (w *jsonWriter) tag(number uint64, depth int) {
	major, arg, _ := w.head()
	if w.err != nil {
		return
	}
	if number != tagEmbeddedJSON || major != cborBytes {
		w.fail("data has a CBOR tag that JSON lacks")
		return
	}
	text := trimJSON(w.take(arg))
	if w.err == nil && (!ValidJSON(text) || jsonDepth(text)+depth > MaxJSONDepth) {
		w.fail("data has embedded JSON that is not valid")
		return
	}
	from := len(w.out)
	w.out = append(w.out, text...)
	w.embedded = append(w.embedded, span{from, len(w.out)})
}

func (w *jsonWriter) other(arg uint64, info byte) {
	switch info {
	case 20:
		w.out = append(w.out, "false"...)
	case 21:
		w.out = append(w.out, "true"...)
	case 22, 23: // null; undefined, as JSON.stringify writes it in an array
		w.out = append(w.out, "null"...)
	case 25:
		w.float(halfToFloat(uint16(arg)))
	case 26:
		w.float(float64(math.Float32frombits(uint32(arg))))
	case 27:
		w.float(math.Float64frombits(arg))
	default:
		w.fail("data has a CBOR simple value that JSON lacks")
	}
}

// float writes the shortest text that reads as the same number, in the form
// that JavaScript writes.
func (w *jsonWriter) float(f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		w.fail("data has a number that JSON lacks")
		return
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	w.out = strconv.AppendFloat(w.out, f, format, -1, 64)
	if n := len(w.out); format == 'e' && w.out[n-4] == 'e' && w.out[n-2] == '0' { // e-07
		w.out = append(w.out[:n-2], w.out[n-1])
	}
}

func halfToFloat(h uint16) float64 {
	exp, mant := int(h>>10)&31, float64(h&1023)
	var f float64
	switch exp {
	case 0:
		f = math.Ldexp(mant, -24)
	case 31:
		f = math.Inf(1)
		if mant != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(mant+1024, exp-25)
	}
	if h>>15 == 1 {
		return -f
	}
	return f
}

func (w *jsonWriter) text(s []byte) {
	if w.err != nil {
		return
	}
	if !utf8.Valid(s) {
		w.fail("data has text that is not valid UTF-8")
		return
	}
	const hex = "0123456789abcdef"
	w.out = append(w.out, '"')
	for _, b := range s {
		switch {
		case b == '"' || b == '\\':
			w.out = append(w.out, '\\', b)
		case b == '\n':
			w.out = append(w.out, '\\', 'n')
		case b < 0x20:
			w.out = append(w.out, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			w.out = append(w.out, b)
		}
	}
	w.out = append(w.out, '"')
}

// escapeEmbedded rewrites the key of bytes in embedded texts, so that an object
// which only looks like bytes is not read as bytes. It changes no value: a
// quoted "$bytes" is a whole string, or the end of one behind an escaped quote.
func (w *jsonWriter) escapeEmbedded() []byte {
	out, done := make([]byte, 0, len(w.out)+len(w.embedded)*5), 0
	for _, at := range w.embedded {
		out = append(out, w.out[done:at.from]...)
		out = append(out, bytes.ReplaceAll(w.out[at.from:at.to], []byte(bytesKey), []byte(escapedKey))...)
		done = at.to
	}
	return append(out, w.out[done:]...)
}

// keySet finds keys that come twice: by looking at all of them while they are
// few, by a map beyond.
type keySet struct {
	few  [][]byte
	many map[string]struct{}
}

func (s *keySet) add(key []byte) bool {
	if s.many != nil {
		_, there := s.many[string(key)]
		s.many[string(key)] = struct{}{}
		return !there
	}
	for _, k := range s.few {
		if bytes.Equal(k, key) {
			return false
		}
	}
	s.few = append(s.few, key)
	if len(s.few) > 16 {
		s.many = make(map[string]struct{}, 2*len(s.few))
		for _, k := range s.few {
			s.many[string(k)] = struct{}{}
		}
	}
	return true
}
