package parley

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// v2World is a whole node with two pages of v2, and what goes over their sockets.
type v2World struct {
	node       *Node
	s          *gatewaytest.Server
	ann, bob   *gatewaytest.Page2
	seen       *gatewaytest.Seen
	nextNumber uint64 // of the channels that ann opens
}

const absentPeer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

func newV2World(t *testing.T, settings ...func(*Config)) *v2World {
	w := &v2World{seen: gatewaytest.NewSeen(), nextNumber: 1}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	cfg := loopbackConfig(t)
	for _, set := range settings {
		set(&cfg)
	}
	w.node = runNode(t, cfg)
	w.s = serverOf(t, w.node)
	w.s.Seen = w.seen
	w.ann, w.bob = w.join(t), w.join(t)
	return w
}

func (w *v2World) join(t *testing.T) *gatewaytest.Page2 {
	t.Helper()
	return gatewaytest.Join2(t, w.s, v2.HelloFrame{Keyless: true})
}

// want reads up to the next frame of a kind, and confirms what came: the node
// keeps little here.
func want(p *gatewaytest.Page2, t *testing.T, kind v2.Kind) []any {
	t.Helper()
	for {
		f := p.Next()
		p.Write(v2.AppendCount(nil, v2.KindReceived, p.Got))
		if f.Kind == kind {
			return gatewaytest.Elements(t, f)
		}
	}
}

// failed sends a message that fails, and gives the error's code.
func (w *v2World) failed(t *testing.T, to, protocol string, data any) identity.Code {
	t.Helper()
	id := w.ann.Send(to, protocol, data, network.Handled, false)
	return errorOf(t, w.ann, id)
}

// errorOf reads up to the error of a request.
func errorOf(t *testing.T, p *gatewaytest.Page2, id uint64) identity.Code {
	t.Helper()
	for {
		if e := want(p, t, v2.KindError); e[0] == id {
			return identity.Code(e[1].(string))
		}
	}
}

// channel opens one from ann to bob, and gives its numbers at both.
func (w *v2World) channel(t *testing.T) (ann, bob uint64) {
	t.Helper()
	ann = w.nextNumber
	w.nextNumber += 2
	w.ann.Open("s", w.bob.Welcome.Peer, "files/1", ann)
	return ann, want(w.bob, t, v2.KindIncoming)[0].(uint64)
}

// v2Kinds makes every frame go over a socket that v2Codes does not.
func (w *v2World) kinds(t *testing.T) {
	ann, bob := w.ann, w.bob
	bob.Call("start", map[string]any{"protocol": "chat"})
	for _, settle := range []func(n uint64) []byte{
		func(n uint64) []byte { return v2.AppendCount(nil, v2.KindHandled, n) },
		func(n uint64) []byte {
			return v2.AppendReply(nil, n, network.Content{Type: network.Bytes, Data: []byte("yes")})
		},
	} {
		id := ann.Send(bob.Welcome.Peer, "chat", "hi", network.Handled, true)
		m := want(bob, t, v2.KindMessage)
		bob.Write(settle(m[0].(uint64)))
		if r := want(ann, t, v2.KindResult); r[0] != id {
			t.Errorf("result %v of send %d", r, id)
		}
	}
	ann.Call("subscribe", map[string]any{"topic": "room", "state": "A"})
	bob.Call("subscribe", map[string]any{"topic": "room"})
	want(ann, t, v2.KindPresence)
	bob.Call("publish", map[string]any{"topic": "room", "data": 1})
	want(ann, t, v2.KindPublication)

	out, in := w.channel(t)
	ann.Content(out, []byte("content"))
	want(bob, t, v2.KindContent)
	bob.Credit(in, 32)
	for range 5 { // half of the window
		ann.Content(out, make([]byte, 32<<10))
	}
	want(ann, t, v2.KindCredit)
	ann.End(out, "", "")
	want(bob, t, v2.KindEnd)
	want(ann, t, v2.KindEnd) // both are told

	ann.Write(v2.AppendCount(nil, v2.KindPing, 7))
	if pong := want(ann, t, v2.KindPong); pong[0] != uint64(7) {
		t.Errorf("pong %v", pong)
	}
	ann.Write(v2.AppendCount(nil, v2.KindPong, 7)) // nobody asked: ignored
	ann.Write(v2.AppendCount(nil, v2.KindReceived, ann.Got))
	leaver := w.join(t)
	leaver.Write(v2.AppendBye(nil, &identity.Error{Code: identity.CodeClosed}))
	if code, _ := leaver.Closed(); code != 1000 {
		t.Errorf("after a bye: closed with %d", code)
	}
	w.loses(t)
	w.findsPaths(t)
}

