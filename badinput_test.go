package parley

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// panics notes what a node logs of panics.
type panics struct {
	mu    sync.Mutex
	lines []string
}

func (p *panics) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "panic") {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lines = append(p.lines, string(line))
	}
	return len(line), nil
}

func (p *panics) fail(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		t.Error(line)
	}
}

// hostileServer is a node for pages that send rubbish.
func hostileServer(t *testing.T) *gatewaytest.Server {
	t.Helper()
	log := &panics{}
	t.Cleanup(func() { log.fail(t) })
	s := v1Server(t, sendTimeout(50*time.Millisecond), func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.Limits.Sessions = 100
	})
	gatewaytest.Join2(t, s, v2.HelloFrame{}) // the others share its peer, and come and go fast
	return s
}

// junk is what stands in the place of an element of a frame: CBOR items of every
// kind, the last ones well-formed and not allowed.
var junk = map[string][]byte{
	"null": {0xf6}, "true": {0xf5}, "-1": {0x20}, "1.5": {0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0}, "0": {0}, "7": {7}, "2^53": {0x1b, 0, 0x20, 0, 0, 0, 0, 0, 0},
	"text": {0x63, 'a', 0, 'b'}, "empty text": {0x60}, "bytes": {0x42, 1, 2}, "array": {0x81, 1}, "map": {0xa1, 0x61, 'a', 1}, "empty map": {0xa0},
	"a key twice": {0xa2, 0x61, 'a', 1, 0x61, 'a', 2}, "a tag": {0xc1, 1}, "text that isn't UTF-8": {0x61, 0xff}, "NaN": {0xf9, 0x7e, 0}, "undefined": {0xf7},
	"deep": append([]byte(strings.Repeat("\x81", 70)), 1), "long text": append([]byte{0x79, 2, 0}, strings.Repeat("x", 512)...),
}

// damages are all frames that a frame becomes by one fault that leaves it a frame;
// params: only those in its parameters.
func damages(t *testing.T, frame []byte, params bool) map[string][]byte {
	t.Helper()
	var parts []cbor.RawMessage
	if err := cbor.Unmarshal(frame, &parts); err != nil {
		t.Fatal(err)
	}
	join := func(parts []cbor.RawMessage) []byte {
		out := v2.AppendArray(nil, len(parts))
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	all := map[string][]byte{"whole": frame, "one element more": join(append(slices.Clone(parts), []byte{0xf6}))}
	for i := 1; i < len(parts); i++ {
		for name, item := range junk {
			if params {
				break
			}
			changed := slices.Clone(parts)
			changed[i] = item
			all[fmt.Sprintf("%s for element %d", name, i)] = join(changed)
			all[fmt.Sprint("without what is behind ", i)] = join(parts[:i])
		}
		for name, item := range damagedParams(t, parts[i]) {
			changed := slices.Clone(parts)
			changed[i] = item
			all[name] = join(changed)
		}
	}
	return all
}

// damagedParams changes each value of a map.
func damagedParams(t *testing.T, item []byte) map[string][]byte {
	t.Helper()
	var params map[string]cbor.RawMessage
	if cbor.Unmarshal(item, &params) != nil {
		return nil
	}
	all := map[string][]byte{}
	for key := range params {
		for name, value := range junk {
			out := v2.AppendMap(nil, len(params))
			for k, v := range params {
				if out = v2.AppendText(out, k); k == key {
					v = value
				}
				out = append(out, v...)
			}
			all[fmt.Sprintf("%s for %s", name, key)] = out
		}
	}
	return all
}

// pageVectors are the frames of pages in client/testdata, one of each kind, and of
// requests one of each method.
func pageVectors(t *testing.T) map[string][]byte {
	t.Helper()
	var file struct {
		Frames []struct {
			Name, From, Hex string
			Value           []any
		}
	}
	if err := json.Unmarshal([]byte(readDoc(t, "client/testdata/frames.json")), &file); err != nil {
		t.Fatal(err)
	}
	all, seen := map[string][]byte{}, map[string]bool{}
	for _, f := range file.Frames {
		kind := fmt.Sprint(f.Value[0])
		if f.Value[0] == 16.0 {
			kind += fmt.Sprint(f.Value[2])
		}
		if seen[kind] {
			continue
		}
		seen[kind] = true
		frame, err := hex.DecodeString(f.Hex)
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name] = frame
	}
	return all
}

