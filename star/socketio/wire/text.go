package wire

import (
	"unicode/utf16"
	"unicode/utf8"
)

// String reads a JSON string that Scan has accepted. ok is false for a value of
// another kind. A lone surrogate becomes U+FFFD.
func String(raw []byte) (text string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	raw = raw[1 : len(raw)-1]
	for i, c := range raw {
		if c == '\\' {
			return string(unescape(raw, i)), true
		}
	}
	return string(raw), true
}

func unescape(raw []byte, first int) []byte {
	out := append(make([]byte, 0, len(raw)), raw[:first]...)
	for i := first; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		if i++; i == len(raw) {
			break // only in what Scan would not accept
		}
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			var r rune
			r, i = unescapeRune(raw, i)
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, raw[i])
		}
	}
	return out
}

// unescapeRune reads the digits behind the u at i, and a second half where the
// first is a high surrogate. It returns the index of the last byte read.
func unescapeRune(raw []byte, i int) (rune, int) {
	r, _ := hex4(raw[i+1:])
	i += 4
	if !utf16.IsSurrogate(r) {
		return r, i
	}
	if i+2 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
		low, _ := hex4(raw[i+3:])
		if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
			return both, i + 6
		}
	}
	return utf8.RuneError, i
}

// Truthy says what JavaScript would make of an argument in a condition; raw is a
// value that Scan has accepted, nil a missing one.
func Truthy(raw []byte) bool {
	if len(raw) == 0 {
		return false
	}
	switch raw[0] {
	case 'n', 'f':
		return false
	case '"':
		return len(raw) > 2
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		for _, c := range raw {
			if c == 'e' || c == 'E' {
				break
			}
			if c >= '1' && c <= '9' {
				return true
			}
		}
		return false
	}
	return true
}

const hexDigits = "0123456789abcdef"

// AppendQuote appends text as a JSON string, written as JavaScript writes it.
// Bytes that are not UTF-8 become U+FFFD.
func AppendQuote(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(text[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, '"')
}
