package peer

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/network"
)

func TestResumeAfterResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.SetDelay(20 * time.Millisecond)
		to := newPage(true)
		to.on = func(d network.Delivery) { time.AfterFunc(30*time.Millisecond, d.Handled) }
		alice, m := w.peer(w.node(Config{}), 1, handling())
		bob, _ := w.peer(w.node(Config{}), 2, to, chat)
		var results []result
		for i := range 200 {
			results = append(results, send(t, m, bob.ID(), fmt.Sprint(i), network.Handled))
			time.Sleep(7 * time.Millisecond)
			if i%20 == 19 {
				w.cluster.Reset(alice.ID(), bob.ID())
			}
		}
		for i, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
		for i, text := range to.texts() {
			if text != fmt.Sprint(i) {
				t.Fatalf("at %d came %s", i, text)
			}
		}
	})
}

// The receiver's page goes and another comes: what may have been handled by the
// first is never given to the second.
func TestRestartNeverDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{})
		first := newPage(true)
		alice, m := w.peer(w.node(Config{}), 1, handling())
		bob, _ := w.peer(n, 2, first, chat)
		r := send(t, m, bob.ID(), "x", network.Handled)
		first.wait(t, 1)
		w.cluster.Cut(alice.ID(), bob.ID()) // its refusal doesn't reach alice
		bob.Close()
		w.cluster.Heal(alice.ID(), bob.ID())
		second := handling()
		w.peer(n, 2, second, chat)
		synctest.Wait() // alice knows that the stream is lost; else y may have been on it
		later := send(t, m, bob.ID(), "y", network.Handled)
		if o := r.wait(t); !errors.Is(o.Err, errTimedOut) {
			t.Fatalf("ended %+v", o)
		}
		if o := later.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := fmt.Sprint(second.texts()); got != "[y]" {
			t.Fatalf("second page got %s", got)
		}
	})
}

// What was written to a stream whose other end never saw it is sent again,
// although the epoch isn't known there.
func TestUnseenEpochIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.SetDelay(50 * time.Millisecond)
		to := handling()
		alice, m := w.peer(w.node(Config{}), 1, handling())
		bob, _ := w.peer(w.node(Config{}), 2, to, chat)
		time.Sleep(time.Second)
		r := send(t, m, bob.ID(), "x", network.Handled)
		time.Sleep(10 * time.Millisecond)
		w.cluster.Reset(alice.ID(), bob.ID()) // hello and message are lost on the way
		if o := r.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := fmt.Sprint(to.texts()); got != "[x]" {
			t.Fatalf("came: %s", got)
		}
	})
}

func TestIdleStreamIsClosedAndNothingIsLeft(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, handling(), chat)
		send(t, m, bob.ID(), "x", network.Handled).wait(t)
		time.Sleep(time.Minute)
		if s := a.Stats(); s.Conversations != 1 {
			t.Fatalf("after a minute: %+v", s)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := a.Stats(); s.Conversations != 0 || s.QueuedBytes != 0 {
			t.Fatalf("sender keeps %+v", s)
		}
		if s := b.Stats(); s.Streams != 0 || s.Remembered != 0 {
			t.Fatalf("receiver keeps %+v", s)
		}
		send(t, m, bob.ID(), "y", network.Handled).wait(t)
	})
}
