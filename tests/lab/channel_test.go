//go:build linux

package lab

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/internal/labtest"
)

// TestChannelThroughAWillingNode: agents on nodes behind symmetric NATs, which no
// hole leads to, open a channel through a node that relays, and exchange 1 MiB
// each way.
func TestChannelThroughAWillingNode(t *testing.T) {
	t.Parallel()
	const (
		space, protocol = "lab", "bulk/1"
		piece, pieces   = 32 << 10, 32
	)
	lab := labtest.New(t)
	relay := startRelay(t, lab)
	var nodes []*node
	for _, name := range []string{"ann", "bob"} {
		h := lab.Router(name+"'s router", labtest.Symmetric).Host(name)
		nodes = append(nodes, run(t, h, append(alone, "--set", "p2p.relays="+relay.at("tcp/4001"))...))
	}
	ann := gatewaytest.Join2(t, nodes[0].server, v2.HelloFrame{Keyless: true})
	bob := gatewaytest.Join2(t, nodes[1].server, v2.HelloFrame{Keyless: true})
	ann.JoinSpace(space)
	bob.JoinSpace(space)
	bob.Listen(space, protocol)
	until(t, "the relay serves both agents", func() bool { return relay.metric(`parley_relay{what="agents"}`) == 2 })

	there := ann.Open(space, bob.Welcome.Peer, protocol, 1)
	back := bob.Incoming()
	for _, info := range []map[any]any{there.Info, back.Info} {
		if info["path"] != "relay" || info["relay"] != relay.id || info["verified"] != true {
			t.Errorf("the channel is %v, want one through %s", info, relay.id)
		}
	}
	send := func(from, to *gatewaytest.Page2, out, in gatewaytest.Opened) {
		t.Helper()
		window := out.Window
		for i := range pieces {
			for window < piece {
				window += from.WantCredit(out.ID)
			}
			sum := sha256.Sum256([]byte{byte(i), byte(out.ID)})
			content := bytes.Repeat(sum[:], piece/len(sum))
			from.Content(out.ID, content)
			window -= piece
			f := to.Next()
			for f.Kind == v2.KindCredit { // of what it sent before
				f = to.Next()
			}
			if _, got, err := f.ChannelContent(); err != nil || !bytes.Equal(got, content) {
				t.Fatalf("piece %d of channel %d: frame %d with %d bytes, %v", i, out.ID, f.Kind, len(got), err)
			}
			to.Credit(in.ID, piece)
			to.Ack()
		}
	}
	before := relay.metric("parley_relay_bytes_total")
	send(ann, bob, there, back)
	send(bob, ann, back, there)
	if carried := relay.metric("parley_relay_bytes_total") - before; carried < 2*piece*pieces {
		t.Errorf("the relay carried %.0f bytes", carried)
	}
}
