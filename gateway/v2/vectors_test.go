package v2_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

var update = flag.Bool("update", false, "rewrite client/testdata/frames.json")

const vectorFile = "../../client/testdata/frames.json"

// The ids of the vectors are those of keys that anybody can make.
const (
	ann = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	bob = "12D3KooWSCufgHzV4fCwRijfH2k3abrpAJxTKxEvN1FDuRXA2U9x"
)

// vector is a frame, or data, as bytes and as what they mean: JSON, with
// {"$bytes":"base64"} for a byte string and {"$json":"text"} for tag 262.
type vector struct {
	Name  string          `json:"name"`
	From  string          `json:"from,omitempty"`
	Hex   string          `json:"hex"`
	Value json.RawMessage `json:"value,omitempty"`
}

type vectors struct {
	About     string   `json:"about"`
	Frames    []vector `json:"frames"`
	Data      []vector `json:"data"`
	BadData   []vector `json:"badData"`
	BadFrames []vector `json:"badFrames"`
}

func content(typ network.ContentType, s string) network.Content {
	return network.Content{Type: typ, Data: []byte(s)}
}

func item(v any) network.Content {
	raw, err := cbor.Marshal(v)
	if err != nil {
		panic(err)
	}
	return network.Content{Type: network.CBOR, Data: raw}
}

func params(pairs ...any) []byte {
	dst := v2.AppendMap(nil, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		dst = v2.AppendText(dst, pairs[i].(string))
		switch v := pairs[i+1].(type) {
		case string:
			dst = v2.AppendText(dst, v)
		case []string:
			dst = v2.AppendArray(dst, len(v))
			for _, s := range v {
				dst = v2.AppendText(dst, s)
			}
		case network.Content:
			dst = v2.AppendContent(dst, v)
		case int:
			dst = v2.AppendUint(dst, uint64(v))
		case bool:
			dst = v2.AppendBool(dst, v)
		}
	}
	return dst
}

