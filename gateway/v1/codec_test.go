package v1_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	v1 "github.com/parley-p2p/parley/gateway/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// These are the frames of gateway.md §2.9, ids filled in.
func TestAppend_AsTheReferenceWrites(t *testing.T) {
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"error", v1.AppendError(nil, 0, 404, "peer not found: "), `{"requestid":0,"method":"","error":{"code":404,"message":"peer not found: "},"isresponse":true}`},
		{"peer", v1.AppendResult(nil, 1, v1.PeerResult("12D3", "CAES+/s=")), `{"requestid":1,"method":"","result":{"peerid":"12D3","peerkey":"CAES+/s=","version":"1.0.0"},"isresponse":true}`},
		{"void", v1.AppendResult(nil, 2, nil), `{"requestid":2,"method":"","result":null,"isresponse":true}`},
		{"ack", v1.AppendAck(nil, 0, 0), `{"requestid":0,"method":"ack","params":{"ack":0},"isresponse":false}`},
		{"peerData", v1.AppendPeerData(nil, 2, "12D3", "/t/1", []byte(`{"hello":1}`)), `{"requestid":2,"method":"peerData","params":{"peer":"12D3","protocol":"/t/1","data":{"hello":1}},"isresponse":false}`},
		{"peerChange", v1.AppendPeerChange(nil, 14, "room", "12D3", true), `{"requestid":14,"method":"peerChange","params":{"topic":"room","peerid":"12D3","joined":true},"isresponse":false}`},
		{"topicData", v1.AppendTopicData(nil, 17, "room", "12D3", []byte(`{"text":"hi"}`)), `{"requestid":17,"method":"topicData","params":{"topic":"room","peerid":"12D3","data":{"text":"hi"}},"isresponse":false}`},
		{"peers", v1.AppendResult(nil, 15, v1.PeersResult([]string{"12D3", "12D4"})), `{"requestid":15,"method":"","result":{"peers":["12D3","12D4"]},"isresponse":true}`},
		{"no peers", v1.PeersResult(nil), `{"peers":[]}`},
		{"peerFiles", v1.AppendNoFiles(nil, 20, "12D3"), `{"requestid":20,"method":"peerFiles","params":{"peerid":"12D3","cid":"","entries":{}},"isresponse":false}`},
		{"gotFile", v1.AppendNoFile(nil, 23, "Qm", "context deadline exceeded"), `{"requestid":23,"method":"gotFile","params":{"cid":"Qm","success":false,"content":{"error":"context deadline exceeded"}},"isresponse":false}`},
	}
	for _, tt := range tests {
		if string(tt.got) != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, tt.got, tt.want)
		}
	}
}

// TestStrings_AreWrittenAsEncodingJSONDoes also holds what goes into a page: no
// text from the network can end the string it stands in (G-S10).
func TestG_S10_StringsAreWrittenAsEncodingJSONDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("ab\"\\<>&\u2028\u2029\x00\n\x7fü😀")))).Draw(t, "s")
		if rapid.Bool().Draw(t, "broken") {
			s += "\xff"
		}
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := v1.AppendPeerChange(nil, 0, s, "", false); !strings.Contains(string(got), `"topic":`+string(want)+`,`) {
			t.Fatalf("%q is written %s, want %s", s, got, want)
		}
	})
}

func TestDecode(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":[`, n/2) + strings.Repeat(`]}`, n/2) }
	tests := []struct {
		name, frame string
		want        v1.Request
		err         error
	}{
		{"plain", `{"requestid":3,"method":"m","params":{"a":1},"isresponse":false}`, v1.Request{ID: 3, Method: "m", Params: json.RawMessage(`{"a":1}`)}, nil},
		{"any case", `{"REQUESTID":3,"Method":"m","pArams":{}}`, v1.Request{ID: 3, Method: "m", Params: json.RawMessage(`{}`)}, nil},
		{"null params", `{"params":null}`, v1.Request{}, nil},
		{"space around", " \n{} \t", v1.Request{}, nil},
		{"twice: the last counts", `{"method":"a","method":"b"}`, v1.Request{Method: "b"}, nil},
		{"smallest id", `{"requestid":-9223372036854775808}`, v1.Request{ID: -1 << 63}, nil},
		{"512 levels", `{"method":"m","params":` + deep(510) + `}`, v1.Request{Method: "m", Params: json.RawMessage(deep(510))}, nil},
		{"nested too deep", `{"requestid":7,"params":` + deep(512) + `,"method":"m"}`, v1.Request{ID: 7, Method: "m"}, v1.ErrParams},
		{"brackets in a string", `{"method":"` + strings.Repeat("[{", 600) + `\"` + `"}`, v1.Request{Method: strings.Repeat("[{", 600) + `"`}, nil},
		{"nothing", ``, v1.Request{}, v1.ErrMalformed},
		{"an array", `[{}]`, v1.Request{}, v1.ErrMalformed},
		{"null", `null`, v1.Request{}, v1.ErrMalformed},
		{"a fraction", `{"requestid":1.0}`, v1.Request{}, v1.ErrMalformed},
		{"an exponent", `{"requestid":1e3}`, v1.Request{}, v1.ErrMalformed},
		{"too large", `{"requestid":9223372036854775808}`, v1.Request{}, v1.ErrMalformed},
		{"text", `{"requestid":"1"}`, v1.Request{}, v1.ErrMalformed},
		{"a method that isn't text", `{"method":null,"isresponse":0}`, v1.Request{}, v1.ErrMalformed},
		{"two", `{}{}`, v1.Request{}, v1.ErrMalformed},
		{"cut off", `{"requestid":1`, v1.Request{}, v1.ErrMalformed},
		{"not UTF-8", "{\"method\":\"\xff\"}", v1.Request{}, v1.ErrMalformed},
		{"nested too deep and never closed", strings.Repeat(`{"a":`, 1000), v1.Request{}, v1.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := v1.Decode([]byte(tt.frame))
			if !errors.Is(err, tt.err) || got.ID != tt.want.ID || got.Method != tt.want.Method {
				t.Fatalf("%+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
			if tt.err == nil && string(got.Params) != string(tt.want.Params) {
				t.Fatalf("params %s, want %s", got.Params, tt.want.Params)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"requestid":1,"method":"send","params":{"peer":"p","protocol":"x","data":{"b":1},"ack":0},"isresponse":false}`,
		strings.Repeat(`{"params":[`, 300), `{"params":{"peerIds":["a"]}}`, `{"Params":{"TOPIC":"x"},"requestid":-1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		q, err := v1.Decode(frame)
		if err != nil {
			return
		}
		if !json.Valid(frame) {
			t.Fatalf("%q isn't JSON, but a request", frame)
		}
		_, _, _ = q.Peer()
		_, _ = q.Protocol()
		_, _ = q.Topic()
		_, _ = q.PeerIDs()
		_, _ = q.PeerID()
		_, _, _ = q.CID()
		if m, err := q.Send(); err == nil {
			out := v1.AppendPeerData(nil, 0, m.Peer, m.Protocol, m.Data)
			if !json.Valid(out) {
				t.Fatalf("%q makes the frame %q", frame, out)
			}
		}
		if topic, data, err := q.Publish(); err == nil && !json.Valid(v1.AppendTopicData(nil, 0, topic, "p", data)) {
			t.Fatalf("%q makes a frame that isn't JSON", frame)
		}
	})
}
