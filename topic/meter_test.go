package topic

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	libp2p "github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-p2p/parley/identity"
)

const bob, eve = identity.PeerID("bob"), identity.PeerID("eve")

func rpcOf(messages int) *pubsub.RPC {
	topic := "room"
	rpc := &pubsub.RPC{}
	for range messages {
		rpc.Publish = append(rpc.Publish, &pb.Message{Topic: &topic, Data: make([]byte, 100)})
	}
	return rpc
}

// fill queues messages to p up to where publishers wait.
func fill(m *meter, p identity.PeerID) {
	for range m.queue / fullShare {
		m.SendRPC(rpcOf(1), p)
	}
}

func TestPublishersWaitForAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t.Context(), defaultQueue)
		peers := []identity.PeerID{bob, "never seen"}
		if err := m.wait(t.Context(), peers); err != nil {
			t.Fatal(err)
		}
		fill(m, bob)
		began := time.Now()
		time.AfterFunc(300*time.Millisecond, func() { m.written(m.remotes[bob], 100) })
		if err := m.wait(t.Context(), peers); err != nil || time.Since(began) != 300*time.Millisecond {
			t.Errorf("waited %v, %v", time.Since(began), err)
		}
		if err := m.wait(t.Context(), []identity.PeerID{eve}); err != nil {
			t.Error("waits for a peer that isn't in the topic")
		}
	})
}

func TestPublishersWaitForBytes(t *testing.T) {
	m := newMeter(t.Context(), defaultQueue)
	topic := "room"
	m.SendRPC(&pubsub.RPC{RPC: pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: make([]byte, fullBytes)}}}}, bob)
	if changed, _ := m.full([]identity.PeerID{bob}, time.Now()); changed == nil {
		t.Error("doesn't wait for a queue full of bytes")
	}
	m.OnClosedOutboundStream(bob)
	if changed, _ := m.full([]identity.PeerID{bob}, time.Now()); changed != nil {
		t.Error("waits for a peer that is gone")
	}
}

func TestAbuse28_PeerThatNeverReads(t *testing.T) {
	for name, takes := range map[string]int{"takes nothing": 0, "crawls": paceMessages - 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMeter(t.Context(), defaultQueue)
				fill(m, eve)
				fill(m, eve)
				began := time.Now()
				for i := range takes {
					time.AfterFunc(time.Duration(i+1)*paceWindow/paceMessages, func() { m.written(m.remotes[eve], 100) })
				}
				for range 3 { // only the first waits
					if err := m.wait(t.Context(), []identity.PeerID{eve}); err != nil || time.Since(began) != paceWindow {
						t.Errorf("waited until %v, %v", time.Since(began), err)
					}
				}
				for m.isFull(m.remotes[eve]) { // it takes what there is
					m.written(m.remotes[eve], 100)
				}
				m.SendRPC(rpcOf(1), eve)
				if changed, _ := m.full([]identity.PeerID{eve}, time.Now()); changed == nil {
					t.Error("a peer that takes again isn't waited for")
				}
			})
		})
	}
}

// TestPublishersKeepWaiting: a peer that takes what it can sets the pace.
func TestPublishersKeepWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t.Context(), defaultQueue)
		fill(m, bob)
		fill(m, bob)
		left := m.queue/fullShare + 1
		began := time.Now()
		var step func()
		step = func() {
			if m.written(m.remotes[bob], 100); left > 1 {
				left--
				time.AfterFunc(10*time.Millisecond, step)
			}
		}
		step()
		if err := m.wait(t.Context(), []identity.PeerID{bob}); err != nil || time.Since(began) != 10*time.Millisecond*time.Duration(m.queue/fullShare) {
			t.Errorf("waited %v, %v", time.Since(began), err)
		}
	})
}

func TestPeerIsCutOffBeforeMemoryIsFull(t *testing.T) {
	m := newMeter(t.Context(), defaultQueue)
	s := &deadlineStream{}
	r := m.remote(eve)
	r.stream = &outStream{Stream: s, meter: m, remote: r}
	topic := "room"
	large := &pubsub.RPC{RPC: pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: make([]byte, MaxMessage)}}}}
	for n := 1; !s.ended; n++ {
		if m.SendRPC(large, eve); n > cutBytes/MaxMessage+1 {
			t.Fatal("goes on queueing")
		}
	}
	if _, dropped := m.snapshot(); dropped[dropCut] == 0 {
		t.Errorf("counted %v", dropped)
	}
}

type deadlineStream struct {
	libp2p.Stream
	ended bool
}

func (s *deadlineStream) SetWriteDeadline(t time.Time) error {
	s.ended = t.Before(time.Now())
	return nil
}

func TestWaitingPublisherGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t.Context(), defaultQueue)
		fill(m, bob)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := m.wait(ctx, []identity.PeerID{bob}); err == nil {
			t.Error("went on without room")
		}
	})
}

func TestReadingWaitsForValidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t.Context(), defaultQueue)
		bobs, eves := m.remote(bob), m.remote(eve)
		if changed, _ := m.busy(bobs, time.Now()); changed != nil {
			t.Error("waits with nothing to validate")
		}
		bobs.pending, bobs.settled, m.pending = m.queue/4, time.Now(), m.queue/4
		if changed, _ := m.busy(eves, time.Now()); changed != nil {
			t.Error("one peer's messages hold up another's")
		}
		began := time.Now()
		time.AfterFunc(20*time.Millisecond, func() { m.DeliverMessage(&pubsub.Message{ReceivedFrom: bob}) })
		if m.waitRead(bobs); time.Since(began) != 20*time.Millisecond {
			t.Errorf("waited %v", time.Since(began))
		}
		bobs.pending = m.queue // what the router dropped without a word
		if m.waitRead(bobs); time.Since(began) != 20*time.Millisecond+settleWait || bobs.pending != 0 || m.pending != 0 {
			t.Errorf("waited %v, pending %d and %d", time.Since(began), bobs.pending, m.pending)
		}
	})
}

func TestMeterForgetsPeers(t *testing.T) {
	m := newMeter(t.Context(), defaultQueue)
	for _, p := range []identity.PeerID{bob, eve} {
		m.OnNewOutboundStream(p, "")
		fill(m, p)
		m.OnClosedOutboundStream(p)
	}
	if len(m.remotes) != 0 {
		t.Errorf("remembers %d", len(m.remotes))
	}
}

func TestSubscriptionsOfOnePeerAreBounded(t *testing.T) {
	m := newMeter(t.Context(), defaultQueue)
	f := subscriptionFilter{m}
	announce := func(subscribe bool, names ...string) int {
		var subs []*pb.RPC_SubOpts
		for _, name := range names {
			subs = append(subs, &pb.RPC_SubOpts{Topicid: &name, Subscribe: &subscribe})
		}
		kept, err := f.FilterIncomingSubscriptions(eve, subs)
		if err != nil {
			t.Fatal(err)
		}
		return len(kept)
	}
	many := make([]string, maxRemoteTopics+10)
	for i := range many {
		many[i] = string([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if n := announce(true, many...); n != maxRemoteTopics {
		t.Errorf("tracks %d topics", n)
	}
	if announce(true, many[0]) != 1 || announce(true, "another") != 0 || announce(false, many[0]) != 1 || announce(true, "another") != 1 {
		t.Error("known topics, leaving and coming don't work at the limit")
	}
	if announce(true, string(make([]byte, maxRemoteName+1))) != 0 {
		t.Error("takes a name that is too long")
	}
}
