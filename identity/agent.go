package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
)

// Agent signs for an agent id; a Key is one. Where the key lies elsewhere, only
// Sign crosses over.
type Agent interface {
	// Agent is the public key that signatures are checked with.
	Agent() AgentID
	// Sign signs msg as RFC 8032 ed25519 does: 64 bytes, or nil where the agent
	// refuses. It is called while a channel opens, so it must not take long.
	Sign(msg []byte) []byte
}

// Verify checks an RFC 8032 signature without the cofactor. S ≥ L and public keys
// of small order, for which anybody can sign, are refused (channels.md §7).
func Verify(agent AgentID, msg, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize && !smallOrder(agent) && ed25519.Verify(agent[:], msg, signature)
}

// smallOrder reports whether the key is one of the points of order 1, 2, 4 or 8,
// in any encoding.
func smallOrder(key AgentID) bool {
	key[31] &= 0x7f // the sign of x
	for _, y := range smallOrderY {
		if bytes.Equal(key[:], y) {
			return true
		}
	}
	return false
}

// smallOrderY has the y of all points of small order, those above p included.
var smallOrderY = [][]byte{
	make([]byte, 32),
	append([]byte{1}, make([]byte, 31)...),
	mustHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
	mustHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
	mustHex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p-1
	mustHex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p
	mustHex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p+1
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return b
}
