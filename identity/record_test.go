package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata/records.json anew")

// recordVector is one signed record of testdata/records.json.
type recordVector struct {
	Name    string `json:"name"`
	Seed    string `json:"seed"` // hex, of the signer's key
	Kind    string `json:"kind"`
	Seq     uint64 `json:"seq"`
	Expires int64  `json:"expires"` // Unix milliseconds
	Body    string `json:"body"`    // hex
	Record  string `json:"record"`  // hex
}

func seedKey(t testing.TB, fill byte) Key {
	t.Helper()
	key, err := KeyFromSeed([32]byte(bytes.Repeat([]byte{fill}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRecordVectors(t *testing.T) {
	const file = "testdata/records.json"
	vectors := []recordVector{
		{Name: "presence", Seed: "01", Kind: "presence", Seq: 7, Expires: 1795000000123, Body: "a1646e616d6563416e6e"},
		{Name: "empty body", Seed: "02", Kind: "page", Seq: 0, Expires: 1, Body: ""},
		{Name: "large numbers", Seed: "03", Kind: "node", Seq: 1<<63 + 5, Expires: 1 << 53, Body: "00ff"},
	}
	for i, v := range vectors {
		fill, _ := hex.DecodeString(v.Seed)
		body, _ := hex.DecodeString(v.Body)
		raw, err := SignRecord(seedKey(t, fill[0]), Record{Kind: v.Kind, Seq: v.Seq, Expires: time.UnixMilli(v.Expires), Body: body})
		if err != nil {
			t.Fatal(err)
		}
		vectors[i].Seed = strings.Repeat(v.Seed, 32)
		vectors[i].Record = hex.EncodeToString(raw)
	}
	if *update {
		out, _ := json.MarshalIndent(vectors, "", "\t")
		if err := os.WriteFile(file, append(out, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var kept []recordVector
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	for i, v := range kept {
		if vectors[i] != v {
			t.Errorf("%s: signing gives another record", v.Name)
		}
		bin, _ := hex.DecodeString(v.Record)
		r, err := OpenRecord(bin, v.Kind, time.UnixMilli(v.Expires-1))
		if err != nil || r.Seq != v.Seq || r.Expires.UnixMilli() != v.Expires || hex.EncodeToString(r.Body) != v.Body {
			t.Errorf("%s: opened as %+v, %v", v.Name, r, err)
		}
	}
}

func TestOpenRecordRefuses(t *testing.T) {
	key, now := seedKey(t, 1), time.UnixMilli(1_000_000)
	good, err := SignRecord(key, Record{Kind: "page", Seq: 1, Expires: now.Add(time.Hour), Body: []byte("body")})
	if err != nil {
		t.Fatal(err)
	}
	resign := func(signed []byte) []byte { return append(signed, key.Sign(recordDigest(signed))...) }
	unsigned := good[:len(good)-64]
	longSeq := append(append(append([]byte{}, unsigned[:38]...), 0x81, 0x00), unsigned[39:]...) // 1 in two bytes
	tests := []struct {
		name string
		raw  []byte
		kind string
		now  time.Time
		code Code
	}{
		{"empty", nil, "page", now, CodeMalformed},
		{"only a signature", good[len(good)-64:], "page", now, CodeMalformed},
		{"cut", resign(bytes.Clone(unsigned[:len(unsigned)-1])), "page", now, CodeMalformed},
		{"bytes behind it", resign(append(bytes.Clone(unsigned), 0)), "page", now, CodeMalformed},
		{"another version", resign(append([]byte{2}, unsigned[1:]...)), "page", now, CodeMalformed},
		{"a number in a longer form", resign(longSeq), "page", now, CodeMalformed},
		{"another kind", good, "presence", now, CodeMalformed},
		{"expired", good, "page", now.Add(time.Hour), CodeTimeout},
		{"too large", make([]byte, 64<<10), "page", now, CodeTooLarge},
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := OpenRecord(bad, "page", now); err == nil {
			t.Errorf("byte %d changed, and nobody noticed", i)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := OpenRecord(tt.raw, tt.kind, tt.now); CodeOf(err) != tt.code {
				t.Errorf("%v, want %s", err, tt.code)
			}
		})
	}
}

func TestSignRecordLimits(t *testing.T) {
	key := seedKey(t, 1)
	for name, r := range map[string]Record{
		"no kind":   {},
		"long kind": {Kind: strings.Repeat("k", MaxRecordKind+1)},
		"long body": {Kind: "k", Body: make([]byte, MaxRecordBody+1)},
	} {
		if _, err := SignRecord(key, r); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	largest := Record{Kind: strings.Repeat("k", MaxRecordKind), Body: make([]byte, MaxRecordBody), Seq: 1<<64 - 1, Expires: time.UnixMilli(1 << 53)}
	raw, err := SignRecord(key, largest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRecord(raw, largest.Kind, time.UnixMilli(0)); err != nil {
		t.Errorf("the largest record can't be opened: %v", err)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, err := KeyFromSeed([32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")))
		if err != nil {
			t.Fatal(err)
		}
		want := Record{
			Kind:    rapid.StringMatching(`[a-z/]{1,64}`).Draw(t, "kind"),
			Seq:     rapid.Uint64().Draw(t, "seq"),
			Expires: time.UnixMilli(rapid.Int64Range(1, 1<<53).Draw(t, "expires")),
			Body:    rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body"),
		}
		raw, err := SignRecord(key, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenRecord(raw, want.Kind, want.Expires.Add(-time.Millisecond))
		if err != nil || got.Signer != key.Agent() || got.Seq != want.Seq || !got.Expires.Equal(want.Expires) || !bytes.Equal(got.Body, want.Body) {
			t.Fatalf("opened %+v, %v; want %+v", got, err, want)
		}
	})
}

func FuzzOpenRecord(f *testing.F) {
	key := seedKey(f, 1)
	for _, body := range []string{"", "body"} {
		raw, err := SignRecord(key, Record{Kind: "page", Seq: 300, Expires: time.UnixMilli(1 << 40), Body: []byte(body)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, ok := parseRecord(raw)
		if ok && !bytes.Equal(appendRecord(nil, r), raw) {
			t.Errorf("%x is read, but has another form", raw)
		}
		_, err := OpenRecord(raw, "page", time.UnixMilli(0))
		if known := new(Error); err != nil && !errors.As(err, &known) {
			t.Errorf("error without a code: %v", err)
		}
	})
}
