package proxy

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/parley-p2p/parley/star/socketio/wire"
)

// slowRoute finds the stream of a chunk as the way of every other event does: the
// header, the JSON, the name, the placeholder.
func slowRoute(text []byte) (id string, kind Kind, num int, ok bool) {
	if _, err := wire.ParsePacket(text); err != nil || text[0] != byte(wire.Message) {
		return "", 0, 0, false
	}
	h, err := wire.ParseHeader(text[1:])
	if err != nil || h.Kind != wire.BinaryEvent || h.Attachments != 1 || h.Namespace != "" {
		return "", 0, 0, false
	}
	args, _, err := wire.Array(h.Body, nil, wire.MaxArgs, wire.Limits{Attachments: h.Attachments})
	if err != nil || len(args) < 2 {
		return "", 0, 0, false
	}
	name, err := wire.EventName(args)
	if err != nil {
		return "", 0, 0, false
	}
	verb, id, kind, ok := SplitName(name)
	if !ok || verb != Queue {
		return "", 0, 0, false
	}
	num, ok = wire.Placeholder(args[1])
	return id, kind, num, ok
}

var routeSeeds = []string{
	`451-["socket.io-pull-stream.queue.d.dialer",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue.6e0e9d6c-1b0c-4a3a-8f8b-0c7d9f4e1a11.listener",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue.a\"b.dialer",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue.a\u0041.dialer",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue..dialer",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue.dialer",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue.a.dialer.listener",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.queue.a.dialer",{"num":0,"_placeholder":true}]`,
	`451-["socket.io-pull-stream.queue.a.dialer",{"_placeholder":true,"num":1}]`,
	`451-["socket.io-pull-stream.queue.a.dialer", {"_placeholder":true,"num":0} ]`,
	`451-["socket.io-pull-stream.queue.a.dialer",{"_placeholder":true,"num":0}],{"_placeholder":true,"num":0}]`,
	`451-7["socket.io-pull-stream.queue.a.dialer",{"_placeholder":true,"num":0}]`,
	`451-/,["socket.io-pull-stream.queue.a.dialer",{"_placeholder":true,"num":0}]`,
	`451-["socket.io-pull-stream.accept.a.dialer",{"_placeholder":true,"num":0}]`,
}

// The fast route takes what the slow one takes, to the same stream; what it does
// not take is left to the slow one.
func FuzzRoute(f *testing.F) {
	for _, text := range routeSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		sameRoute(t, text)
		// A name of whatever bytes, in the usual form: mutations of the whole rarely keep it.
		sameRoute(t, fmt.Appendf(nil, `451-["%s%s",{"_placeholder":true,"num":0}]`, Queue, text))
		sameRoute(t, fmt.Appendf(nil, `451-["%s%s.dialer",{"_placeholder":true,"num":0}]`, Queue, text))
	})
}

func sameRoute(t *testing.T, text []byte) {
	t.Helper()
	id, kind, fast := Route(text)
	slowID, slowKind, num, slow := slowRoute(text)
	if fast && (!slow || string(id) != slowID || kind != slowKind || num != 0) {
		t.Errorf("%q: fast %q %v; slow %q %v, attachment %d, %v", text, id, kind, slowID, slowKind, num, slow)
	}
	if slow && !fast && bytes.Equal(text, QueueText(slowID, slowKind)) && !bytes.ContainsRune(text, '\\') {
		t.Errorf("%q is of the usual form, but takes the slow route", text)
	}
}

func TestRoute(t *testing.T) {
	for i, want := range []struct {
		id   string
		kind Kind
		fast bool
	}{{"d", Dialer, true}, {"6e0e9d6c-1b0c-4a3a-8f8b-0c7d9f4e1a11", Listener, true}, {}, {}, {"", Dialer, true}, {}, {"a.dialer", Listener, true}} {
		id, kind, ok := Route([]byte(routeSeeds[i]))
		if string(id) != want.id || kind != want.kind || ok != want.fast {
			t.Errorf("%s: %q %v %v", routeSeeds[i], id, kind, ok)
		}
		sameRoute(t, []byte(routeSeeds[i]))
	}
}

// What may stand for a chunk beside a buffer.
func TestConvert(t *testing.T) {
	for text, want := range map[string]string{`"é"`: "é", `""`: "", `[]`: "", `[ ]`: "", `[0]`: "\x00", `[255, 1,	2]`: "\xff\x01\x02"} {
		if got, ok := convert([]byte(text)); !ok || string(got) != want {
			t.Errorf("%s is %q, %v", text, got, ok)
		}
	}
	for _, text := range []string{`[256]`, `[-1]`, `[1.0]`, `[1e1]`, `["1"]`, `[[1]]`, `[null]`, `[99999999999999999999]`, `{}`, `7`, `null`, `true`} {
		if got, ok := convert([]byte(text)); ok {
			t.Errorf("%s is %q", text, got)
		}
	}
}

func FuzzConvert(f *testing.F) {
	for _, text := range []string{`[1,2]`, `[ 1 , 2 ]`, `"x"`, `[]`, `[[1]]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		end, err := wire.Scan(text, wire.Limits{})
		if err != nil || end == 0 {
			return
		}
		arg := bytes.TrimLeft(text[:end], " \t\r\n")
		if data, ok := convert(arg); ok && len(data) > len(arg)*3 {
			t.Errorf("%q becomes %d bytes", arg, len(data))
		}
	})
}
