package peer

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/network"
)

// pairs are the two ways a message goes: over a stream, and inside the node.
func pairs(t *testing.T, run func(t *testing.T, w *world, a, b *Node)) {
	for _, same := range []bool{false, true} {
		t.Run(fmt.Sprintf("same node %v", same), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				a := w.node(Config{})
				b := a
				if !same {
					b = w.node(Config{})
				}
				run(t, w, a, b)
			})
		})
	}
}

func TestMessagesArriveInOrderAndAreHandled(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		to := handling()
		_, sender := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, to, chat)
		const n = 1000
		results := make([]result, n)
		for i := range results {
			results[i] = send(t, sender, bob.ID(), fmt.Sprint(i), network.Handled)
		}
		for i, r := range results {
			if o := r.wait(t); o.Err != nil || o.Level != network.Handled {
				t.Fatalf("message %d ended %+v", i, o)
			}
		}
		for i, text := range to.texts() {
			if text != fmt.Sprint(i) {
				t.Fatalf("at %d came %s", i, text)
			}
		}
		synctest.Wait()
		if s := a.Stats(); s.QueuedBytes != 0 || s.Handled != n {
			t.Fatalf("stats afterwards: %+v", s)
		}
	})
}
