package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// The names of channels.md §16: seeds of 32 equal bytes.
func TestKeysOfTheSpec(t *testing.T) {
	tests := []struct {
		name, agent, peer string
		seed              byte
	}{
		{"Alice", "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c", "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5", 1},
		{"Bob", "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394", "", 2},
		{"dialer", "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1", "12D3KooWRndVhVZPCiQwHBBBdg769GyrPUW13zxwqQyf9r3ANaba", 3},
		{"acceptor", "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c", "12D3KooWPT98FXMfDQYavZm66EeVjTqP9Nnehn1gyaydqV8L8BQw", 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := seedKey(t, tt.seed)
			if key.Agent().String() != tt.agent {
				t.Errorf("agent %s, want %s", key.Agent(), tt.agent)
			}
			if tt.peer != "" && key.PeerID().String() != tt.peer {
				t.Errorf("peer %s, want %s", key.PeerID(), tt.peer)
			}
			if id, err := key.Agent().PeerID(); err != nil || id != key.PeerID() {
				t.Errorf("agent's peer id %s, %v", id, err)
			}
			if agent, err := AgentOf(key.PeerID()); err != nil || agent != key.Agent() {
				t.Errorf("peer's agent %s, %v", agent, err)
			}
			if id, err := ParsePeerID(key.PeerID().String()); err != nil || id != key.PeerID() {
				t.Errorf("parsed %s, %v", id, err)
			}
			again, err := ParseKey(key.String())
			if err != nil || again.PeerID() != key.PeerID() || len(key.String()) != 92 || !strings.HasPrefix(key.String(), "CAES") {
				t.Errorf("text form %d characters, %v", len(key.String()), err)
			}
			if !Verify(key.Agent(), []byte("msg"), key.Sign([]byte("msg"))) {
				t.Error("own signature is refused")
			}
		})
	}
}

func TestParseKeyRefuses(t *testing.T) {
	_, public, err := crypto.GenerateKeyPair(crypto.Ed25519, 0)
	if err != nil {
		t.Fatal(err)
	}
	ecdsa, _, err := crypto.GenerateKeyPair(crypto.ECDSA, 0)
	if err != nil {
		t.Fatal(err)
	}
	notPrivate, _ := crypto.MarshalPublicKey(public)
	otherType, _ := crypto.MarshalPrivateKey(ecdsa)
	tests := []struct{ name, text, begins string }{
		{"no base64", "!", "failed to decode peer key: "},
		{"too long", strings.Repeat("A", 4096), "failed to unmarshal peer key: "},
		{"empty", "", "failed to unmarshal peer key: "},
		{"a public key", base64.StdEncoding.EncodeToString(notPrivate), "failed to unmarshal peer key: "},
		{"another type", base64.StdEncoding.EncodeToString(otherType), "failed to unmarshal peer key: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseKey(tt.text)
			if CodeOf(err) != CodeMalformed || !strings.HasPrefix(err.Error(), tt.begins) {
				t.Errorf("%v, want %q…", err, tt.begins)
			}
		})
	}
}

func TestKeyIsNotLogged(t *testing.T) {
	key := seedKey(t, 1)
	if got := key.LogValue().String(); got != key.PeerID().String() {
		t.Errorf("a log shows %s", got)
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	err := Errorf(CodeLimit, "too much: %w", cause)
	wrapped := fmt.Errorf("outside: %w", err)
	if CodeOf(wrapped) != CodeLimit || !errors.Is(wrapped, cause) || err.Error() != "too much: cause" {
		t.Errorf("%v: %s", wrapped, CodeOf(wrapped))
	}
	if !errors.Is(wrapped, &Error{Code: CodeLimit}) || errors.Is(wrapped, &Error{Code: CodeClosed}) {
		t.Error("errors.Is does not ask for the code")
	}
	if CodeOf(nil) != "" || CodeOf(cause) != CodeInternal {
		t.Error("codes of errors that aren't ours")
	}
	if (&Error{Code: CodeClosed}).Error() != "closed" {
		t.Error("an error without a text shows its code")
	}
	seen := map[Code]bool{}
	for _, c := range Codes() {
		if c == "" || seen[c] {
			t.Errorf("code %q twice or empty", c)
		}
		seen[c] = true
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(seedKey(f, 1).String())
	f.Add("CAESQA==")
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := ParseKey(text); err == nil && key.PeerID() == "" {
			t.Error("a key without a peer")
		}
	})
}
