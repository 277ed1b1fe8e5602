package network

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/identity"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContentJSON(t *testing.T) {
	embedded := func(text string) string {
		return "d90106 58" + hex.EncodeToString([]byte{byte(len(text))}) + hex.EncodeToString([]byte(text))
	}
	for _, c := range []struct{ name, item, want string }{
		{"uint", "1903e8", "1000"},
		{"largest uint", "1bffffffffffffffff", "18446744073709551615"},
		{"negative", "20", "-1"},
		{"smallest negative", "3bffffffffffffffff", "-18446744073709551616"},
		{"float", "fb3ff199999999999a", "1.1"},
		{"float32", "fa3dcccccd", "0.10000000149011612"},
		{"half", "f93e00", "1.5"},
		{"half subnormal", "f90001", "5.960464477539063e-8"},
		{"minus zero", "f98000", "-0"},
		{"large float", "fb444b1ae4d6e2ef50", "1e+21"},
		{"small float", "fb3e7ad7f29abcaf48", "1e-7"},
		{"true, false, null, undefined", "84f5f4f6f7", "[true,false,null,null]"},
		{"escapes", "66225c0a01c3a9", `"\"\\\n\u0001é"`},
		{"key order", "a3 617a 01 6161 02 6162 03", `{"z":1,"a":2,"b":3}`},
		{"bytes", "43010203", ` {"$bytes":"AQID"}`},
		{"no bytes at all", "40", ` {"$bytes":""}`},
		{"bytes inside", "82 01 a1 6164 41ff", ` [1,{"d":{"$bytes":"/w=="}}]`},
		{"an object that looks like bytes", "a1 66246279746573 6441513d3d", `{"\u0024bytes":"AQ=="}`},
		{"embedded", embedded(`{"a": 123456789012345678901234567890}`), `{"a": 123456789012345678901234567890}`},
		{"embedded beside bytes", "82" + embedded(`{"$bytes":"AQ==","s":"x\"$bytes"}`) + "4101",
			` [{"\u0024bytes":"AQ==","s":"x\"\u0024bytes"},{"$bytes":"AQ=="}]`},
		{"embedded without bytes", "81" + embedded(`{"$bytes":"AQ=="}`), `[{"$bytes":"AQ=="}]`},
		{"two items", "0101", ""},
		{"cut short", "8201", ""},
		{"length past the end", "5bffffffffffffffff", ""},
		{"huge array", "9bffffffffffffffff", ""},
		{"indefinite", "9f01ff", ""},
		{"NaN", "f97e00", ""},
		{"infinity", "f97c00", ""},
		{"other tag", "c100", ""},
		{"other simple value", "f0", ""},
		{"bad UTF-8", "61ff", ""},
		{"number as a key", "a10101", ""},
		{"key twice", "a2 6161 01 6161 02", ""},
		{"embedded nonsense", embedded(`{"a":`), ""},
		{"empty", "", ""},
		{"deepest", strings.Repeat("81", MaxCBORDepth) + "01", strings.Repeat("[", MaxCBORDepth) + "1" + strings.Repeat("]", MaxCBORDepth)},
		{"too deep", strings.Repeat("81", MaxCBORDepth+1) + "01", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Content{Type: CBOR, Data: unhex(t, c.item)}.JSON()
			if string(got) != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if c.want == "" && identity.CodeOf(err) != identity.CodeMalformed {
				t.Errorf("error is %v", err)
			}
			if c.want != "" && (err != nil || !ValidJSON(got)) {
				t.Errorf("not valid JSON: %v", err)
			}
		})
	}
}

