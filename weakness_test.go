package parley

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Requirements of gateway.md §12 that only a whole node can show.

// stranger is the id of a peer that is nowhere.
func stranger(t *testing.T) string {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PeerID().String()
}

// TestG_R7_NothingWaitsBehindTheNetwork: while sends wait for a peer that can't be
// reached, and would for an hour, everything else of the page is answered, in v1
// and in v2.
func TestG_R7_NothingWaitsBehindTheNetwork(t *testing.T) {
	s := v1Server(t, sendTimeout(time.Hour))
	nowhere := stranger(t)
	old, now := gatewaytest.Join1(t, s), gatewaytest.Join2(t, s, v2.HelloFrame{})
	for i := range 100 {
		old.Request("send", fmt.Sprintf(`{"peer":%q,"protocol":"/x","data":%d,"ack":%d}`, nowhere, i, i))
		now.Send(nowhere, "/x", i, network.Handled, false)
	}
	old.Request("listfiles", fmt.Sprintf(`{"peerid":%q}`, nowhere))
	for _, c := range []struct{ method, v1 string }{
		{"subscribe", `{"topic":"room"}`}, {"listpeers", `{"topic":"room"}`}, {"publish", `{"topic":"room","data":1}`},
		{"unsubscribe", `{"topic":"room"}`}, {"start", `{"protocol":"/y"}`}, {"stop", `{"protocol":"/y"}`},
		{"addpeers", `{"peerIds":["` + nowhere + `"]}`}, {"removepeers", `{"peerIds":["` + nowhere + `"]}`},
	} {
		old.Call(c.method, c.v1)
	}
	now.Call("subscribe", map[string]any{"topic": "room"})
	now.Call("publish", map[string]any{"topic": "room", "data": 1})
	now.Call("start", map[string]any{"protocol": "/y"})
	now.Send(old.ID, "/z", "to the other", network.Queued, false)
	now.Call("unsubscribe", map[string]any{"topic": "room"})
}

// records is a log that a test reads.
type records struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{} // capacity 1
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.wrote <- struct{}{}:
	default:
	}
	return r.text.Write(p)
}

// list gives what was logged, a map each.
func (r *records) list(t *testing.T) (all []map[string]any) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range bytes.Lines(r.text.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, m)
	}
	return all
}

// until waits for a record with this message, and gives it.
func (r *records) until(t *testing.T, message string) map[string]any {
	t.Helper()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		for _, m := range r.list(t) {
			if m["msg"] == message {
				return m
			}
		}
		select {
		case <-r.wrote:
		case <-late.C:
			t.Fatalf("never logged: %s; but %v", message, r.list(t))
		}
	}
}

// TestG_R13_RecordsSayWhereTheyAreFrom: whatever a node logs has a level and a
// component; what is about a page has its session and peer.
func TestG_R13_RecordsSayWhereTheyAreFrom(t *testing.T) {
	log := &records{wrote: make(chan struct{}, 1)}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	cfg := loopbackConfig(t)
	cfg.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Peer.SendTimeout = Duration(100 * time.Millisecond)
	n, stop := startNode(t, cfg)
	s := serverOf(t, n)
	old, now := gatewaytest.Join1(t, s), gatewaytest.Join2(t, s, v2.HelloFrame{})
	old.Call("send", fmt.Sprintf(`{"peer":%q,"protocol":"/x","data":1,"ack":-1}`, stranger(t)))
	now.Send(stranger(t), "/x", 1, network.Queued, false)
	failed := log.until(t, "a queued message failed")
	if failed["component"] != "peer" || failed["peer"] != old.ID && failed["peer"] != now.Welcome.Peer {
		t.Errorf("logged %v", failed)
	}
	for _, page := range []struct {
		ws *websocket.Conn
		id string
	}{{old.WS, old.ID}, {now.WS, now.Welcome.Peer}} {
		_ = page.ws.Close(websocket.StatusNormalClosure, "")
	}
	ended := log.until(t, "socket ended")
	if ended["component"] != "gateway" || ended["session"] == nil || ended["peer"] == nil {
		t.Errorf("logged %v", ended)
	}
	if w := ask(n, "/", ""); w.Code != 401 {
		t.Errorf("answered %d", w.Code)
	}
	stop()
	parts := make(map[any]bool)
	for _, m := range log.list(t) {
		parts[m["component"]] = true
		if m["component"] == nil || m["level"] == nil || m["msg"] == "" {
			t.Errorf("nobody can tell where this is from: %v", m)
		}
	}
	for _, part := range []string{"gateway", "peer", "node"} {
		if !parts[part] {
			t.Errorf("nothing of %s was logged, only of %v", part, parts)
		}
	}
}

// TestTabsOfBothVersionsShareAKey: a page of v2 shares the peer of its key with
// whoever has it (gateway.md §2.7), a page of v1 doesn't; each gets what it started,
// and the peer lives as long as one of them.
func TestTabsOfBothVersionsShareAKey(t *testing.T) {
	s := v1Server(t)
	old, bob := gatewaytest.Join1(t, s), gatewaytest.Join2(t, s, v2.HelloFrame{})
	now := gatewaytest.Join2(t, s, v2.HelloFrame{Key: old.Key})
	if now.Welcome.Peer != old.ID {
		t.Fatalf("the second tab is %s, want %s", now.Welcome.Peer, old.ID)
	}
	third := gatewaytest.Open1(t, s)
	if e := third.Fail("peer", `{"peerkey":"`+old.Key+`"}`); e.Message != "peer ID already in use (possible duplicate browser tab)" {
		t.Errorf("another tab of v1: %s", e.Message)
	}
	old.Call("start", `{"protocol":"/both"}`)
	now.Call("start", map[string]any{"protocol": "/both"})
	now.Call("start", map[string]any{"protocol": "/now"})
	message := func() string {
		for { // news of paths may come before
			if f := now.Next(); f.Kind == v2.KindMessage {
				m := gatewaytest.Elements(t, f)
				now.Write(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)))
				return fmt.Sprint(m[3])
			}
		}
	}
	bob.Send(old.ID, "/both", "one", network.Handled, false)
	if f := old.Next(); f.Method != "peerData" || !strings.Contains(string(f.Params), `"one"`) {
		t.Errorf("the tab of v1 got %s %s", f.Method, f.Params)
	}
	if got := message(); got != "one" {
		t.Errorf("the tab of v2 got %q", got)
	}
	if err := old.WS.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	bob.Send(old.ID, "/now", "two", network.Handled, false)
	if got := message(); got != "two" {
		t.Errorf("when the other was gone came %q", got)
	}
}
