package peer

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/network"
)

// claimed takes the writer's place of the stream to p, as who settles does.
func claimed(t *testing.T, p *Peer) *inStream {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range p.current {
		st.flush, st.writing = true, true
		p.hurry(st.stream)
		return st
	}
	t.Fatal("no stream")
	return nil
}

// Between the claim and the write of who settles comes a large reply: it is told
// whole, and at once.
func TestLoneAck_LargeReplyMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		to := newPage(true)
		to.on = func(d network.Delivery) {
			if string(d.Content().Data) == "first" {
				d.Handled()
			}
		}
		m, bob, _, _ := talk(t, w, to)
		out, r := outgoing(bob.ID(), "ask", network.Handled)
		out.Reply = true
		if _, err := m.Send(out); err != nil {
			t.Fatal(err)
		}
		d := to.wait(t, 2)
		st := claimed(t, bob)
		began, large := time.Now(), bytes.Repeat([]byte("x"), 2*largePayload)
		d.Reply(network.Content{Data: large})
		synctest.Wait()
		st.writeNow()
		o := r.wait(t)
		if o.Err != nil || o.Reply == nil || !bytes.Equal(o.Reply.Data, large) {
			t.Errorf("got %v", o.Err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// The stream ends meanwhile: the bye is said once.
func TestLoneAck_EndMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		_, bob, _, in := talk(t, w, handling())
		st := claimed(t, bob)
		bob.mu.Lock()
		st.end(byeLater, "")
		bob.mu.Unlock()
		synctest.Wait() // its reader has ended
		in.mu.Lock()
		in.writes = nil
		in.mu.Unlock()
		st.writeNow()
		synctest.Wait()
		in.mu.Lock()
		defer in.mu.Unlock()
		if len(in.writes) != 1 {
			t.Errorf("writes of %v bytes, want the bye alone", in.writes)
		}
	})
}
