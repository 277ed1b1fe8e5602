package star

import (
	"strings"
	"testing"

	"github.com/parley-p2p/parley/star/internal/startest"
)

// The signatures of the recordings, made by the reference's client, are right for
// their own nonce and key, and for nothing else.
func TestRecordedSignatures(t *testing.T) {
	for _, s := range startest.Load(t).Signatures {
		t.Run(s.Type, func(t *testing.T) {
			k, ok := parseKey(s.PubKeyHex)
			if !ok || k.id != s.PeerID {
				t.Fatalf("key reads as %v, want %s", k, s.PeerID)
			}
			broken := []byte(s.SignatureHex)
			broken[20] ^= 1
			for name, c := range map[string]struct {
				nonce, sig string
				want       verdict
			}{
				"right": {s.Nonce, s.SignatureHex, right}, "upper case": {s.Nonce, strings.ToUpper(s.SignatureHex), right},
				"other nonce": {s.Nonce + "x", s.SignatureHex, wrong}, "not hex": {s.Nonce, "zz", wrong}, "too long": {s.Nonce, strings.Repeat("0", 5000), wrong},
			} {
				if got := k.verify(c.nonce, c.sig); got != c.want {
					t.Errorf("%s: %v, want %v", name, got, c.want)
				}
			}
			if got := k.verify(s.Nonce, string(broken)); got == right {
				t.Error("a broken signature is right")
			}
		})
	}
	for _, bad := range []string{"", "zz", "00", "0800", "08001200", "0801120101", strings.Repeat("0", 10_000)} {
		if _, ok := parseKey(bad); ok {
			t.Errorf("%.20q is a key", bad)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, s := range []string{"080112205d59b58d6d486e9eb777dba0f3fe1da469b1b88a652d37ceee4d1c7bf5f1447e", "0800", "08021221"} {
		f.Add(s, "00")
	}
	f.Fuzz(func(t *testing.T, key, signature string) {
		if k, ok := parseKey(key); ok && k.verify("nonce", signature) == right {
			t.Errorf("a signature out of nothing: %s %s", key, signature)
		}
	})
}
