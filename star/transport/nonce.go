package transport

import "strings"

// A signature over bytes of somebody else's choice could be used elsewhere: to join
// another star under this id, or worse. So only what is plainly a challenge is
// signed (star.md §10.2, S-10):
//
//	npm server      two UUIDs joined: 72 characters
//	parley's        parley-star/1 <the own address, with its host> <43 characters of base64url>
//
// A star can pass the first kind on to another npm server, where it lets that star
// take this node's place; the second names the star it is for.

const (
	noncePrefix = "parley-star/1 "
	nonceRandom = 43 // 256 bits in base64url
	uuidLen     = 36
)

// signable says whether a nonce is a challenge for the address own.
func signable(nonce, own string) bool {
	if rest, ok := strings.CutPrefix(nonce, noncePrefix); ok {
		addr, random, ok := strings.Cut(rest, " ")
		return ok && addr == own && len(random) == nonceRandom && !strings.ContainsFunc(random, notBase64URL)
	}
	return len(nonce) == 2*uuidLen && isUUID(nonce[:uuidLen]) && isUUID(nonce[uuidLen:])
}

func notBase64URL(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
}

// isUUID checks the form 8-4-4-4-12 of lower-case hex.
func isUUID(text string) bool {
	for i, c := range []byte(text) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case ('0' > c || c > '9') && ('a' > c || c > 'f'):
			return false
		}
	}
	return true
}
