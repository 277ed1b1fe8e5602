package peer

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestLevels(t *testing.T) {
	cases := []struct {
		name    string
		settles bool
		want    network.Level
		got     network.Level
	}{
		{"handled by a v2 page", true, network.Handled, network.Handled},
		{"handled is only delivered to a v1 page", false, network.Handled, network.Delivered},
		{"delivered to a v2 page", true, network.Delivered, network.Delivered},
		{"delivered to a v1 page", false, network.Delivered, network.Delivered},
		{"stored is handled", true, network.Stored, network.Handled},
		{"queued", true, network.Queued, network.Queued},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, w *world, a, b *Node) {
				to := newPage(c.settles)
				if c.settles && c.want != network.Delivered {
					to.on = func(d network.Delivery) { go d.Handled() }
				}
				_, m := w.peer(a, 1, handling())
				bob, _ := w.peer(b, 2, to, chat)
				start := time.Now()
				o := send(t, m, bob.ID(), "x", c.want).wait(t)
				if o.Err != nil || o.Level != c.got {
					t.Fatalf("ended %+v, want level %v", o, c.got)
				}
				if d := time.Since(start); d != 0 { // no timer is in the way of a lone message
					t.Fatalf("took %v of virtual time", d)
				}
				to.wait(t, 1)
			})
		})
	}
}

// Delivered does not wait for the handler.
func TestG_D1_DeliveredMeansInTheSession(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		to := newPage(true) // nothing is ever handled
		to.room = make(chan struct{}, 1)
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, to, chat)
		r := send(t, m, bob.ID(), "x", network.Delivered)
		time.Sleep(5 * time.Second)
		if len(r) != 0 {
			t.Fatal("acknowledged before the session had it")
		}
		to.room <- struct{}{}
		if o := r.wait(t); o.Err != nil || o.Level != network.Delivered {
			t.Fatalf("ended %+v", o)
		}
	})
}

func TestReplies(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		echo := newPage(true)
		echo.on = func(d network.Delivery) {
			if !d.WantsReply() {
				d.Refuse(fmt.Errorf("no request"))
				return
			}
			d.Reply(network.Content{Type: network.CBOR, Data: append([]byte("re: "), d.Content().Data...)})
		}
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, echo, chat)
		for _, size := range []int{1, 1000, 100_000, 3 << 20} {
			out, r := outgoing(bob.ID(), string(make([]byte, size)), network.Queued)
			out.Reply = true
			if _, err := m.Send(out); err != nil {
				t.Fatal(err)
			}
			o := r.wait(t)
			if o.Err != nil || o.Reply == nil || len(o.Reply.Data) != size+4 || o.Reply.Type != network.CBOR {
				t.Fatalf("size %d ended %v, reply %v", size, o.Err, o.Reply != nil)
			}
		}
	})
}

func TestReplyFromAPageThatCannot(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, newPage(false), chat)
		out, r := outgoing(bob.ID(), "x", network.Handled)
		out.Reply = true
		if _, err := m.Send(out); err != nil {
			t.Fatal(err)
		}
		wantCode(t, r.wait(t).Err, identity.CodeUnsupported, "peer can't reply: "+bob.ID().String())
	})
}

// A reply settles its request although an earlier message hangs.
func TestAnswersDoNotWaitForEarlierMessages(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		to := newPage(true)
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, to, chat)
		first := send(t, m, bob.ID(), "first", network.Handled)
		second := send(t, m, bob.ID(), "second", network.Handled)
		to.wait(t, 2).Refuse(fmt.Errorf("not this one"))
		wantCode(t, second.wait(t).Err, identity.CodeRefused, "not this one")
		to.wait(t, 1).Handled()
		if o := first.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
	})
}

// Settling twice, or after the other way, changes nothing.
func TestADeliveryIsSettledOnce(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		to := newPage(true)
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, to, chat)
		r := send(t, m, bob.ID(), "x", network.Handled)
		d := to.wait(t, 1)
		d.Handled()
		d.Refuse(fmt.Errorf("too late"))
		d.Handled()
		if o := r.wait(t); o.Err != nil || o.Level != network.Handled {
			t.Fatalf("ended %+v", o)
		}
		synctest.Wait()
		if len(r) != 0 {
			t.Fatal("Done was called twice")
		}
	})
}
