package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestKeyIsNotPrinted: no way of printing shows the secret but String itself.
func TestKeyIsNotPrinted(t *testing.T) {
	key := seedKey(t, 7)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("hello", "key", key)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("hello", "key", key)
	holder := struct{ Key Key }{key}
	texts := []string{log.String(), fmt.Sprint(key), fmt.Sprintf("%v %+v %#v %s %q %x %d", key, key, key, key, key, key, key),
		fmt.Sprintf("%v %+v %#v", holder, holder, &holder)}
	seed := key.raw.Seed()
	for _, text := range texts {
		for _, secret := range []string{key.String(), hex.EncodeToString(seed), fmt.Sprint(seed)} {
			if strings.Contains(text, secret) {
				t.Errorf("%q has the secret", text)
			}
		}
		if !strings.Contains(text, key.PeerID().String()) {
			t.Errorf("%q doesn't say which key", text)
		}
	}
	if zero := (Key{}); !zero.IsZero() || zero.String() != "" || fmt.Sprint(zero) != "" {
		t.Errorf("the zero key shows %q", zero.String())
	}
}

// TestKeyOfTwoHalves: a private key beside another's public key would sign so
// that the private one can be computed.
func TestKeyOfTwoHalves(t *testing.T) {
	bob := seedKey(t, 2).Agent()
	raw := append([]byte{8, 1, 18, 64}, bytes.Repeat([]byte{1}, 32)...)
	key, err := ParseKey(base64.StdEncoding.EncodeToString(append(raw, bob[:]...)))
	if CodeOf(err) != CodeMalformed || err.Error() != "failed to unmarshal peer key: its halves don't belong together" {
		t.Errorf("read as %v, %v", key, err)
	}
}

func TestAbuse31_RSAIdentity(t *testing.T) {
	raw, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	priv, _, err := crypto.KeyPairFromStdKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := crypto.MarshalPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseKey(base64.StdEncoding.EncodeToString(text)); CodeOf(err) != CodeMalformed {
		t.Errorf("an RSA key: %v", err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AgentOf(id); CodeOf(err) != CodeMalformed {
		t.Errorf("the peer id of an RSA key has an agent: %v", err)
	}
}

func TestRecordThatExpiresTooLate(t *testing.T) {
	if _, err := SignRecord(seedKey(t, 1), Record{Kind: "k", Expires: time.UnixMilli(maxExpiry + 1)}); CodeOf(err) != CodeMalformed {
		t.Errorf("signed what nobody would open: %v", err)
	}
	raw, err := SignRecord(seedKey(t, 1), Record{Kind: "k", Expires: time.UnixMilli(maxExpiry)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRecord(raw, "k", time.UnixMilli(0)); err != nil {
		t.Error(err)
	}
}