func frameVectors() []vector {
	token := []byte("0123456789abcdef")
	b64 := base64.StdEncoding.EncodeToString(token)
	big := strings.Repeat("x", 300)
	limits := v2.WelcomeLimits{Frame: 32 << 20, Message: 8 << 20, Requests: 1024, Outbox: 16 << 20, OutboxTotal: 32 << 20, Channels: 256, Content: 64 << 10}
	pairOf := v2.AppendPair(nil, bob, "chat")
	fromAnn := v2.AppendPair(nil, ann, "chat")
	direct := v2.ChannelInfo{Remote: bob, Verified: true, Path: "direct", RTT: 1.5}
	relayed := v2.ChannelInfo{Remote: bob, Verified: true, Path: "relay", Relay: ann}
	v := func(name, from string, raw []byte, format string, args ...any) vector {
		return vector{Name: name, From: from, Hex: hex.EncodeToString(raw), Value: json.RawMessage(fmt.Sprintf(format, args...))}
	}
	list := []vector{
		v("hello, new", "page", v2.AppendHello(nil, v2.HelloFrame{Version: 2}), `[0,{"v":2}]`),
		v("hello, identity", "page", v2.AppendHello(nil, v2.HelloFrame{Version: 2, Identity: "work"}), `[0,{"v":2,"identity":"work"}]`),
		v("hello, a key that nobody keeps", "page", v2.AppendHello(nil, v2.HelloFrame{Version: 2, Keyless: true}), `[0,{"v":2,"identity":""}]`),
		v("hello, resume", "page", v2.AppendHello(nil, v2.HelloFrame{Version: 2, Session: token, Received: 7}),
			`[0,{"v":2,"session":{"$bytes":"%s"},"received":7}]`, b64),
		v("welcome", "node", v2.AppendWelcome(nil, v2.WelcomeFrame{Session: token, Peer: ann, Grace: 30 * time.Second, Node: "1.0.0", Limits: limits}),
			`[1,{"v":2,"session":{"$bytes":"%s"},"resumed":false,"received":0,"peer":"%s","grace":30000,"node":"1.0.0","limits":{"frame":33554432,"message":8388608,"requests":1024,"outbox":16777216,"outboxTotal":33554432,"channels":256,"content":65536}}]`, b64, ann),
		v("welcome, resumed", "node", v2.AppendWelcome(nil, v2.WelcomeFrame{Session: token, Resumed: true, Received: 65536, Peer: ann, Grace: time.Second, Node: "x", Limits: limits}),
			`[1,{"v":2,"session":{"$bytes":"%s"},"resumed":true,"received":65536,"peer":"%s","grace":1000,"node":"x","limits":{"frame":33554432,"message":8388608,"requests":1024,"outbox":16777216,"outboxTotal":33554432,"channels":256,"content":65536}}]`, b64, ann),
		v("received", "both", v2.AppendCount(nil, v2.KindReceived, 4294967296), `[2,4294967296]`),
		v("ping", "both", v2.AppendCount(nil, v2.KindPing, 23), `[3,23]`),
		v("pong", "both", v2.AppendCount(nil, v2.KindPong, 24), `[4,24]`),
		v("bye", "both", v2.AppendBye(nil, &identity.Error{Code: identity.CodeClosed, Text: "the node stops"}), `[5,"closed","the node stops"]`),
		v("bye, come back later", "node", v2.AppendBye(nil, &identity.Error{Code: identity.CodeLimit, Text: "too many sessions, limit 10000", RetryAfter: 5 * time.Second}),
			`[5,"limit","too many sessions, limit 10000",5000]`),
		v("start", "page", v2.AppendRequest(nil, 1, "start", params("protocol", "chat")), `[16,1,"start",{"protocol":"chat"}]`),
		v("stop", "page", v2.AppendRequest(nil, 2, "stop", params("protocol", "chat")), `[16,2,"stop",{"protocol":"chat"}]`),
		v("subscribe", "page", v2.AppendRequest(nil, 255, "subscribe", params("topic", "room")), `[16,255,"subscribe",{"topic":"room"}]`),
		v("subscribe, with state", "page", v2.AppendRequest(nil, 256, "subscribe", params("topic", "room", "state", item("away"))),
			`[16,256,"subscribe",{"topic":"room","state":"away"}]`),
		v("publish", "page", v2.AppendRequest(nil, 65535, "publish", params("topic", "room", "data", content(network.Bytes, "\x00\x01\xff"))),
			`[16,65535,"publish",{"topic":"room","data":{"$bytes":"AAH/"}}]`),
		v("members", "page", v2.AppendRequest(nil, 3, "members", params("topic", "room")), `[16,3,"members",{"topic":"room"}]`),
		v("addPeers", "page", v2.AppendRequest(nil, 4, "addPeers", params("peers", []string{bob}, "addresses", []string{"/ip4/192.0.2.1/tcp/4001"})),
			`[16,4,"addPeers",{"peers":["%s"],"addresses":["/ip4/192.0.2.1/tcp/4001"]}]`, bob),
		v("path", "page", v2.AppendRequest(nil, 5, "path", params("peer", bob)), `[16,5,"path",{"peer":"%s"}]`, bob),
		v("status", "page", v2.AppendRequest(nil, 6, "status", params()), `[16,6,"status",{}]`),
		v("result, null", "node", v2.AppendResultNull(nil, 1), `[17,1,null]`),
		v("result, level", "node", v2.AppendResultLevel(nil, 1000000, network.Handled), `[17,1000000,2]`),
		v("result, a reply", "node", appendResultContent(nil, 9, content(network.JSON, `{"n":12345678901234567890}`)),
			`[17,9,{"$json":"{\"n\":12345678901234567890}"}]`),
		v("result, members", "node", v2.AppendResult(nil, 3, v2.AppendMembers(nil, []v2.MemberText{{Peer: ann, State: item("away").Data}, {Peer: bob}})),
			`[17,3,{"members":[{"peer":"%s","state":"away"},{"peer":"%s","state":null}]}]`, ann, bob),
		v("error", "node", v2.AppendError(nil, 1, &identity.Error{Code: identity.CodeNotStarted, Text: "protocol not started: chat"}),
			`[18,1,"not-started","protocol not started: chat"]`),
		v("error, with a hint", "node", v2.AppendError(nil, 1, &identity.Error{Code: identity.CodeQueueFull, Text: "send queue full", RetryAfter: 250 * time.Millisecond}),
			`[18,1,"queue-full","send queue full",250]`),
		v("cancel", "page", v2.AppendCount(nil, v2.KindCancel, 9007199254740991), `[19,9007199254740991]`),
		v("send", "page", v2.AppendSend(nil, 2, pairOf, item("hi"), network.Handled, false), `[20,2,"%s","chat","hi",2,0]`, bob),
		v("send, bytes, wants a reply", "page", v2.AppendSend(nil, 3, pairOf, content(network.Bytes, "abc"), network.Delivered, true),
			`[20,3,"%s","chat",{"$bytes":"YWJj"},1,1]`, bob),
		v("send, 300 characters", "page", v2.AppendSend(nil, 4, pairOf, item(big), network.Queued, false), `[20,4,"%s","chat","%s",0,0]`, bob, big),
		v("message", "node", appendMessage(nil, 1, fromAnn, item([]any{1, "x", nil, true, 1.5, -1}), false),
			`[24,1,"%s","chat",[1,"x",null,true,1.5,-1],0]`, ann),
		v("message, from a page of v1", "node", appendMessage(nil, 2, fromAnn, content(network.JSON, `{"b":1,"a":2}`), false),
			`[24,2,"%s","chat",{"$json":"{\"b\":1,\"a\":2}"},0]`, ann),
		v("message, wants a reply", "node", appendMessage(nil, 3, fromAnn, content(network.Bytes, ""), true),
			`[24,3,"%s","chat",{"$bytes":""},1]`, ann),
		v("handled", "page", v2.AppendCount(nil, v2.KindHandled, 1), `[25,1]`),
		v("reply", "page", v2.AppendReply(nil, 3, item("yes")), `[26,3,"yes"]`),
		v("refuse", "page", v2.AppendRefuse(nil, 2, "refused", "not now"), `[27,2,"refused","not now"]`),
		v("publication", "node", appendPublication(nil, "room", ann, content(network.JSON, `"hi"`)), `[28,"room","%s",{"$json":"\"hi\""}]`, ann),
		v("presence, joined", "node", v2.AppendPresence(nil, "room", ann, true, item("here").Data), `[29,"room","%s",true,"here"]`, ann),
		v("presence, left", "node", v2.AppendPresence(nil, "room", ann, false, nil), `[29,"room","%s",false,null]`, ann),
		v("lost", "node", v2.AppendLost(nil, "room", 12), `[30,"room",12]`),
		v("join", "page", v2.AppendRequest(nil, 7, "join", params("space", "chat")), `[16,7,"join",{"space":"chat"}]`),
		v("leave", "page", v2.AppendRequest(nil, 8, "leave", params("space", "chat")), `[16,8,"leave",{"space":"chat"}]`),
		v("open", "page", v2.AppendRequest(nil, 9, "open", params("space", "chat", "peer", bob, "protocol", "files/1", "channel", 1, "window", 262144)),
			`[16,9,"open",{"space":"chat","peer":"%s","protocol":"files/1","channel":1,"window":262144}]`, bob),
		v("open, through a relay", "page", v2.AppendRequest(nil, 10, "open", params("space", "chat", "peer", bob, "protocol", "files/1", "channel", 3, "window", 131072, "via", ann)),
			`[16,10,"open",{"space":"chat","peer":"%s","protocol":"files/1","channel":3,"window":131072,"via":"%s"}]`, bob, ann),
		v("open, through none", "page", v2.AppendRequest(nil, 11, "open", params("space", "chat", "peer", bob, "protocol", "files/1", "channel", 5, "window", 131072, "directOnly", true)),
			`[16,11,"open",{"space":"chat","peer":"%s","protocol":"files/1","channel":5,"window":131072,"directOnly":true}]`, bob),
		v("listen", "page", v2.AppendRequest(nil, 12, "listen", params("space", "chat", "protocol", "files/1", "window", 262144)),
			`[16,12,"listen",{"space":"chat","protocol":"files/1","window":262144}]`),
		v("unlisten", "page", v2.AppendRequest(nil, 13, "unlisten", params("space", "chat", "protocol", "files/1")), `[16,13,"unlisten",{"space":"chat","protocol":"files/1"}]`),
		v("info", "page", v2.AppendRequest(nil, 14, "info", params("channel", 1)), `[16,14,"info",{"channel":1}]`),
		v("result, a channel", "node", v2.AppendResult(nil, 9, v2.AppendOpened(nil, 262144, direct)),
			`[17,9,{"window":262144,"info":{"remote":"%s","verified":true,"path":"direct","relay":"","rtt":1.5}}]`, bob),
		v("incoming", "node", v2.AppendIncoming(nil, 2, "chat", "files/1", 65536, relayed),
			`[32,2,"chat","files/1",65536,{"remote":"%s","verified":true,"path":"relay","relay":"%s","rtt":0}]`, bob, ann),
		v("content", "both", v2.AppendChannelContent(nil, 1, []byte("abc")), `[21,1,{"$bytes":"YWJj"}]`),
		v("content, empty", "both", v2.AppendChannelContent(nil, 65536, nil), `[21,65536,{"$bytes":""}]`),
		v("credit", "both", v2.AppendCredit(nil, 1, 131072), `[22,1,131072]`),
		v("end, in order", "both", v2.AppendEnd(nil, 1, "", "", false), `[23,1,"",""]`),
		v("end, with an error", "both", v2.AppendEnd(nil, 2, "lost", "the connection broke", false), `[23,2,"lost","the connection broke"]`),
		v("end, contents are still to come", "node", v2.AppendEnd(nil, 2, "", "", true), `[23,2,"","",1]`),
		v("event", "node", v2.AppendEvent(nil, "path", params("peer", bob, "path", "direct")), `[31,"path",{"peer":"%s","path":"direct"}]`, bob),
	}
	for _, code := range identity.Codes() {
		list = append(list, v("error, "+string(code), "node", v2.AppendError(nil, 5, &identity.Error{Code: code, Text: "because"}), `[18,5,"%s","because"]`, code))
	}
	return list
}