// TestBadInput_V2 sends a whole node every kind of frame, those of nodes too, with
// every kind of fault. What can be answered is, and the session goes on; a frame
// that is none ends the socket with 1002 and a reason. Nothing else happens.
func TestBadInput_V2(t *testing.T) {
	s := hostileServer(t)
	for name, frame := range pageVectors(t) {
		f, _, err := v2.Next(frame)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == v2.KindHello {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var p *gatewaytest.Page2
			for fault, frame := range damages(t, frame, f.Kind == v2.KindRequest && name != "start") {
				if p == nil {
					p = gatewaytest.Join2(t, s, v2.HelloFrame{})
				}
				if open := badV2(t, p, f.Kind, fault, frame); !open {
					p = nil
				}
			}
			if p != nil {
				_ = p.WS.Close(1000, "")
			}
		})
	}
}

// badV2 sends a frame and a question behind it; it is false where that closed the
// socket.
func badV2(t *testing.T, p *gatewaytest.Page2, kind v2.Kind, fault string, frame []byte) (open bool) {
	t.Helper()
	const question = 1<<53 - 1
	p.Write(append(slices.Clone(frame), v2.AppendRequest(nil, question, "status", v2.AppendMap(nil, 0))...))
	for {
		f, err := p.Read()
		if err != nil {
			code, reason := gatewaytest.CloseOf(err)
			if want := map[v2.Kind]int{v2.KindBye: 1000}[kind]; (want == 0 && code != 1002 || want != 0 && int(code) != want) || reason == "" {
				t.Errorf("%s: closed with %d %q", fault, code, reason)
			}
			if fault == "whole" && kind != v2.KindBye && kind != v2.KindReceived && kind != v2.KindHello { // nothing was sent that it could count
				t.Errorf("closed with %d %q for the frame as it should be", code, reason)
			}
			if !mayClose(kind, fault) {
				t.Errorf("%s: closed with %d %q, want an answer", fault, code, reason)
			}
			return false
		}
		e := gatewaytest.Elements(t, f)
		switch f.Kind {
		case v2.KindResult:
			if e[0] == uint64(question) {
				return true
			}
		case v2.KindError:
			if e[0] == uint64(question) || e[1] == "internal" || e[2] == "" {
				t.Errorf("%s: error %v", fault, e)
			}
		}
	}
}

// mayClose says for which faults a socket may end: requests and sends whose id can
// be read are answered.
func mayClose(kind v2.Kind, fault string) bool {
	if kind != v2.KindRequest && kind != v2.KindSend {
		return true
	}
	return strings.HasSuffix(fault, "element 1") || fault == "without what is behind 1"
}

// TestBadInput_Hello: a hello that can't be read ends its socket with a reason, one
// that can be is welcomed or told why not.
func TestBadInput_Hello(t *testing.T) {
	s := hostileServer(t)
	hello := v2.AppendHello(nil, v2.HelloFrame{Version: 2, Identity: "work", Session: make([]byte, 16), Received: 7})
	all := damages(t, hello, false)
	keyed := damages(t, v2.AppendHello(nil, v2.HelloFrame{Version: 2, Key: "x"}), true)
	for fault, frame := range keyed {
		all["key: "+fault] = frame
	}
	for fault, frame := range all {
		p := gatewaytest.Open2(t, s)
		p.Write(frame)
		f, err := p.Read()
		if err == nil && f.Kind == v2.KindWelcome {
			_ = p.WS.Close(1000, "")
			continue
		}
		if err == nil && f.Kind == v2.KindBye {
			if e := gatewaytest.Elements(t, f); e[0] == "internal" || e[1] == "" {
				t.Errorf("%s: bye %v", fault, e)
			}
			_, err = p.Read()
		}
		if code, reason := gatewaytest.CloseOf(err); code != 1002 && code != 1008 || reason == "" {
			t.Errorf("%s: frame %d, closed with %d %q", fault, f.Kind, code, reason)
		}
	}
}

