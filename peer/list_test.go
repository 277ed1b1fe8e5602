package peer

import (
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/network"
)

func TestListShowsConversations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{})
		page, sender := w.peer(n, 1, handling())
		bob, _ := w.peer(w.node(Config{}), 2, handling(), chat)
		if o := send(t, sender, bob.ID(), "x", network.Handled).wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		list := n.List(10)
		if len(list) != 1 || list[0].From != page.ID() || list[0].To != bob.ID() || list[0].Protocol != chat {
			t.Fatalf("conversations %+v", list)
		}
		if c := list[0]; c.Settled != 1 || c.Queued != 0 || c.OnTheWay != 0 || c.Path == network.PathNone || c.Failed != "" {
			t.Errorf("conversation %+v", c)
		}
		if len(n.List(0)) != 0 {
			t.Error("more than asked for")
		}
	})
}