// loses has a page that reads nothing lose publications, and told so.
func (w *v2World) loses(t *testing.T) {
	slow := w.join(t)
	slow.Call("subscribe", map[string]any{"topic": "flood"})
	for w.node.gateway.Stats().PublicationsLost == 0 {
		w.ann.Call("publish", map[string]any{"topic": "flood", "data": make([]byte, 100<<10)})
	}
	want(slow, t, v2.KindLost)
}

// findsPaths sends to a page of another node, which is news of a path.
func (w *v2World) findsPaths(t *testing.T) {
	far := gatewaytest.Join2(t, serverOf(t, runNode(t, loopbackConfig(t))), v2.HelloFrame{})
	far.Call("start", map[string]any{"protocol": "chat"})
	w.ann.Send(far.Welcome.Peer, "chat", "hi", network.Delivered, false)
	for {
		e := want(w.ann, t, v2.KindEvent)
		if e[0] != "path" {
			t.Errorf("event %v", e)
		}
		if e[1].(map[any]any)["peer"] == far.Welcome.Peer { // others may be news too
			return
		}
	}
}

// v2Codes makes each code come that a node tells pages of v2.
func (w *v2World) codes() map[identity.Code]func(t *testing.T) identity.Code {
	fails := func(method string, pairs ...any) func(t *testing.T) identity.Code {
		return func(*testing.T) identity.Code {
			params := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				params[pairs[i].(string)] = pairs[i+1]
			}
			code, _ := w.ann.Fail(method, params)
			return code
		}
	}
	open := func(to, space, protocol string) func(t *testing.T) identity.Code {
		return fails("open", "space", space, "peer", to, "protocol", protocol, "channel", uint64(1001), "window", 256<<10)
	}
	bob := w.bob.Welcome.Peer
	return map[identity.Code]func(t *testing.T) identity.Code{
		identity.CodeMalformed:      fails("start"),
		identity.CodeUnknownMethod:  fails("fly"),
		identity.CodeReserved:       fails("start", "protocol", "/parley/x"),
		identity.CodeAlreadyStarted: fails("join", "space", "s"),
		identity.CodeNotFound:       fails("info", "channel", uint64(99)),
		identity.CodeNotJoined:      fails("leave", "space", "nowhere"),
		identity.CodeTooLarge:       fails("publish", "topic", "x", "data", make([]byte, 1<<20+1)),
		identity.CodeBadToID:        open(absentPeer, "s", "files/1"),
		identity.CodeBadSpaceHash:   open(bob, "s", "files/2"),
		identity.CodeUnsupported: func(t *testing.T) identity.Code {
			p := gatewaytest.Open2(t, w.s)
			p.Write(v2.AppendHello(nil, v2.HelloFrame{Version: 3}))
			return identity.Code(p.Want(v2.KindBye)[0].(string))
		},
		identity.CodeRefused: func(t *testing.T) identity.Code {
			id := w.ann.Send(bob, "chat", 1, network.Handled, false)
			w.bob.Write(v2.AppendRefuse(nil, want(w.bob, t, v2.KindMessage)[0].(uint64), "refused", "not now"))
			return errorOf(t, w.ann, id)
		},
		identity.CodeCancelled: func(t *testing.T) identity.Code {
			id := w.ann.Send(absentPeer, "chat", 1, network.Handled, false)
			w.ann.Write(v2.AppendCount(nil, v2.KindCancel, id))
			return errorOf(t, w.ann, id)
		},
		identity.CodeClosed: func(t *testing.T) identity.Code {
			p := w.join(t)
			p.Call("start", map[string]any{"protocol": "chat"})
			id := w.ann.Send(p.Welcome.Peer, "chat", 1, network.Handled, false)
			want(p, t, v2.KindMessage)
			_ = p.WS.Close(1000, "")
			return errorOf(t, w.ann, id)
		},
		identity.CodeLimit: func(t *testing.T) identity.Code {
			for i := range 63 { // and "s"
				w.ann.JoinSpace(fmt.Sprint("s", i))
			}
			return fails("join", "space", "one more")(t)
		},
	}
}

// late are the codes of sends for which the time is over.
func (w *v2World) late(t *testing.T) map[identity.Code]func(t *testing.T) identity.Code {
	bob := w.bob.Welcome.Peer
	w.bob.Call("start", map[string]any{"protocol": "mute"}) // and says nothing
	return map[identity.Code]func(t *testing.T) identity.Code{
		identity.CodeUnreachable: func(t *testing.T) identity.Code { return w.failed(t, absentPeer, "chat", 1) },
		identity.CodeNotStarted:  func(t *testing.T) identity.Code { return w.failed(t, bob, "never", 1) },
		identity.CodeTimeout:     func(t *testing.T) identity.Code { return w.failed(t, bob, "mute", 1) },
	}
}

