package gateway_test

import (
	"testing"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

func TestV2_MessageThereAndHandled(t *testing.T) {
	s := gatewaytest.Start(t)
	a, b := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
	b.Call("start", map[string]any{"protocol": "chat"})
	id := a.Send(b.Welcome.Peer, "chat", map[string]any{"hi": []any{uint64(1), "x"}}, network.Handled, false)
	m := b.Want(v2.KindMessage)
	if m[0] != uint64(1) || m[1] != a.Welcome.Peer || m[2] != "chat" || m[4] != uint64(0) {
		t.Fatalf("message %v", m)
	}
	b.Write(v2.AppendCount(nil, v2.KindHandled, 1))
	if r := a.Want(v2.KindResult); r[0] != id || r[1] != uint64(network.Handled) {
		t.Fatalf("result %v", r)
	}
}

func TestV2_TopicsAndPresence(t *testing.T) {
	s := gatewaytest.Start(t)
	a, b := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
	a.Call("subscribe", map[string]any{"topic": "room", "state": map[string]any{"name": "ann"}})
	got := b.Call("subscribe", map[string]any{"topic": "room"}).(map[any]any)["members"].([]any)
	if len(got) != 1 || got[0].(map[any]any)["peer"] != a.Welcome.Peer {
		t.Fatalf("members %v", got)
	}
	if p := a.Want(v2.KindPresence); p[0] != "room" || p[1] != b.Welcome.Peer || p[2] != true || p[3] != nil {
		t.Fatalf("presence %v", p)
	}
	b.Call("publish", map[string]any{"topic": "room", "data": "hello"})
	if p := a.Want(v2.KindPublication); p[0] != "room" || p[1] != b.Welcome.Peer || p[2] != "hello" {
		t.Fatalf("publication %v", p)
	}
	b.Call("unsubscribe", map[string]any{"topic": "room"})
	if p := a.Want(v2.KindPresence); p[2] != false {
		t.Fatalf("presence %v", p)
	}
}
