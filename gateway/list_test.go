package gateway_test

import (
	"testing"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
)

func TestListShowsSessions(t *testing.T) {
	s := gatewaytest.Start(t)
	a := gatewaytest.Join2(t, s, v2.HelloFrame{})
	gatewaytest.Join2(t, s, v2.HelloFrame{})
	a.Call("start", map[string]any{"protocol": "chat"})
	a.Call("subscribe", map[string]any{"topic": "room"})
	if n := len(s.Gateway.List(1)); n != 1 {
		t.Errorf("%d sessions, asked for one", n)
	}
	list := s.Gateway.List(10)
	if len(list) != 2 || list[0].Number == list[1].Number {
		t.Fatalf("sessions %+v", list)
	}
	for _, x := range list {
		busy := x.Peer.String() == a.Welcome.Peer
		if !x.Connected || x.Version != 2 || x.Since.IsZero() || (x.Protocols == 1) != busy || (x.Topics == 1) != busy {
			t.Errorf("session %+v", x)
		}
	}
}
