package topic

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
)

// scores are what a router thinks of its peers.
type scores struct {
	mu    sync.Mutex
	worst map[identity.PeerID]float64
}

func (s *scores) option() pubsub.Option {
	return pubsub.WithPeerScoreInspect(func(now map[peer.ID]float64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, score := range now {
			s.worst[id] = min(s.worst[id], score)
		}
	}, time.Second)
}

// lowest is the lowest score that a peer had so far, at most 0.
func (s *scores) lowest(id identity.PeerID) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worst[id]
}

// TestAbuse34_SpamCostsTheScore: a member that is a good one at first, and then
// promises messages that it hasn't got, or grafts against its prune, falls below
// the score at which nothing of it is looked at any more. Its publications, which
// are in order, reach nobody from then on; those of others do, and their score
// doesn't fall.
func TestAbuse34_SpamCostsTheScore(t *testing.T) {
	topic := "room"
	tests := []struct {
		name string
		spam func(round int) *pb.ControlMessage
	}{
		{"promises", func(round int) *pb.ControlMessage {
			ids := make([]string, 100)
			for i := range ids {
				ids[i] = fmt.Sprint("no such message ", round, i)
			}
			return &pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: ids}},
				Iwant: []*pb.ControlIWant{{MessageIDs: ids}}}
		}},
		{"grafts", func(int) *pb.ControlMessage {
			return &pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &topic}}, Prune: []*pb.ControlPrune{{TopicID: &topic}}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := peertest.NewSim(t, peertest.SimConfig{Hosts: 3})
				seen := scores{worst: make(map[identity.PeerID]float64)}
				n := startNode(t, sim.Host(0).Host(), defaultQueue, Config{Log: slog.New(slog.DiscardHandler)}, true, seen.option())
				other := startNode(t, sim.Host(1).Host(), defaultQueue, Config{Log: slog.New(slog.DiscardHandler)}, true)
				meet(t, n, other)
				a, b := n.page(t), other.page(t)
				a.subscribe(t, topic)
				b.subscribe(t, topic)
				h := sim.Host(2).Host()
				if err := h.Connect(context.Background(), peer.AddrInfo{ID: n.host.ID()}); err != nil {
					t.Fatal(err)
				}
				p := newRawPeerOn(t, h, n, topic, true)
				time.Sleep(5 * time.Second)
				publish := func(text string, seq uint64) {
					t.Helper()
					if err := p.send(&pb.RPC{Publish: []*pb.Message{p.message(t, topic, text, seq, true)}}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * time.Second)
				}
				publish(`"before"`, 1)
				if got := seen.lowest(h.ID()); got < 0 {
					t.Errorf("scored %v before it did anything", got)
				}
				for round := range 200 {
					if err := p.send(&pb.RPC{Control: tt.spam(round)}); err != nil {
						t.Fatal(err)
					}
					if round < 199 {
						time.Sleep(50 * time.Millisecond)
					}
				}
				publish(`"after"`, 2) // at once: the score heals with time
				if got := seen.lowest(h.ID()); got >= scoreThresholds().GraylistThreshold {
					t.Errorf("scored %v after the spam, want less than %v", got, scoreThresholds().GraylistThreshold)
				}
				b.publish(t, topic, `"hello"`)
				time.Sleep(2 * time.Second)
				if got := a.texts(); !slices.Equal(got, []string{`"before"`, `"hello"`}) {
					t.Errorf("got %q", got)
				}
				if got := seen.lowest(other.host.ID()); got < 0 {
					t.Errorf("the honest one is scored %v", got)
				}
				n.close()
				other.close()
				sim.Close()
				time.Sleep(time.Minute) // what the libraries still do with streams that ended
			})
		})
	}
}
