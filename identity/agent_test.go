package identity

import (
	"encoding/hex"
	"math/big"
	"testing"
)

func TestVerify(t *testing.T) {
	key, err := KeyFromSeed([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	var agent Agent = key
	msg := []byte("hello")
	sig := agent.Sign(msg)
	if !Verify(agent.Agent(), msg, sig) {
		t.Error("a good signature is refused")
	}
	if Verify(agent.Agent(), []byte("other"), sig) || Verify(agent.Agent(), msg, sig[:63]) || Verify(agent.Agent(), msg, nil) {
		t.Error("a bad signature is accepted")
	}
	if Verify(agent.Agent(), msg, addL(sig)) {
		t.Error("S + L is accepted")
	}
}

// addL adds the group order to S, which gives another signature that a careless
// verifier accepts.
func addL(sig []byte) []byte {
	out := append([]byte{}, sig...)
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := new(big.Int)
	for i := 63; i >= 32; i-- {
		s.Lsh(s, 8).Or(s, big.NewInt(int64(sig[i])))
	}
	s.Add(s, l)
	for i := 32; i < 64; i++ {
		out[i] = byte(new(big.Int).And(s, big.NewInt(255)).Int64())
		s.Rsh(s, 8)
	}
	return out
}

// TestVerifySmallOrder: with such a key the all-zero signature of the identity
// point would hold for about every message.
func TestVerifySmallOrder(t *testing.T) {
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		sig := append([]byte{1}, make([]byte, 63)...) // R = identity, S = 0
		for i := range 64 {
			if Verify(AgentID(raw), []byte{byte(i)}, sig) {
				t.Errorf("key %s: a signature nobody made is accepted", text)
				break
			}
		}
	}
}