// TestVectors_HaveEveryKind: each kind of client/PROTOCOL.md is among the vectors.
func TestVectors_HaveEveryKind(t *testing.T) {
	text, err := os.ReadFile("../../client/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[v2.Kind]bool{}
	for _, v := range load(t).Frames {
		f, rest, err := v2.Next(unhex(t, v.Hex))
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s: %v", v.Name, err)
		}
		there[f.Kind] = true
	}
	kinds := 0
	for _, row := range regexp.MustCompile(`(?m)^\| ((?:\d+ \w+(?:, )?)+) \| (?:page|node|both) \|`).FindAllSubmatch(text, -1) {
		for one := range strings.SplitSeq(string(row[1]), ", ") {
			var kind v2.Kind
			if _, err := fmt.Sscan(one, &kind); err != nil {
				t.Fatal(one, err)
			}
			kinds++
			if !there[kind] {
				t.Errorf("no vector is a %s", one)
			}
		}
	}
	if kinds != len(there) {
		t.Errorf("the protocol has %d kinds, the vectors %d", kinds, len(there))
	}
}

func dataVectors() []vector {
	v := func(name, hex, value string) vector {
		return vector{Name: name, Hex: hex, Value: json.RawMessage(value)}
	}
	deep := strings.Repeat("81", v2.MaxNesting)
	return []vector{
		v("null", "f6", `null`), v("false", "f4", `false`), v("true", "f5", `true`),
		v("0", "00", `0`), v("23", "17", `23`), v("24", "1818", `24`), v("255", "18ff", `255`), v("256", "190100", `256`),
		v("65536", "1a00010000", `65536`), v("2^53-1", "1b001fffffffffffff", `9007199254740991`),
		v("-1", "20", `-1`), v("-(2^53-1)", "3b001ffffffffffffe", `-9007199254740991`),
		v("1.5", "fb3ff8000000000000", `1.5`), v("0.1", "fb3fb999999999999a", `0.1`), v("1e300", "fb7e37e43c8800759c", `1e300`),
		v("a half float", "f93e00", `1.5`), v("a single float", "fa3fc00000", `1.5`),
		v("a long head of a small number", "190005", `5`),
		v("empty text", "60", `""`), v("text", "6368c3a4", `"hä"`),
		v("text beyond 16 bits", "64f09f9880", `"😀"`),
		v("empty bytes", "40", `{"$bytes":""}`), v("bytes", "43000102", `{"$bytes":"AAEC"}`),
		v("bytes inside", "a1616142ffff", `{"a":{"$bytes":"//8="}}`),
		v("empty array", "80", `[]`), v("empty map", "a0", `{}`),
		v("keys in their order", "a2616201616102", `{"b":1,"a":2}`),
		v("__proto__ is a key like others", "a1695f5f70726f746f5f5f01", `{"__proto__":1}`),
		v("embedded JSON", "d901064a7b2261223a5b315d7d20", `{"$json":"{\"a\":[1]} "}`),
		v("embedded JSON inside", "81d90106423132", `[{"$json":"12"}]`),
		v("64 levels", deep+"01", strings.Repeat("[", v2.MaxNesting)+"1"+strings.Repeat("]", v2.MaxNesting)),
	}
}

