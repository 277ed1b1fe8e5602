package topic

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/identity"
)

func seedKey(t testing.TB, b byte) identity.Key {
	t.Helper()
	key, err := identity.KeyFromSeed([32]byte(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sample is the claim of docs/protocols/presence.md: Alice is in "room" at Bob's node.
func sample(t testing.TB) (identity.Key, claim) {
	alice, node := seedKey(t, 1), seedKey(t, 2).PeerID()
	return alice, claim{topic: "room", page: alice.PeerID(), node: node, addresses: []string{"/ip4/192.0.2.1/tcp/4001"},
		state: []byte{0x65, 'h', 'e', 'l', 'l', 'o'}, seq: 7, expires: time.UnixMilli(1_800_000_000_000)}
}

// sampleRecord is its record, as docs/protocols/presence.md has it.
const sampleRecord = "010870726573656e63658a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0780a0f1c2b1344c" +
	"04726f6f6d260024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394" +
	"01172f6970342f3139322e302e322e312f7463702f34303031066568656c6c6f" +
	"c7c10c895a2ae4252c8637322436c254887550ec905e3ba490a990702a7ea82009530af668b0ac3282a8182cebe8cb8afcacf022d343c168bc0f684e82154d0b"

func TestClaimVector(t *testing.T) {
	alice, c := sample(t)
	raw, err := signClaim(alice, c)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(raw); got != sampleRecord {
		t.Errorf("record is %s", got)
	}
	got, err := openClaim(raw, c.node, c.expires.Add(-time.Minute))
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestClaimRefused(t *testing.T) {
	alice, good := sample(t)
	now := good.expires.Add(-time.Minute)
	change := func(f func(*claim)) []byte {
		c := good
		f(&c)
		raw, err := signClaim(alice, c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	body := func(b []byte) []byte {
		raw, err := identity.SignRecord(alice, identity.Record{Kind: presenceKind, Expires: good.expires, Body: b})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	otherKind, _ := identity.SignRecord(alice, identity.Record{Kind: "page", Expires: good.expires})
	forged := change(func(*claim) {})
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name string
		raw  []byte
		code identity.Code
	}{
		{"nothing", nil, identity.CodeMalformed},
		{"forged", forged, identity.CodeForbidden},
		{"of another kind", otherKind, identity.CodeMalformed},
		{"of another node", change(func(c *claim) { c.node = alice.PeerID() }), identity.CodeForbidden},
		{"expired", change(func(c *claim) { c.expires = now }), identity.CodeTimeout},
		{"lives too long", change(func(c *claim) { c.expires = now.Add(2 * time.Hour) }), identity.CodeMalformed},
		{"no topic", change(func(c *claim) { c.topic = "" }), identity.CodeMalformed},
		{"topic too long", change(func(c *claim) { c.topic = strings.Repeat("x", maxRemoteName+1) }), identity.CodeMalformed},
		{"state too large", change(func(c *claim) { c.state = append([]byte{0x59, 4, 0}, make([]byte, 1024)...) }), identity.CodeMalformed},
		{"state that isn't CBOR", change(func(c *claim) { c.state = []byte{0xff} }), identity.CodeMalformed},
		{"empty body", body(nil), identity.CodeMalformed},
		{"too many addresses", body(append([]byte{1, 'r', 0, 17}, make([]byte, 18)...)), identity.CodeMalformed},
		{"a length past the end", body([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}), identity.CodeMalformed},
		{"more behind", body(append(appendPrefixed([]byte{1, 'r'}, string(good.node)), 0, 0, 0)), identity.CodeMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := openClaim(c.raw, good.node, now); identity.CodeOf(err) != c.code {
				t.Errorf("read %+v, %v", got, err)
			}
		})
	}
}

func TestClaimLeavesOutTooManyAddresses(t *testing.T) {
	alice, c := sample(t)
	c.addresses = append([]string{strings.Repeat("x", maxAddress+1)}, strings.Split(strings.Repeat("/ip4/192.0.2.1 ", 30), " ")[:30]...)
	c.state = append([]byte{0x59, 3, 0xfd}, make([]byte, 0x3fd)...) // all of MaxState
	raw, err := signClaim(alice, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := openClaim(raw, c.node, c.expires.Add(-time.Minute))
	if err != nil || len(got.addresses) != maxAddresses {
		t.Errorf("%d addresses, %v", len(got.addresses), err)
	}
	if frame := appendFrame(nil, frameAnnounce, raw); len(frame) > maxFrame {
		t.Errorf("frame has %d bytes", len(frame))
	}
}

func FuzzClaim(f *testing.F) {
	alice, c := sample(f)
	raw, err := signClaim(alice, c)
	if err != nil {
		f.Fatal(err)
	}
	record, err := identity.OpenRecord(raw, presenceKind, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record.Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > identity.MaxRecordBody {
			return
		}
		raw, err := identity.SignRecord(alice, identity.Record{Kind: presenceKind, Seq: 7, Expires: c.expires, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		got, err := openClaim(raw, c.node, c.expires.Add(-time.Minute))
		if err != nil {
			return
		}
		if len(got.topic) > maxRemoteName || len(got.addresses) > maxAddresses || len(got.state) > MaxState {
			t.Fatalf("over a limit: %+v", got)
		}
		again, err := signClaim(alice, got)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := openClaim(again, c.node, c.expires.Add(-time.Minute)); err != nil || !reflect.DeepEqual(back, got) {
			t.Fatalf("%+v came back as %+v, %v", got, back, err)
		}
	})
}
