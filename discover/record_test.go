package discover

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/identity"
)

var update = flag.Bool("update", false, "write test vectors anew")

// pageVector is testdata/page.json, described in docs/protocols/page.md.
type pageVector struct {
	Seed   string   `json:"seed"` // of the page's key, hex
	Page   string   `json:"page"`
	Node   string   `json:"node"`
	Addrs  []string `json:"addrs"`
	Now    int64    `json:"nowMs"`
	Body   string   `json:"body"`   // hex
	Record string   `json:"record"` // hex
}

func TestPageRecordVector(t *testing.T) {
	var v pageVector
	raw, err := os.ReadFile("testdata/page.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(v.Seed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.KeyFromSeed([32]byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	node, err := identity.ParsePeerID(v.Node)
	if err != nil {
		t.Fatal(err)
	}
	var addrs []ma.Multiaddr
	for _, a := range v.Addrs {
		addrs = append(addrs, addr(a))
	}
	now := time.UnixMilli(v.Now)
	rec, err := signPage(key, node, addrs, now)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		v.Page, v.Body, v.Record = key.PeerID().String(), hex.EncodeToString(encodePage(node, addrs)), hex.EncodeToString(rec)
		out, _ := json.MarshalIndent(v, "", "  ")
		if err := os.WriteFile("testdata/page.json", append(out, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := hex.EncodeToString(encodePage(node, addrs)); got != v.Body {
		t.Errorf("body %s, want %s", got, v.Body)
	}
	if got := hex.EncodeToString(rec); got != v.Record {
		t.Errorf("record %s, want %s", got, v.Record)
	}
	if key.PeerID().String() != v.Page {
		t.Errorf("page %s, want %s", key.PeerID(), v.Page)
	}
	got, err := openPage(rec, key.PeerID(), now)
	if err != nil || got.node != node || len(got.addrs) != len(addrs) || got.seq != uint64(v.Now) {
		t.Errorf("opened as %+v, %v", got, err)
	}
}

func TestOpenPageRefuses(t *testing.T) {
	page, other := newKey(t), newKey(t)
	now := time.Now()
	good, err := signPage(page, other.PeerID(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(kind string, body []byte, expires time.Time) []byte {
		raw, err := identity.SignRecord(page, identity.Record{Kind: kind, Seq: 1, Expires: expires, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	body := encodePage(other.PeerID(), nil)
	later := now.Add(time.Hour)
	tests := []struct {
		name string
		raw  []byte
		of   identity.PeerID
		code identity.Code
	}{
		{"record of another page", good, other.PeerID(), identity.CodeForbidden},
		{"other kind", sign("presence", body, later), page.PeerID(), identity.CodeMalformed},
		{"expired", sign(pageKind, body, now), page.PeerID(), identity.CodeTimeout},
		{"changed", append(append([]byte{}, good[:len(good)-1]...), good[len(good)-1]^1), page.PeerID(), identity.CodeForbidden},
		{"empty", nil, page.PeerID(), identity.CodeMalformed},
		{"no node", sign(pageKind, []byte{0, 0}, later), page.PeerID(), identity.CodeMalformed},
		{"bytes after the end", sign(pageKind, append(body[:len(body):len(body)], 1), later), page.PeerID(), identity.CodeMalformed},
		{"too many addresses", sign(pageKind, append(body[:len(body)-1:len(body)-1], maxPageAddrs+1), later), page.PeerID(), identity.CodeMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := openPage(tt.raw, tt.of, now); identity.CodeOf(err) != tt.code {
				t.Errorf("got %v, want code %s", err, tt.code)
			}
		})
	}
}

func TestPageBodyRoundTrip(t *testing.T) {
	node := newKey(t).PeerID()
	rapid.Check(t, func(t *rapid.T) {
		ports := rapid.SliceOfN(rapid.IntRange(1, 65535), 0, 2*maxPageAddrs).Draw(t, "ports")
		var addrs []ma.Multiaddr
		for _, p := range ports {
			a, err := ma.NewMultiaddr("/ip4/127.0.0.1/tcp/" + itoa(p))
			if err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, a)
		}
		got, list, ok := decodePage(encodePage(node, addrs))
		if !ok || got != node || len(list) != min(len(addrs), maxPageAddrs) {
			t.Fatalf("decoded %s, %d addresses, %v", got, len(list), ok)
		}
		for i, a := range list {
			if !a.Equal(addrs[i]) {
				t.Fatalf("address %d is %s, want %s", i, a, addrs[i])
			}
		}
	})
}

func itoa(n int) string {
	raw, _ := json.Marshal(n)
	return string(raw)
}

func FuzzDecodePage(f *testing.F) {
	f.Add([]byte{0, 0})
	f.Add(encodePage("", nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		node, addrs, ok := decodePage(body)
		if !ok {
			return
		}
		if len(node) > maxIDLen || len(addrs) > maxPageAddrs {
			t.Errorf("limits passed: node %d bytes, %d addresses", len(node), len(addrs))
		}
	})
}
