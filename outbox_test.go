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
	for _, c := range []struct {
		level network.Level
		other bool // on another node
	}{{network.Queued, false}, {network.Handled, false}, {network.Queued, true}, {network.Handled, true}} {
		t.Run(fmt.Sprint(c.level, " to another node ", c.other), func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // where the two meet
			const outbox, size, messages = 256 << 10, 16 << 10, 1000
			const patience = 5 * time.Minute // a busy machine's nodes meet late
			cfg := loopbackConfig(t)
			cfg.Limits.Outbox, cfg.Limits.MaxMessage = outbox, 64<<10
			cfg.Peer.SendTimeout = Duration(patience)
			n := runNode(t, cfg)
			at := n
			if c.other {
				at = runNode(t, loopbackConfig(t))
			}
			page := gatewaytest.Join2(t, serverOf(t, n), v2.HelloFrame{})
			bob := gatewaytest.Join2(t, serverOf(t, at), v2.HelloFrame{})
			page.Patience, bob.Patience = patience, patience

			var running sync.WaitGroup
			defer running.Wait()
			defer page.WS.CloseNow()
			running.Go(func() {
				for i := range messages {
					page.Send(bob.Welcome.Peer, "late", fmt.Sprintf("%d%s", i, strings.Repeat(" ", size)), c.level, false)
				}
			})
			answers := make(chan error, 1)
			running.Go(func() { answers <- readResults(t, page, messages, c.level) })
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
			bob.Call("start", map[string]any{"protocol": "late"})
			for i := range messages {
				f := bob.Next()
				for f.Kind == v2.KindEvent { // news of paths
					f = bob.Next()
				}
				m := gatewaytest.Elements(t, f)
				if text, ok := m[3].(string); f.Kind != v2.KindMessage || !ok || !strings.HasPrefix(text, fmt.Sprint(i, " ")) {
					t.Fatalf("as the %dth came frame %d: %.40q", i, f.Kind, fmt.Sprint(m))
				}
				bob.Write(v2.AppendCount(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)), v2.KindReceived, bob.Got))
				look()
			}
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
			// What is unsettled in the outbox, and what the page has unsettled beside.
			if limit := outbox + 2*outbox + size + 1000; most > limit {
				t.Errorf("the node held %d bytes, want %d at most", most, limit)
			}
		})
	}
}

// readResults reads until a page knows of n messages that they reached the level,
// or a higher one.
func readResults(t *testing.T, page *gatewaytest.Page2, n int, level network.Level) error {
	for n > 0 {
		f, err := page.Read()
		if err != nil {
			return err
		}
		switch f.Kind {
		case v2.KindReceived, v2.KindEvent:
			continue
		case v2.KindResult:
			r := gatewaytest.Elements(t, f)
			if reached, ok := r[1].(uint64); !ok || reached < uint64(level) {
				return fmt.Errorf("result %v", r)
			}
			n--
		default:
			return fmt.Errorf("frame %d: %v", f.Kind, gatewaytest.Elements(t, f))
		}
	}
	return nil
}