// TestV2_EveryKindAndCode makes every kind of frame that client/PROTOCOL.md lists,
// and every error code, go over the sockets of a whole node.
func TestV2_EveryKindAndCode(t *testing.T) {
	hasty := newV2World(t, sendTimeout(3*time.Second)) // for what takes its whole time
	w := newV2World(t, func(c *Config) { c.Gateway.SessionBuffer = 128 * KiB })
	hasty.ann.Seen = w.seen
	for _, p := range []*gatewaytest.Page2{w.ann, w.bob} {
		p.JoinSpace("s")
	}
	w.bob.Listen("s", "files/1")
	t.Run("kinds", w.kinds)
	codes := w.codes()
	maps.Copy(codes, hasty.late(t))
	for _, code := range identity.Codes() {
		if make, ok := codes[code]; ok {
			t.Run(string(code), func(t *testing.T) {
				if got := make(t); got != code {
					t.Errorf("came %s", got)
				}
			})
		}
	}
	// What one end of a channel says reaches the other.
	for _, code := range []identity.Code{"unknown", "bad-channel-id", "bad-from-id", "relay-refused", "relay-expired"} {
		t.Run(string(code), func(t *testing.T) {
			out, in := w.channel(t)
			w.bob.End(in, code, "because")
			if e := want(w.ann, t, v2.KindEnd); e[0] != out || e[1] != string(code) || e[2] != "the other end: because" {
				t.Errorf("ended with %v", e)
			}
		})
	}
	w.everyKind(t)
	w.everyCode(t)
}

func (w *v2World) everyKind(t *testing.T) {
	text := readDoc(t, "client/PROTOCOL.md")
	rows := regexp.MustCompile(`(?m)^\| ((?:\d+ \w+(?:, )?)+) \| (page|node|both) \|`).FindAllStringSubmatch(text, -1)
	kinds := 0
	for _, row := range rows {
		for one := range strings.SplitSeq(row[1], ", ") {
			var kind v2.Kind
			if _, err := fmt.Sscan(one, &kind); err != nil {
				t.Fatal(one, err)
			}
			kinds++
			if row[2] != "node" && !w.seen.Sent[kind] {
				t.Errorf("no page has sent a %s", one)
			}
			if row[2] != "page" && !w.seen.Came[kind] && kind != v2.KindPing { // nodes ping with those of the WebSocket
				t.Errorf("the node has sent no %s", one)
			}
		}
	}
	if kinds != 6+17 {
		t.Errorf("the protocol's table has %d kinds", kinds)
	}
}

// elsewhere are the codes that no node tells a page of v2, or that have another
// test, as it says.
var elsewhere = map[identity.Code]string{
	identity.CodeNoPeer:         "a v2 page has its peer from the welcome on; v1's 404",
	identity.CodePeerInUse:      "v2 pages share their peer; TestV1_OneOfTwoEqualKeys",
	identity.CodeQueueFull:      "a v2 send waits for room; TestV1_LimitsOfANode, and the client's own queue",
	identity.CodeUnauthorized:   "401 before the upgrade; TestAbuse04_ProgramWithoutToken, tests/e2e/client.test.ts",
	identity.CodeForbidden:      "403, and pages with a scope; TestAbuse06_NamesOfAnotherApp, tests/e2e/consent.test.ts",
	identity.CodeSessionLost:    "the client's own; client/test/resume.test.ts",
	identity.CodeNetworkBlocked: "the client's own; client/test/connect.test.ts",
	identity.CodeInternal:       "a fault of parley; TestPanic_InJoinIsAnError",
	identity.CodeLost:           "a connection that breaks; tests/e2e/channels.test.ts",
}

func (w *v2World) everyCode(t *testing.T) {
	for _, code := range identity.Codes() {
		if why := elsewhere[code]; w.seen.Codes[code] == (why != "") {
			t.Errorf("%s: came %v, but %q", code, w.seen.Codes[code], why)
		}
	}
	// The tests that it names are there.
	for _, why := range elsewhere {
		for _, name := range regexp.MustCompile(`\bTest\w+|\S+\.test\.ts`).FindAllString(why, -1) {
			if !strings.HasPrefix(name, "Test") {
				if _, err := os.Stat(name); err != nil {
					t.Error(err)
				}
			} else if !slices.ContainsFunc([]string{".", "gateway", "gateway/access"}, func(dir string) bool { return hasTest(t, dir, name) }) {
				t.Errorf("there is no %s", name)
			}
		}
	}
}

// hasTest looks for a test by its name in a folder.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "_test.go") && strings.Contains(readDoc(t, dir+"/"+f.Name()), "func "+name+"(") {
			return true
		}
	}
	return false
}
