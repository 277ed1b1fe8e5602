package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// PeerID names one party on the network: the libp2p id of an ed25519 key.
// Its text form begins with 12D3KooW.
type PeerID = peer.ID

// Key is a private ed25519 key. It is a peer id and an agent id at once.
// The zero Key is not usable; make one with NewKey, KeyFromSeed or ParseKey.
// A Key is immutable and safe for use by several goroutines.
type Key struct {
	priv crypto.PrivKey
	raw  ed25519.PrivateKey
	id   PeerID
}

// NewKey makes a key from the system's random source.
func NewKey() (Key, error) {
	var seed [ed25519.SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return Key{}, fmt.Errorf("read random seed: %w", err)
	}
	return KeyFromSeed(seed)
}

// KeyFromSeed makes the key of an RFC 8032 seed; the same seed gives the same key.
func KeyFromSeed(seed [ed25519.SeedSize]byte) (Key, error) {
	raw := ed25519.NewKeyFromSeed(seed[:])
	priv, err := crypto.UnmarshalEd25519PrivateKey(raw)
	if err != nil {
		return Key{}, fmt.Errorf("make key from seed: %w", err)
	}
	return newKey(priv)
}

// ParseKey reads the form that pages keep: standard base64 of a libp2p private
// key protobuf (gateway.md §2.4). The error text is the one that v1 pages see
// (gateway.md §2.7). Keys other than ed25519 are refused.
func ParseKey(text string) (Key, error) {
	if len(text) > maxKeyText {
		return Key{}, &Error{Code: CodeMalformed, Text: "failed to unmarshal peer key: too long"}
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Key{}, &Error{Code: CodeMalformed, Text: "failed to decode peer key: " + err.Error()}
	}
	priv, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return Key{}, &Error{Code: CodeMalformed, Text: "failed to unmarshal peer key: " + err.Error()}
	}
	if priv.Type() != pb.KeyType_Ed25519 {
		return Key{}, &Error{Code: CodeMalformed, Text: "failed to unmarshal peer key: only ed25519 keys are supported"}
	}
	return newKey(priv)
}

// maxKeyText is far above the 92 characters of an ed25519 key and keeps a
// hostile RSA key from costing time.
const maxKeyText = 512

func newKey(priv crypto.PrivKey) (Key, error) {
	raw, err := priv.Raw()
	if err != nil {
		return Key{}, fmt.Errorf("read raw key: %w", err)
	}
	if len(raw) != ed25519.PrivateKeySize || !bytes.Equal(raw, ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])) {
		// Signing with another's public half would give the private one away.
		return Key{}, &Error{Code: CodeMalformed, Text: "failed to unmarshal peer key: its halves don't belong together"}
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return Key{}, fmt.Errorf("derive peer id: %w", err)
	}
	return Key{priv: priv, raw: ed25519.PrivateKey(raw), id: id}, nil
}

// String gives the base64 text that ParseKey reads, "" for the zero Key. It is
// the secret itself: never log it.
func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	raw, err := crypto.MarshalPrivateKey(k.priv)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// LogValue keeps the secret out of logs: a logged Key shows its peer id.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.id.String()) }

// Format keeps the secret out of what fmt prints: with every verb a Key shows its
// peer id.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.id.String()) }

// PeerID is the key's name on the network.
func (k Key) PeerID() PeerID { return k.id }

// Agent is the same name as raw bytes (channels.md §5).
func (k Key) Agent() AgentID { return AgentID(k.raw.Public().(ed25519.PublicKey)) }

// Sign signs msg as RFC 8032 ed25519 does: 64 bytes.
func (k Key) Sign(msg []byte) []byte { return ed25519.Sign(k.raw, msg) }

// Libp2p is the key as go-libp2p takes it.
func (k Key) Libp2p() crypto.PrivKey { return k.priv }

// IsZero reports whether k holds no key.
func (k Key) IsZero() bool { return k.priv == nil }

// AgentID is a raw ed25519 public key: the name of an agent in a space.
type AgentID [ed25519.PublicKeySize]byte

// String is the agent's key in lower-case hex.
func (a AgentID) String() string { return hex.EncodeToString(a[:]) }

// PeerID is the agent's other form: the libp2p id of the same key.
func (a AgentID) PeerID() (PeerID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(a[:])
	if err != nil {
		return "", fmt.Errorf("read agent key: %w", err)
	}
	return peer.IDFromPublicKey(pub)
}

// AgentOf gives the agent id inside an ed25519 peer id. Ids of other key types
// have none and are refused.
func AgentOf(id PeerID) (AgentID, error) {
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return AgentID{}, &Error{Code: CodeMalformed, Text: "peer id holds no key", Err: err}
	}
	if pub.Type() != pb.KeyType_Ed25519 {
		return AgentID{}, &Error{Code: CodeMalformed, Text: "peer id is not of an ed25519 key"}
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return AgentID{}, &Error{Code: CodeMalformed, Text: "peer id holds a broken key", Err: err}
	}
	return AgentID(raw), nil
}

// ParsePeerID reads the text form of a peer id, base58 or CID, at most 128
// characters.
func ParsePeerID(text string) (PeerID, error) {
	if len(text) > 128 {
		return "", &Error{Code: CodeMalformed, Text: "invalid peer ID: too long"}
	}
	id, err := peer.Decode(text)
	if err != nil {
		return "", &Error{Code: CodeMalformed, Text: "invalid peer ID: " + err.Error()}
	}
	return id, nil
}
