// Package startest reads testdata/star.json: frames of the reference on the
// wire, test identities and signatures (docs/spec/star.md §16). It is for tests.
package startest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// File is the whole of the recordings.
type File struct {
	Identities []Identity  `json:"identities"`
	Signatures []Signature `json:"signatures"`
	Scenarios  []Scenario  `json:"scenarios"`
}

// Identity is a test key.
type Identity struct {
	Name      string `json:"name"`
	PeerID    string `json:"peerId"`
	Type      string `json:"type"`
	PubKeyHex string `json:"pubKeyHex"`
	JSON      struct {
		ID      string `json:"id"`
		PrivKey string `json:"privKey"`
		PubKey  string `json:"pubKey"`
	} `json:"json"`
}

// Signature is a nonce signed by the reference's client.
type Signature struct {
	Type         string `json:"type"`
	PeerID       string `json:"peerId"`
	Nonce        string `json:"nonce"`
	PubKeyHex    string `json:"pubKeyHex"`
	PrivKeyHex   string `json:"privKeyHex"`
	SignatureHex string `json:"signatureHex"`
}

// Scenario is one recorded run.
type Scenario struct {
	Name   string          `json:"name"`
	Notes  json.RawMessage `json:"notes"`
	Frames []Frame         `json:"frames"`
}

// Frame is one thing on the wire.
type Frame struct {
	Ms     int    `json:"ms"`
	Dir    string `json:"dir"` // c2s or s2c
	Kind   string `json:"kind"`
	Conn   int    `json:"conn"`
	Req    int    `json:"req"`
	Method string `json:"method"`
	URL    string `json:"url"`
	Status any    `json:"status"`
	Text   string `json:"text"`   // of ws-text
	Hex    string `json:"hex"`    // of ws-binary; cut after 256 bytes
	Length int    `json:"length"` // of ws-binary, whole
	Body   *Body  `json:"body"`

	Headers json.RawMessage `json:"headers"`
}

// Body is the content of an HTTP message: text, or bytes in hex.
type Body struct {
	Text string `json:"text"`
	Hex  string `json:"hex"`
}

// Bytes is the body as it was on the wire.
func (b *Body) Bytes() []byte {
	if b == nil {
		return nil
	}
	if b.Hex != "" {
		raw, _ := hex.DecodeString(b.Hex)
		return raw
	}
	return []byte(b.Text)
}

// Load reads the file and fails the test where it can't.
func Load(t testing.TB) File {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(self), "..", "..", "testdata", "star.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f File
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// OfType gives an identity of a key type: RSA, Ed25519 or secp256k1.
func (f File) OfType(t testing.TB, kind string) Identity {
	t.Helper()
	for _, s := range f.Signatures {
		if strings.EqualFold(s.Type, kind) {
			id := Identity{Name: kind, PeerID: s.PeerID, Type: s.Type, PubKeyHex: s.PubKeyHex}
			raw, err := hex.DecodeString(s.PrivKeyHex)
			if err != nil {
				t.Fatal(err)
			}
			id.JSON.PrivKey = base64.StdEncoding.EncodeToString(raw)
			return id
		}
	}
	t.Fatalf("no key of type %s in the recordings", kind)
	return Identity{}
}

// Named gives one scenario.
func (f File) Named(t testing.TB, name string) Scenario {
	t.Helper()
	for _, s := range f.Scenarios {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no scenario %q in the recordings", name)
	return Scenario{}
}