func badVectors() (data, frames []vector) {
	v := func(name, hex string) vector { return vector{Name: name, Hex: hex} }
	data = []vector{
		v("65 levels", strings.Repeat("81", v2.MaxNesting+1)+"01"),
		v("a key twice", "a2616101616102"),
		v("a key that isn't text", "a10102"),
		v("text that isn't UTF-8", "61ff"),
		v("a key that isn't UTF-8", "a161ff01"),
		v("undefined", "f7"), v("another simple value", "e0"), v("NaN", "fb7ff8000000000000"), v("NaN as a half", "f97e00"),
		v("infinity", "f97c00"), v("-infinity", "faff800000"),
		v("a tag", "c11a514b67b0"), v("a big number", "c249010000000000000000"),
		v("tag 262 around text", "d90106613a"), v("tag 262 around no JSON", "d9010642ff00"), v("tag 262 twice", "d90106d90106423132"),
	}
	frames = []vector{
		v("nothing but a break", "ff"), v("a map", "a10102"), v("an empty array", "80"), v("a kind that isn't a number", "816161"),
		v("a negative kind", "8120"), v("an indefinite array", "9f0001ff"), v("an indefinite text inside", "8310017f6161ff"),
		v("shorter than its array", "8210"), v("text longer than the message", "8310017a7fffffff"), v("bytes of 2^63", "8310015b8000000000000000"),
		v("an array of 2^64-1", "9bffffffffffffffff"), v("an array of 2^63 inside", "8310019b8000000000000000"),
		v("a reserved head", "82101c"), v("a request without an id", "8310616101"), v("handled with text", "8218196161"),
		v("an id above 2^53-1", "8218191b0020000000000000"),
		v("content of text", "8315016161"), v("credit of bytes", "83160140"), v("an end without a text", "83170160"),
	}
	return data, frames
}