// TestBadInput_Bytes sends every prefix of every frame, and every frame with each
// of its bytes changed: answered, ignored, or 1002.
func TestBadInput_Bytes(t *testing.T) {
	s := hostileServer(t)
	p := gatewaytest.Join2(t, s, v2.HelloFrame{})
	question := v2.AppendRequest(nil, 1<<53-1, "status", v2.AppendMap(nil, 0))
	try := func(name string, msg []byte) {
		for _, m := range [][]byte{msg, question} {
			_ = p.WS.Write(t.Context(), websocket.MessageBinary, m) // it may be closed by now
		}
		for {
			f, err := p.Read()
			if err != nil {
				if code, reason := gatewaytest.CloseOf(err); code != 1002 && code != 1000 || reason == "" {
					t.Errorf("%s %x: closed with %d %q", name, msg, code, reason)
				}
				p = gatewaytest.Join2(t, s, v2.HelloFrame{})
				return
			}
			if f.Kind == v2.KindResult && gatewaytest.Elements(t, f)[0] == uint64(1<<53-1) {
				return
			}
		}
	}
	for name, frame := range pageVectors(t) {
		if f, _, err := v2.Next(frame); err != nil || f.Kind == v2.KindRequest && name != "start" {
			continue // requests are all cut alike
		}
		frame = frame[:min(len(frame), 80)] // the rest is more of the same
		for i := 1; i < len(frame); i += 4 {
			try(name, frame[:i])
			for _, bit := range []byte{1, 0x20, 0x80} { // the argument, the kind of item
				changed := slices.Clone(frame)
				changed[i-1] ^= bit
				try(name, changed)
			}
		}
	}
}

// TestBadInput_V1 sends a whole node each request with each parameter in every
// wrong form: each is answered once, and the session goes on.
func TestBadInput_V1(t *testing.T) {
	s := hostileServer(t)
	p := gatewaytest.Join1(t, s)
	params := map[string][]string{
		"peer": {"peerkey", "rootDirectory"}, "start": {"protocol"}, "stop": {"protocol"}, "send": {"peer", "protocol", "data", "ack"},
		"subscribe": {"topic"}, "unsubscribe": {"topic"}, "publish": {"topic", "data"}, "listpeers": {"topic"},
		"addpeers": {"peerIds"}, "removepeers": {"peerIds"}, "listfiles": {"peerid"}, "getfile": {"cid", "fallbackPeerID"},
		"storefile": {"path", "content", "directory"}, "removefile": {"path"}, "fly": {"x"},
	}
	good := map[string]string{"peer": `"` + p.ID + `"`, "protocol": `"p"`, "topic": `"t"`, "peerIds": `[]`, "data": "1", "ack": "-1", "peerid": `"x"`, "cid": `"x"`}
	wrong := []string{`null`, `true`, `-1`, `1.5`, `1e999`, `9223372036854775808`, `""`, `"x"`, `"\u0000"`, `"\ud800"`, `[]`, `[1]`, `[null]`, `["\u0000"]`, `{}`, `{"a":{"b":[]}}`,
		`"` + strings.Repeat("x", 300) + `"`, strings.Repeat("[", 400) + strings.Repeat("]", 400), strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600)}
	asked := 0
	for method, names := range params {
		for _, name := range names {
			for _, value := range wrong {
				var all []string
				for _, other := range names {
					if other != name && good[other] != "" {
						all = append(all, fmt.Sprintf("%q:%s", other, good[other]))
					}
				}
				id := p.Request(method, "{"+strings.Join(append(all, fmt.Sprintf("%q:%s", name, value)), ",")+"}")
				f := p.Response(id)
				asked++
				if f.Error != nil && (f.Error.Code != 400 && f.Error.Code != 500 || f.Error.Message == "" || f.Error.Message == "internal error") {
					t.Errorf("%s with %s = %.40s: %+v", method, name, value, *f.Error)
				}
				if method == "fly" && (f.Error == nil || f.Error.Message != "unknown method: fly" && f.Error.Message != "invalid params") {
					t.Errorf("fly: %+v", f)
				}
			}
		}
		for _, all := range []string{"[]", `"x"`, "7", "true"} {
			if f := p.Response(p.Request(method, all)); f.Error == nil || f.Error.Code != 400 && f.Error.Message != "files are not available on this node" {
				t.Errorf("%s with %s: %+v", method, all, f.Error)
			}
		}
	}
	if asked < 300 {
		t.Errorf("asked %d times only", asked)
	}
}
