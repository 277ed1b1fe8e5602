package star

import (
	"encoding/asn1"
	"encoding/hex"
	"math/big"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxKeyHex is far above a key of 8,192 bits.
const maxKeyHex = 4096

// publicKey is a key that somebody claims an address with.
type publicKey struct {
	pub crypto.PubKey
	id  string // base58
}

// parseKey reads a libp2p public key in hex; ok is false for what is none, and for
// RSA keys below 2,048 or above 8,192 bits.
func parseKey(text string) (k *publicKey, ok bool) {
	if len(text) > maxKeyHex {
		return nil, false
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, false
	}
	pub, err := crypto.UnmarshalPublicKey(raw)
	if err != nil {
		return nil, false
	}
	switch pub.Type() {
	case pb.KeyType_RSA, pb.KeyType_Ed25519, pb.KeyType_Secp256k1:
	default:
		return nil, false
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return nil, false
	}
	return &publicKey{pub: pub, id: id.String()}, true
}

// verdict is what a signature is worth.
type verdict uint8

const (
	right verdict = iota
	wrong
	impossible // not a signature of this type at all
)

// maxSignatureHex is far above a signature of 8,192 bits.
const maxSignatureHex = 4096

// verify checks a signature in hex over a nonce.
func (k *publicKey) verify(nonce, signature string) verdict {
	if len(signature) > maxSignatureHex {
		return wrong
	}
	raw, err := hex.DecodeString(signature)
	if err != nil {
		return wrong
	}
	switch k.pub.Type() {
	case pb.KeyType_Ed25519:
		if len(raw) != 64 {
			return impossible
		}
	case pb.KeyType_Secp256k1:
		var der struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(raw, &der); err != nil || len(rest) > 0 {
			return impossible
		}
	}
	if ok, err := k.pub.Verify([]byte(nonce), raw); err != nil || !ok {
		return wrong
	}
	return right
}

// kind names the key's type, for metrics.
func (k *publicKey) kind() string {
	switch k.pub.Type() {
	case pb.KeyType_RSA:
		return "rsa"
	case pb.KeyType_Ed25519:
		return "ed25519"
	}
	return "secp256k1"
}
