package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/star/socketio/wire"
)

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		text string
		want wire.Header
		bad  bool
	}{
		{text: "0", want: wire.Header{Kind: '0', ID: wire.NoAck}},
		{text: "1", want: wire.Header{Kind: '1', ID: wire.NoAck}},
		{text: `2["a"]`, want: wire.Header{Kind: '2', ID: wire.NoAck, Body: []byte(`["a"]`)}},
		{text: `20["a"]`, want: wire.Header{Kind: '2', ID: 0, Body: []byte(`["a"]`)}},
		{text: `2123456["a"]`, want: wire.Header{Kind: '2', ID: 123456, Body: []byte(`["a"]`)}},
		{text: `39999999999999999999[]`, bad: true},
		{text: `39999999999999999999`, bad: true},
		{text: `3999999999999999999[]`, want: wire.Header{Kind: '3', ID: 999999999999999999, Body: []byte(`[]`)}},
		{text: `51-["q",{}]`, want: wire.Header{Kind: '5', Attachments: 1, ID: wire.NoAck, Body: []byte(`["q",{}]`)}},
		{text: `610-7[]`, want: wire.Header{Kind: '6', Attachments: 10, ID: 7, Body: []byte(`[]`)}},
		{text: `511-[]`, bad: true},
		{text: `5["a"]`, bad: true},
		{text: `5-["a"]`, bad: true},
		{text: `51`, bad: true},
		{text: `2/chat,5["a"]`, want: wire.Header{Kind: '2', Namespace: "/chat", ID: 5, Body: []byte(`["a"]`)}},
		{text: `0/chat`, want: wire.Header{Kind: '0', Namespace: "/chat", ID: wire.NoAck}},
		{text: `0/chat,`, want: wire.Header{Kind: '0', Namespace: "/chat", ID: wire.NoAck}},
		{text: `2/,["a"]`, want: wire.Header{Kind: '2', ID: wire.NoAck, Body: []byte(`["a"]`)}},
		{text: "", bad: true},
		{text: "7[]", bad: true},
		{text: "x", bad: true},
	} {
		t.Run(c.text, func(t *testing.T) {
			got, err := wire.ParseHeader([]byte(c.text))
			if c.bad {
				if err == nil {
					t.Fatalf("accepted as %+v", got)
				}
				return
			}
			check(t, err)
			if got.Kind != c.want.Kind || got.Attachments != c.want.Attachments || got.Namespace != c.want.Namespace ||
				got.ID != c.want.ID || !bytes.Equal(got.Body, c.want.Body) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestArrayRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, body string
		ok         bool
	}{
		{"eight deep", deep(8), true},
		{"nine deep", deep(9), false},
		{"objects nine deep", strings.Repeat(`[{"a":`, 4) + `[1]` + strings.Repeat(`}]`, 4), false},
		{"not an array", `{"a":1}`, false},
		{"two arrays", `[][]`, false},
		{"trailing space", `["a"] `, true},
		{"trailing comma", `["a",]`, false},
		{"leading comma", `[,"a"]`, false},
		{"open", `["a"`, false},
		{"empty", ``, false},
		{"control character", "[\"a\x01\"]", false},
		{"bad escape", `["\x"]`, false},
		{"bad hex", `["\u12g4"]`, false},
		{"leading zero", `[01]`, false},
		{"minus alone", `[-]`, false},
		{"dot alone", `[1.]`, false},
		{"exponent alone", `[1e]`, false},
		{"NaN", `[NaN]`, false},
		{"numbers", `[0,-0,1.5e+10,123456789012345678901234567890]`, true},
		{"object without value", `[{"a"}]`, false},
		{"object with two colons", `[{"a"::1}]`, false},
		{"key that is no string", `[{1:1}]`, false},
		{"wrong closer", `[{"a":1]]`, false},
		{"duplicate keys", `[{"a":1,"a":2}]`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := wire.Array([]byte(c.body), nil, wire.MaxArgs, wire.Limits{})
			if (err == nil) != c.ok {
				t.Errorf("error %v, want ok = %v", err, c.ok)
			}
		})
	}
}

