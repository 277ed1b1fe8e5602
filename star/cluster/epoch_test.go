package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/proxy"
)

// S-8 over servers: a message names the epoch it means, and the owner answers a
// stale one, or one of an address that has a later owner, with "Peer not found".
func TestS_8_StaleEpochIsNotFound(t *testing.T) {
	url := natstest.Start(t, 1).URL()
	n := start(t, url, open, cluster.Options{Times: calm})
	callee := n.join(addrB)
	n.join(addrA)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	kv, err := js.KeyValue(ctx, "STAR_MEMBERS")
	if err != nil {
		t.Fatal(err)
	}
	epoch := func(addr string) uint64 {
		t.Helper()
		e, err := kv.Get(ctx, cluster.KeyOf(addr))
		if err != nil {
			t.Fatal(err)
		}
		return e.Revision()
	}
	const other = "a-server-0123456"
	sub, err := nc.SubscribeSync("parley.star.default." + other)
	if err != nil {
		t.Fatal(err)
	}
	to, from := epoch(addrB), epoch(addrA)
	for i, tt := range []struct {
		name         string
		epoch, dials uint64
		dialer, want string
	}{
		{"of before", to - 1, 1, addrC, "Peer not found"},
		{"of later", to + 1, 1, addrC, "Peer not found"},
		{"the dialer's address is here by now", to, from - 1, addrA, "Peer not found"},
		{"a dialer without an address", to, 1, "nonsense", "Invalid multiaddr"},
		{"right", to, 1, addrC, ""},
		{"right, and the dialer's address has moved", to, from + 1, addrA, ""},
	} {
		id := fmt.Sprint("d", i)
		if err := nc.Publish("parley.star.default."+n.shared.Name(), cluster.Ask(other, uint64(i), tt.epoch, tt.dials, proxy.Window, addrB, tt.dialer, id)); err != nil {
			t.Fatal(err)
		}
		for {
			msg, err := sub.NextMsgWithContext(ctx)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			dial, reason, ok := cluster.Answer(msg.Data)
			if !ok {
				continue // a check
			}
			if dial != uint64(i) || reason != tt.want {
				t.Errorf("%s: dial %d is answered with %q, want %q", tt.name, dial, reason, tt.want)
			}
			break
		}
		if _, asked := callee.has(`["ss-incomming","` + id + `"`); asked != (tt.want == "") {
			t.Errorf("%s: the callee was asked: %v", tt.name, asked)
		}
	}
}