func allVectors() vectors {
	bad, badFrames := badVectors()
	return vectors{
		About: "Frames and data of client/PROTOCOL.md. value: JSON, {\"$bytes\":base64} for a byte string, {\"$json\":text} for tag 262. " +
			"badData: answered with malformed. badFrames: close 1002. Made by gateway/v2 (go test ./gateway/v2 -update).",
		Frames: frameVectors(), Data: dataVectors(), BadData: bad, BadFrames: badFrames,
	}
}

// lines writes the vectors one a line, so that a change shows as one.
func (all vectors) lines(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	marshal := func(v any) string {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(b.String())
	}
	fmt.Fprintf(&out, "{\n\"about\": %s", marshal(all.About))
	for _, part := range []struct {
		name string
		list []vector
	}{{"frames", all.Frames}, {"data", all.Data}, {"badData", all.BadData}, {"badFrames", all.BadFrames}} {
		fmt.Fprintf(&out, ",\n%q: [", part.name)
		for i, v := range part.list {
			out.WriteString([]string{",\n ", "\n "}[min(1, max(0, 1-i))] + marshal(v))
		}
		out.WriteString("\n]")
	}
	out.WriteString("\n}\n")
	return out.Bytes()
}

func TestVectors_AreUpToDate(t *testing.T) {
	want := allVectors().lines(t)
	if *update {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("client/testdata/frames.json is not what the codec makes; run go test ./gateway/v2 -update")
	}
}

func load(t *testing.T) vectors {
	t.Helper()
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return raw
}

// TestVectors_MeanWhatAGeneralLibraryReads holds the hand-written encoders to
// fxamacker/cbor.
func TestVectors_MeanWhatAGeneralLibraryReads(t *testing.T) {
	all := load(t)
	for _, v := range append(all.Frames, all.Data...) {
		t.Run(v.Name, func(t *testing.T) {
			var got, want any
			if err := general.Unmarshal(unhex(t, v.Hex), &got); err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(v.Value))
			dec.UseNumber()
			if err := dec.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if g, w := plain(t, got), plain(t, want); !reflect.DeepEqual(g, w) {
				t.Fatalf("reads as %#v, want %#v", g, w)
			}
		})
	}
}

