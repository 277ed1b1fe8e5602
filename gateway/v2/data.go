package v2

import (
	"bytes"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// ParseData reads one whole data item: any JSON value plus byte strings, or a
// JSON text in tag 262. A byte string is content of plain bytes, tag 262 is
// JSON, everything else stays CBOR, untouched. The content shares memory with
// raw. The error has CodeMalformed and says what is wrong.
func ParseData(raw []byte) (network.Content, error) {
	major, _, arg, n := head(raw)
	switch {
	case n == 0:
		return network.Content{}, malformed("data is not a CBOR item")
	case major == majorBytes && arg == uint64(len(raw)-n):
		return network.Content{Type: network.Bytes, Data: raw[n:]}, nil
	case major == majorTag && arg == TagJSON:
		return parseEmbedded(raw[n:])
	}
	if err := CheckData(raw); err != nil {
		return network.Content{}, err
	}
	return network.Content{Type: network.CBOR, Data: raw}, nil
}

func parseEmbedded(raw []byte) (network.Content, error) {
	text, n, err := embedded(raw)
	if err == nil && n != len(raw) {
		err = malformed("data is more than one item")
	}
	return network.Content{Type: network.JSON, Data: text}, err
}

// embedded reads the byte string behind tag 262 at the start of raw; n is its
// whole length.
func embedded(raw []byte) (text []byte, n int, err error) {
	major, _, arg, n := head(raw)
	if n == 0 || major != majorBytes || arg > uint64(len(raw)-n) {
		return nil, 0, malformed("tag 262 is not around a byte string")
	}
	text = raw[n : n+int(arg)]
	if !network.ValidJSON(text) {
		return nil, 0, errNotJSON
	}
	return text, n + int(arg), nil
}

var errNotJSON = malformed("data is not valid JSON, or nested deeper than 512")

// CheckContent reports whether a content that came from elsewhere can be put
// into a frame: a page must never be handed what breaks its frames.
func CheckContent(c network.Content) error {
	switch c.Type {
	case network.Bytes:
		return nil
	case network.CBOR:
		return CheckData(c.Data)
	case network.JSON:
		if !network.ValidJSON(c.Data) {
			return errNotJSON
		}
		return nil
	}
	return malformed("content type is not known")
}

// CheckData reports whether raw is exactly one item of the kind that data may
// be, without tags.
func CheckData(raw []byte) error {
	var c checker
	n, err := c.item(raw, 0)
	if err == nil && n != len(raw) {
		err = malformed("data is more than one item")
	}
	return err
}

// checker walks over one data item. Its depth, and so the recursion, is bounded
// by MaxNesting.
type checker struct{}

func (c checker) item(b []byte, depth int) (int, error) {
	major, info, arg, n := head(b)
	if n == 0 {
		return 0, malformed("data is not well-formed CBOR of definite lengths")
	}
	switch major {
	case majorUint, majorNeg:
		return n, nil
	case majorBytes, majorText:
		return c.str(b, major, arg, n)
	case majorArray:
		return c.array(b, arg, n, depth+1)
	case majorMap:
		return c.object(b, arg, n, depth+1)
	case majorTag:
		if arg != TagJSON {
			return 0, malformed("data has a tag other than 262")
		}
		_, size, err := embedded(b[n:])
		return n + size, err
	}
	return n, simple(info, arg)
}

func (checker) str(b []byte, major byte, arg uint64, n int) (int, error) {
	if arg > uint64(len(b)-n) {
		return 0, malformed("data ends inside a string")
	}
	end := n + int(arg)
	if major == majorText && !utf8.Valid(b[n:end]) {
		return 0, malformed("data has text that is not UTF-8")
	}
	return end, nil
}

func (c checker) array(b []byte, count uint64, n, depth int) (int, error) {
	if err := fits(count, uint64(len(b)-n), depth); err != nil {
		return 0, err
	}
	for range count {
		m, err := c.item(b[n:], depth)
		if err != nil {
			return 0, err
		}
		n += m
	}
	return n, nil
}

func (c checker) object(b []byte, count uint64, n, depth int) (int, error) {
	if err := fits(count, uint64(len(b)-n)/2, depth); err != nil {
		return 0, err
	}
	var few [8][]byte
	keys := few[:0]
	for range count {
		start := n
		major, _, arg, h := head(b[n:])
		if h == 0 || major != majorText {
			return 0, malformed("data has a map key that is not text")
		}
		m, err := c.str(b[n:], major, arg, h)
		if err != nil {
			return 0, err
		}
		n += m
		keys = append(keys, b[start+h:n])
		if m, err = c.item(b[n:], depth); err != nil {
			return 0, err
		}
		n += m
	}
	if repeated(keys) {
		return 0, malformed("data has a map with a key twice")
	}
	return n, nil
}

func fits(count, room uint64, depth int) error {
	switch {
	case depth > MaxNesting:
		return malformed("data is nested too deep, limit 64")
	case count > MaxItems:
		return malformed("data has too many items in one array or map, limit 131072")
	case count > room:
		return malformed("data ends inside an array or map")
	}
	return nil
}

// repeated reports whether two keys are equal. It may reorder keys.
func repeated(keys [][]byte) bool {
	if len(keys) > 8 {
		slices.SortFunc(keys, bytes.Compare)
		for i := 1; i < len(keys); i++ {
			if bytes.Equal(keys[i-1], keys[i]) {
				return true
			}
		}
		return false
	}
	for i, a := range keys {
		for _, b := range keys[i+1:] {
			if bytes.Equal(a, b) {
				return true
			}
		}
	}
	return false
}

// simple allows false, true, null and the numbers that JSON has.
func simple(info byte, bits uint64) error {
	finite := true
	switch info {
	case infoFalse, infoTrue, infoNull:
	case infoHalf:
		finite = bits&0x7c00 != 0x7c00
	case infoFloat:
		finite = bits&0x7f800000 != 0x7f800000
	case infoDbl:
		finite = !math.IsNaN(math.Float64frombits(bits)) && !math.IsInf(math.Float64frombits(bits), 0)
	default:
		return malformed("data has a value that JSON doesn't have")
	}
	if !finite {
		return malformed("data has a number that is not finite")
	}
	return nil
}

// AppendContent appends a content as data: bytes as a byte string, JSON in tag
// 262, CBOR as it is. CBOR must have passed CheckData.
func AppendContent(dst []byte, c network.Content) []byte {
	return append(appendContentHead(dst, c), c.Data...)
}

func malformed(text string) *identity.Error {
	return &identity.Error{Code: identity.CodeMalformed, Text: text}
}
