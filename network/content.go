package network

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
)

// Limits of content, checked while it is read.
const (
	MaxJSONDepth = 512 // arrays and objects inside each other in JSON (gateway.md §2.1)
	MaxCBORDepth = 64  // the same in CBOR (client/PROTOCOL.md)
)

// bytesKey marks bytes in JSON: {"$bytes":"<base64>"}. The same key in an
// object of the sender's own is written escapedKey, which a JSON parser reads
// as the same text.
const (
	bytesKey   = `"$bytes"`
	escapedKey = `"\u0024bytes"`
)

// JSON gives c as one JSON text, as pages of v1 and peers that know no bytes
// get it (gateway.md §2.3):
//
//	JSON    the same text; spaces around it are cut off
//	Bytes   ␣{"$bytes":"<base64, standard, padded>"}
//	CBOR    its JSON form; bytes at any depth as above, embedded JSON (tag 262)
//	        verbatim, integers of 64 bits exactly, keys in their order
//
// A text that holds bytes begins with one space, which means nothing to a JSON
// parser; so FromJSON can tell bytes from an object that looks the same. Errors:
// CodeMalformed where c is not what its type says, has a value that JSON lacks
// (NaN, other tags), or is nested too deep. The result may share memory with c.
func (c Content) JSON() ([]byte, error) {
	switch c.Type {
	case JSON:
		text := trimJSON(c.Data)
		if !ValidJSON(text) {
			return nil, errNotJSON
		}
		return text, nil
	case Bytes:
		size := base64.StdEncoding.EncodedLen(len(c.Data)) + len(bytesKey) + 6
		return appendBytesObject(append(make([]byte, 0, size), ' '), c.Data), nil
	case CBOR:
		return cborToJSON(c.Data)
	}
	return nil, identity.Errorf(identity.CodeMalformed, "content type %d is not known", c.Type)
}

// FromJSON makes Content of a JSON text that came from another node. A text
// that Content.JSON marked as holding bytes becomes CBOR with the bytes in it;
// every other text stays what it is. The text must be valid (ValidJSON); the
// result may share its memory.
func FromJSON(text []byte) Content {
	trimmed := trimJSON(text)
	if len(text) > 0 && text[0] == ' ' && bytes.Contains(trimmed, []byte(bytesKey)) {
		if item, ok := jsonToCBOR(trimmed); ok {
			return Content{Type: CBOR, Data: item}
		}
	}
	return Content{Type: JSON, Data: trimmed}
}

// ValidJSON reports whether text is one JSON value in valid UTF-8, nested at
// most MaxJSONDepth deep. It allocates nothing that grows with the text.
func ValidJSON(text []byte) bool {
	return jsonDepth(text) <= MaxJSONDepth && utf8.Valid(text) && json.Valid(text)
}

var errNotJSON = &identity.Error{Code: identity.CodeMalformed, Text: "data is not valid JSON"}

// jsonDepth is the deepest nesting of brackets outside strings.
func jsonDepth(text []byte) int {
	depth, deepest := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		case '"':
			i = stringEnd(text, i)
		}
	}
	return deepest
}

// stringEnd is the position of the quote that ends the string which begins at
// start, or the length of text.
func stringEnd(text []byte, start int) int {
	for i := start + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(text)
}

func trimJSON(text []byte) []byte { return bytes.Trim(text, " \t\r\n") }

func appendBytesObject(dst, raw []byte) []byte {
	dst = append(dst, '{')
	dst = append(dst, bytesKey...)
	dst = append(dst, ':', '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"', '}')
}