// S-6: nesting costs no stack and no memory.
func TestS_6_NestedJSON(t *testing.T) {
	for _, body := range []string{
		strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
		strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
	} {
		allocs := testing.AllocsPerRun(10, func() {
			if _, _, err := wire.Array([]byte(body), nil, wire.MaxArgs, wire.Limits{}); err == nil {
				t.Fatal("accepted")
			}
		})
		if allocs > 2 {
			t.Errorf("%v allocations", allocs)
		}
	}
}

func TestArrayCountsBeyondMost(t *testing.T) {
	values, count, err := wire.Array([]byte(`["a",1,2,3,4]`), nil, 2, wire.Limits{})
	check(t, err)
	if len(values) != 2 || count != 5 {
		t.Errorf("%d values of %d", len(values), count)
	}
}

func TestPlaceholders(t *testing.T) {
	for _, c := range []struct {
		body        string
		attachments int
		ok          bool
	}{
		{`["q",{"_placeholder":true,"num":0}]`, 1, true},
		{`["q",{"num":0,"_placeholder":true}]`, 1, true},
		{`["q",{"_placeholder":true,"num":1}]`, 1, false},
		{`["q",{"_placeholder":true,"num":-1}]`, 1, false},
		{`["q",{"_placeholder":true,"num":0.5}]`, 1, false},
		{`["q",{"_placeholder":true,"num":"0"}]`, 1, false},
		{`["q",{"_placeholder":true}]`, 1, false},
		{`["q",{"_placeholder":false,"num":9}]`, 1, true},
		{`["q",{"_placeholder":1,"num":9}]`, 1, true},
		{`["q",{"a":[{"_placeholder":true,"num":2}]}]`, 2, false},
		{`["q",{"a":[{"_placeholder":true,"num":1}]}]`, 2, true},
		{`["q",{"_placeholder":true,"num":5}]`, 0, true},
	} {
		_, _, err := wire.Array([]byte(c.body), nil, wire.MaxArgs, wire.Limits{Attachments: c.attachments})
		if (err == nil) != c.ok {
			t.Errorf("%s with %d: error %v, want ok = %v", c.body, c.attachments, err, c.ok)
		}
	}
	for raw, want := range map[string]int{
		`{"_placeholder":true,"num":0}`: 0, `{"_placeholder":true,"num":7}`: 7, `{"num":1}`: -1, `"x"`: -1, ``: -1,
		`[{"_placeholder":true,"num":0}]`: -1, `{"a":{"_placeholder":true,"num":0}}`: -1,
	} {
		num, ok := wire.Placeholder([]byte(raw))
		if !ok {
			num = -1
		}
		if num != want {
			t.Errorf("placeholder of %s is %d, want %d", raw, num, want)
		}
	}
}

// What the scanner accepts is what encoding/json accepts, to the depth.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`["a",1,null]`, `{"_placeholder":true,"num":0}`, `[-0.5e-7,"\u00e9\ud83d\ude00"]`, `[[[[[[[[]]]]]]]]`, `"\u"`, `tru`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end, err := wire.Scan(b, wire.Limits{})
		if err == nil {
			if !json.Valid(b[:end]) {
				t.Fatalf("accepted %q", b[:end])
			}
			if text, ok := wire.String(bytes.TrimLeft(b[:end], " \t\r\n")); ok {
				var want string
				if err := json.Unmarshal(b[:end], &want); err != nil || utf8.Valid(b[:end]) && text != want {
					t.Fatalf("string %q, want %q", text, want)
				}
			}
			return
		}
		if json.Valid(b) && depth(b) <= wire.MaxDepth {
			t.Fatalf("refused %q: %v", b, err)
		}
	})
}

