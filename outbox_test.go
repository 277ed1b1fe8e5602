package parley

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// TestG_D9_OutboxOfAPageIsBounded: a page of v2 writes as fast as it can to a page
// that isn't there yet, and keeps to no limit. The node holds what the outbox may
// hold and what a page may have unsettled beside, and reads no more; the rest waits
// in the socket. No message is refused and none lost: when the other page comes
// they arrive, each once and in order.
func TestG_D9_OutboxOfAPageIsBounded(t *testing.T) {
	for _, level := range []network.Level{network.Queued, network.Handled} {
		t.Run(level.String(), func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
			const outbox, size, messages = 256 << 10, 16 << 10, 1000
			cfg := loopbackConfig(t)
			cfg.Limits.Outbox, cfg.Limits.MaxMessage = outbox, 64<<10
			n := runNode(t, cfg)
			page := gatewaytest.Join2(t, serverOf(t, n), v2.HelloFrame{})
			bob := gatewaytest.Join2(t, serverOf(t, n), v2.HelloFrame{})
			page.Patience, bob.Patience = time.Minute, time.Minute

			var writing sync.WaitGroup
			defer writing.Wait()
			writing.Go(func() {
				for i := range messages {
					page.Send(bob.Welcome.Peer, "late", fmt.Sprintf("%d%s", i, strings.Repeat(" ", size)), level, false)
				}
			})
			most := 0
			look := func() int {
				now := n.peers.Stats().QueuedBytes
				most = max(most, now)
				return now
			}
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for look() < outbox-size-100 { // the outbox fills, while nobody listens
				<-tick.C
			}
			want := func(p *gatewaytest.Page2, kind v2.Kind) []any {
				for { // news of paths may come before
					f := p.Next()
					if f.Kind == kind {
						return gatewaytest.Elements(t, f)
					}
					if f.Kind == v2.KindError {
						t.Fatalf("error %v", gatewaytest.Elements(t, f))
					}
				}
			}
			bob.Call("start", map[string]any{"protocol": "late"})
			for i := range messages {
				m := want(bob, v2.KindMessage)
				if text := m[3].(string); !strings.HasPrefix(text, fmt.Sprint(i, " ")) {
					t.Fatalf("as the %dth came %.10q", i, text)
				}
				bob.Write(v2.AppendCount(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)), v2.KindReceived, bob.Got))
				look()
			}
			for range messages {
				if r := want(page, v2.KindResult); len(r) != 2 || r[1] != uint64(level) && r[1] != uint64(network.Delivered) {
					t.Fatalf("result %v", r)
				}
			}
			// What is unsettled in the outbox, and what the page has unsettled beside.
			if limit := outbox + 2*outbox + size + 1000; most > limit {
				t.Errorf("the node held %d bytes, want %d at most", most, limit)
			}
		})
	}
}