// plain brings what cbor and what JSON read to one form.
func plain(t *testing.T, v any) any {
	t.Helper()
	switch v := v.(type) {
	case map[any]any:
		m := map[string]any{}
		for k, e := range v {
			m[k.(string)] = plain(t, e)
		}
		return m
	case map[string]any:
		if s, ok := v["$bytes"].(string); ok {
			raw, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(raw) + " as bytes"
		}
		if s, ok := v["$json"].(string); ok {
			return s + " as JSON"
		}
		m := map[string]any{}
		for k, e := range v {
			m[k] = plain(t, e)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = plain(t, e)
		}
		return list
	case []byte:
		return string(v) + " as bytes"
	case cbor.Tag:
		return string(v.Content.([]byte)) + " as JSON"
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			t.Fatal(err)
		}
		return f
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	}
	return v
}

func TestVectors_FramesAreCutWhole(t *testing.T) {
	for _, v := range load(t).Frames {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			f, rest, err := v2.Next(append(raw, 0x82, 0x03, 0x01))
			if err != nil || len(rest) != 3 {
				t.Fatalf("%v, %d bytes behind", err, len(rest))
			}
			if !strings.HasPrefix(string(v.Value), fmt.Sprintf("[%d,", f.Kind)) {
				t.Fatalf("kind %d of %s", f.Kind, v.Value)
			}
			for i := range raw {
				if _, _, err := v2.Next(raw[:i]); err == nil {
					t.Fatalf("the first %d of %d bytes are a frame too", i, len(raw))
				}
			}
		})
	}
}

func TestVectors_Data(t *testing.T) {
	for _, v := range load(t).Data {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			c, err := v2.ParseData(raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := v2.CheckContent(c); err != nil {
				t.Fatal(err)
			}
			if again := v2.AppendContent(nil, c); !bytes.Equal(again, raw) {
				t.Fatalf("handed on as %x", again)
			}
		})
	}
}

func TestVectors_BadData(t *testing.T) {
	for _, v := range load(t).BadData {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			if c, err := v2.ParseData(raw); identity.CodeOf(err) != identity.CodeMalformed {
				t.Fatalf("reads as %v, %v", c, err)
			}
			// It must not hurt the frames around it.
			f, rest, err := v2.Next(append(v2.AppendSend(nil, 7, v2.AppendPair(nil, bob, "p"), network.Content{Type: network.CBOR, Data: raw}, 2, false), 0x80))
			if err != nil || len(rest) != 1 {
				t.Fatalf("frame: %v", err)
			}
			if s, err := f.Send(); s.ID != 7 || identity.CodeOf(err) != identity.CodeMalformed {
				t.Fatalf("send: id %d, %v", s.ID, err)
			}
		})
	}
}

func TestVectors_BadFrames(t *testing.T) {
	for _, v := range load(t).BadFrames {
		t.Run(v.Name, func(t *testing.T) {
			f, _, err := v2.Next(unhex(t, v.Hex))
			switch {
			case err != nil:
				return
			case f.Kind == v2.KindRequest:
				_, err = f.Request()
			case f.Kind == v2.KindHandled:
				_, err = f.Count()
			case f.Kind == v2.KindContent:
				_, _, err = f.ChannelContent()
			case f.Kind == v2.KindCredit:
				_, _, err = f.Credit()
			case f.Kind == v2.KindEnd:
				_, err = f.End()
			}
			if !errors.Is(err, v2.ErrFrame) {
				t.Fatalf("frame %d: %v", f.Kind, err)
			}
		})
	}
}

func TestAppendFloat(t *testing.T) {
	for _, f := range []float64{0, math.Copysign(0, -1), 1, -1, 1.5, -1e300, 1 << 53, math.MaxFloat64, 4503599627370497.5} {
		var got float64
		if err := cbor.Unmarshal(v2.AppendFloat(nil, f), &got); err != nil || got != f {
			t.Errorf("%v reads as %v, %v", f, got, err)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := v2.AppendFloat(nil, f); !bytes.Equal(got, []byte{0xf6}) {
			t.Errorf("%v is % x", f, got)
		}
	}
}