func TestContentJSONOfOtherTypes(t *testing.T) {
	got, err := Content{Type: JSON, Data: []byte("  {\"b\":1, \"a\":1e400}\n")}.JSON()
	if string(got) != `{"b":1, "a":1e400}` || err != nil {
		t.Errorf("JSON: %s, %v", got, err)
	}
	got, err = Content{Type: Bytes, Data: []byte{1, 2, 3}}.JSON()
	if string(got) != ` {"$bytes":"AQID"}` || err != nil {
		t.Errorf("bytes: %s, %v", got, err)
	}
	for name, c := range map[string]Content{
		"nothing":      {Type: JSON},
		"not JSON":     {Type: JSON, Data: []byte("{a:1}")},
		"bad UTF-8":    {Type: JSON, Data: []byte("\"\xff\"")},
		"unknown type": {Type: 9, Data: []byte("1")},
	} {
		if _, err := c.JSON(); identity.CodeOf(err) != identity.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFromJSON(t *testing.T) {
	deep := strings.Repeat("[", 70) + "1" + strings.Repeat("]", 70)
	for _, c := range []struct{ name, text, item string }{
		{"bytes", ` {"$bytes":"AQID"}`, "43010203"},
		{"inside", ` [1,{"d":{"$bytes":"/w=="},"e":-2}]`, "82 01 a2 6164 41ff 6165 21"},
		{"without the mark", `{"$bytes":"AQID"}`, ""},
		{"mark without bytes", ` {"a":1}`, ""},
		{"an object that looks like bytes", ` [{"\u0024bytes":"AQ=="},{"$bytes":"AQ=="}]`,
			"82 a1 66246279746573 6441513d3d 4101"},
		{"more than the key", ` {"$bytes":"AQ==","x":1}`, "a2 66246279746573 6441513d3d 6178 01"},
		{"not base64", ` {"$bytes":"A"}`, "a1 66246279746573 6141"},
		{"numbers", ` [{"$bytes":""},18446744073709551615,-9223372036854775808,0.5,-0]`,
			"85 40 1bffffffffffffffff 3b7fffffffffffffff fb3fe0000000000000 fb8000000000000000"},
		{"number past 64 bits", ` [{"$bytes":""},18446744073709551616]`,
			"82 40 d90106 54 3138343436373434303733373039353531363136"},
		{"lone surrogate", ` [{"$bytes":""},"\ud800"]`, "82 40 d90106 48 225c756438303022"},
		{"surrogate pair", ` [{"$bytes":""},"\ud83d\ude00"]`, "82 40 64 f09f9880"},
		{"key twice stays text", ` {"a":{"$bytes":""},"a":1}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := FromJSON([]byte(c.text))
			want := Content{Type: CBOR, Data: unhex(t, c.item)}
			if c.item == "" {
				want = Content{Type: JSON, Data: []byte(strings.TrimSpace(c.text))}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %d %x, want %d %x", got.Type, got.Data, want.Type, want.Data)
			}
		})
	}
	if got := FromJSON([]byte(` {"b":{"$bytes":""},"d":` + deep + `}`)); got.Type != CBOR {
		t.Error("deep JSON beside bytes isn't CBOR")
	} else if back, err := got.JSON(); err != nil || !bytes.Contains(back, []byte(deep)) {
		t.Errorf("deep JSON came back as %s, %v", back, err)
	}
}

func TestAbuse20_NestingOfJSON(t *testing.T) {
	at := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if !ValidJSON(at(MaxJSONDepth)) || ValidJSON(at(MaxJSONDepth+1)) || ValidJSON(at(100_000)) {
		t.Error("the limit of nesting doesn't hold")
	}
	if !ValidJSON([]byte(`"` + strings.Repeat(`[\"`, 1000) + `"`)) {
		t.Error("brackets in a string count as nesting")
	}
}

// TestContentRoundTrip: what a v2 page sends to another node arrives as the
// same value, bytes and look-alikes included.
func TestContentRoundTrip(t *testing.T) {
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaves := []*rapid.Generator[any]{
			rapid.Just[any](nil),
			rapid.Bool().AsAny(),
			rapid.Uint64().AsAny(),
			rapid.Int64Max(-1).AsAny(),
			rapid.Float64().Filter(func(f float64) bool { return f != math.Trunc(f) }).AsAny(),
			rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, '\uFFFD') }).AsAny(),
			rapid.SliceOf(rapid.Byte()).AsAny(),
		}
		if depth == 0 {
			return rapid.OneOf(leaves...)
		}
		key := rapid.OneOf(rapid.Just("$bytes"), rapid.StringMatching(`[a-z"\\]{0,3}`))
		return rapid.OneOf(append(leaves,
			rapid.SliceOfN(value(depth-1), 0, 4).AsAny(),
			rapid.MapOfN(key, value(depth-1), 0, 4).AsAny())...)
	}
	rapid.Check(t, func(t *rapid.T) {
		sent := value(3).Draw(t, "value")
		item, err := cbor.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		text, err := Content{Type: CBOR, Data: item}.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(text) {
			t.Fatalf("not JSON: %s", text)
		}
		back := FromJSON(text)
		var want, got any
		if err := cbor.Unmarshal(item, &want); err != nil {
			t.Fatal(err)
		}
		if back.Type == JSON { // nothing in it but JSON
			back.Data, _ = jsonToCBOR(back.Data)
		}
		if err := cbor.Unmarshal(back.Data, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("sent %#v, got %#v by %s", want, got, text)
		}
	})
}

func FuzzContentJSON(f *testing.F) {
	for _, s := range []string{"82 01 a1 6164 41ff", "d90106 42 5b5d", "a1 66246279746573 6441513d3d", "fb3ff199999999999a"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, item []byte) {
		text, err := Content{Type: CBOR, Data: item}.JSON()
		if err != nil {
			return
		}
		if !ValidJSON(text) {
			t.Fatalf("%x became %q", item, text)
		}
		again, err := FromJSON(text).JSON()
		if err != nil {
			t.Fatalf("%q can't go back: %v", text, err)
		}
		if !bytes.Equal(again, text) && text[0] != ' ' {
			t.Fatalf("%q became %q", text, again)
		}
	})
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(` {"a":{"$bytes":"AQ=="},"b":[1,-1,1.5,1e999,"\ud800"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if !ValidJSON(text) {
			return
		}
		c := FromJSON(text)
		if _, err := c.JSON(); err != nil {
			t.Fatalf("%q became %d %x: %v", text, c.Type, c.Data, err)
		}
	})
}