func depth(b []byte) (deepest int) {
	d, dec := 0, json.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := dec.Token()
		if err != nil {
			return deepest
		}
		switch tok {
		case json.Delim('['), json.Delim('{'):
			d++
			deepest = max(deepest, d)
		case json.Delim(']'), json.Delim('}'):
			d--
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`20["ss-join","/ip4/1.2.3.4","00"]`))
	f.Add([]byte(`51-["socket.io-pull-stream.queue.x.dialer",{"_placeholder":true,"num":0}]`))
	f.Add([]byte(`3/a,17[null,null,["x"]]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.ParseHeader(b)
		if err != nil {
			return
		}
		values, count, err := wire.Array(h.Body, nil, wire.MaxArgs, wire.Limits{Attachments: h.Attachments})
		if err != nil {
			return
		}
		if len(values) != min(count, wire.MaxArgs) {
			t.Fatalf("%d of %d values", len(values), count)
		}
		for _, v := range values {
			wire.String(v)
			wire.Truthy(v)
			wire.Placeholder(v)
		}
	})
}

func TestQuoteIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		raw := wire.AppendQuote(nil, text)
		var want string
		if err := json.Unmarshal(raw, &want); err != nil || want != text {
			t.Fatalf("%q reads as %q: %v", raw, want, err)
		}
		if end, err := wire.Scan(raw, wire.Limits{}); err != nil || end != len(raw) {
			t.Fatalf("scan of %q ends at %d: %v", raw, end, err)
		}
		if got, ok := wire.String(raw); !ok || got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
	for text, want := range map[string]string{
		"a/b<>&\u2028\x7f":   "\"a/b<>&\u2028\x7f\"",
		"\x00\b\f\n\r\t\"\\": `"\u0000\b\f\n\r\t\"\\"`,
		"\xff":               "\"\ufffd\"",
	} {
		if got := string(wire.AppendQuote(nil, text)); got != want {
			t.Errorf("%q is written %s, want %s", text, got, want)
		}
	}
	for raw, want := range map[string]string{
		`"\ud83d\ude00"`: "😀", `"\ud83d"`: "\ufffd", `"\ude00\ud83d"`: "\ufffd\ufffd", `"\ud83dx"`: "\ufffdx", `"\/"`: "/",
	} {
		if got, _ := wire.String([]byte(raw)); got != want {
			t.Errorf("%s is read as %q, want %q", raw, got, want)
		}
	}
}

func TestTruthy(t *testing.T) {
	for raw, want := range map[string]bool{
		"": false, "null": false, "false": false, "true": true, `""`: false, `"x"`: true, "0": false, "-0": false, "0.0e5": false,
		"0.01": true, "-1": true, "{}": true, "[]": true,
	} {
		if got := wire.Truthy([]byte(raw)); got != want {
			t.Errorf("%s is %v", raw, got)
		}
	}
}

func TestUTF16Len(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.Rune()).Draw(t, "text")
		if got, want := wire.UTF16Len([]byte(text)), len(utf16.Encode([]rune(text))); got != want {
			t.Fatalf("%q has %d units, counted %d", text, want, got)
		}
	})
}

func drawPacket(t *rapid.T) wire.Packet {
	if rapid.Bool().Draw(t, "binary") {
		return wire.Packet{Type: wire.Message, Binary: true, Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data")}
	}
	return wire.Packet{Type: wire.Type(rapid.IntRange('0', '6').Draw(t, "type")), Data: []byte(rapid.StringOf(rapid.Rune()).Draw(t, "text"))}
}

func TestPayloadsAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text, bin []byte
		var want []wire.Packet
		for range rapid.IntRange(0, 6).Draw(t, "packets") {
			p := drawPacket(t)
			want = append(want, p)
			text, bin = wire.AppendText(text, p), wire.AppendBinary(bin, p)
		}
		for name, err := range map[string]error{
			"text":   wire.DecodeText(text, comparer(t, want)),
			"binary": wire.DecodeBinary(bin, comparer(t, want)),
		} {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

func comparer(t *rapid.T, want []wire.Packet) func(wire.Packet) error {
	return func(p wire.Packet) error {
		if len(want) == 0 {
			return errors.New("more packets than written")
		}
		w := want[0]
		if want = want[1:]; p.Type != w.Type || p.Binary != w.Binary || !bytes.Equal(p.Data, w.Data) {
			t.Fatalf("read %+v, want %+v", p, w)
		}
		return nil
	}
}

func TestPayloadsOfTheSpec(t *testing.T) {
	for _, c := range []struct {
		p    wire.Packet
		text string
	}{
		{wire.Packet{Type: wire.Message, Binary: true, Data: []byte("\x00\x01\xfe\xff")}, "10:b4AAH+/w=="},
		{wire.Packet{Type: wire.Message, Binary: true}, "2:b4"},
		{wire.Packet{Type: wire.Message, Data: []byte("2[\"😀é\"]")}, "9:42[\"😀é\"]"},
	} {
		if got := string(wire.AppendText(nil, c.p)); got != c.text {
			t.Errorf("wrote %q, want %q", got, c.text)
		}
	}
	long := wire.Packet{Type: wire.Message, Data: bytes.Repeat([]byte("x"), 75)}
	if got := wire.AppendBinary(nil, long); !bytes.HasPrefix(got, []byte("\x00\x07\x06\xff4")) {
		t.Errorf("a string of 76 bytes begins %x", got[:5])
	}
	five := wire.Packet{Type: wire.Message, Binary: true, Data: make([]byte, 5)}
	if got := wire.AppendBinary(nil, five); !bytes.HasPrefix(got, []byte("\x01\x06\xff\x04")) {
		t.Errorf("five bytes begin %x", got[:4])
	}
}

func TestPayloadsRefused(t *testing.T) {
	ignore := func(wire.Packet) error { return nil }
	for _, body := range []string{":4", "4", "2:4", "x:4", "1:9", "2:b5", "3:b4!", "-1:4", "9999999999:4", "1:\xff", "1:😀", "99:4"} {
		if wire.DecodeText([]byte(body), ignore) == nil {
			t.Errorf("text %q accepted", body)
		}
	}
	for _, body := range []string{"\x00", "\x00\xff", "\x02\x01\xff4", "\x00\x01", "\x00\x0a\xff", "\x00\x02\xff4", "\x01\x01\xff\x05", "\x00\x01\xff\xff",
		"\x00\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff"} {
		if wire.DecodeBinary([]byte(body), ignore) == nil {
			t.Errorf("binary %q accepted", body)
		}
	}
	stop := errors.New("stop")
	if err := wire.DecodeText([]byte("1:61:6"), func(wire.Packet) error { return stop }); err != stop {
		t.Errorf("error %v, want that of fn", err)
	}
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte("97:0{}2:40"), false)
	f.Add([]byte("10:b4AAH+/w==1:6"), false)
	f.Add([]byte("\x01\x06\xff\x04\x00\xff\x01\x02\x03"), true)
	f.Fuzz(func(t *testing.T, body []byte, binary bool) {
		decode, encode := wire.DecodeText, wire.AppendText
		if binary {
			decode, encode = wire.DecodeBinary, wire.AppendBinary
		}
		var packets []wire.Packet
		var again []byte
		if decode(body, func(p wire.Packet) error {
			packets, again = append(packets, p), encode(again, p)
			return nil
		}) != nil {
			return
		}
		i := 0
		if err := decode(again, func(p wire.Packet) error {
			if !bytes.Equal(p.Data, packets[i].Data) || p.Type != packets[i].Type || p.Binary != packets[i].Binary {
				t.Fatalf("packet %d differs", i)
			}
			i++
			return nil
		}); err != nil || i != len(packets) {
			t.Fatalf("%d of %d packets again: %v", i, len(packets), err)
		}
	})
}

func TestParseOpenRefuses(t *testing.T) {
	for _, data := range []string{``, `{}`, `[]`, `{"sid":"a","pingInterval":0,"pingTimeout":5}`, `{"sid":"a","pingInterval":1e99,"pingTimeout":5000}`,
		`{"sid":"","pingInterval":25000,"pingTimeout":5000}`, `{"sid":"a","pingInterval":25000,"pingTimeout":5000}x`,
		`{"sid":"` + strings.Repeat("a", 300) + `","pingInterval":25000,"pingTimeout":5000}`} {
		if _, err := wire.ParseOpen([]byte(data)); err == nil {
			t.Errorf("%s accepted", data)
		}
	}
	h, err := wire.ParseOpen([]byte(`{"sid":"a","x":[1],"upgrades":["websocket"],"pingInterval":25000,"pingTimeout":5000,"parley":{"v":1}}`))
	check(t, err)
	if h.PingTimeout != 5000 || string(h.Parley) != `{"v":1}` {
		t.Errorf("read %+v", h)
	}
}
