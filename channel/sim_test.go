package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// The simulation: 100 agents on 10 nodes and 3 relays, in virtual time. The
// nodes are in two halves that never reach each other directly. Streams are
// reset, links are blocked for longer than a keep-alive, relays die and come
// back, while every agent opens channels to others and sends.
const (
	simNodes  = 10
	simRelays = 3
	simAgents = 100
	simDelay  = 15 * time.Millisecond
)

type simulation struct {
	t       *testing.T
	cluster *peertest.Cluster
	keys    []identity.Key // nodes, then relays
	nodes   []*simNode
	members []Member
	where   map[identity.AgentID]int // node of an agent
	outcome struct{ whole, relayed, broken, refused, bytes atomic.Int64 }
	fault   atomic.Pointer[string]
}

// simNode is a node that can be stopped and started again.
type simNode struct {
	node *Node
	stop func()
}

// Locate says on which node an agent is, and which relays lead there.
func (s *simulation) Locate(_ context.Context, _ SpaceHash, a identity.AgentID) ([]Location, error) {
	i, ok := s.where[a]
	if !ok {
		return nil, nil
	}
	return []Location{{Node: s.keys[i].PeerID(), Relays: s.nodes[i].node.Relays()}}, nil
}

func (*simulation) Announce(SpaceHash, identity.Agent, []identity.PeerID) {}
func (*simulation) Withdraw(SpaceHash, identity.AgentID)                  {}

func (s *simulation) start(i int) {
	key := s.keys[i]
	node, err := New(Config{Network: s.cluster.Host(key), Key: key, Locator: s})
	if err != nil {
		s.t.Fatal(err)
	}
	if i >= simNodes {
		if err := node.RelayFor(RelayPolicy{Bridges: 1000}); err != nil {
			s.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan error, 2)
	go func() { done <- node.Run(ctx) }()
	go func() {
		if i >= simNodes {
			done <- nil
			return
		}
		var relays []identity.PeerID // each node prefers another
		for k := range simRelays {
			relays = append(relays, s.keys[simNodes+(i+k)%simRelays].PeerID())
		}
		done <- node.UseRelay(ctx, relays...)
	}()
	s.nodes[i] = &simNode{node: node, stop: func() {
		cancel()
		<-done
		<-done
	}}
}

func TestSimulation(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d, %v", seed, simLength)
	synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
}

func simulate(t *testing.T, seed uint64) {
	s := &simulation{t: t, cluster: peertest.New(), nodes: make([]*simNode, simNodes+simRelays), where: make(map[identity.AgentID]int)}
	s.cluster.SetDelay(simDelay)
	for i := range simNodes + simRelays {
		s.keys = append(s.keys, testKey(t, 1000+i))
	}
	for i := range simNodes / 2 {
		for k := simNodes / 2; k < simNodes; k++ {
			s.cluster.Cut(s.keys[i].PeerID(), s.keys[k].PeerID())
		}
	}
	for i := range s.nodes {
		s.start(i)
	}
	var agents []identity.Key
	for i := range simAgents {
		agents = append(agents, testKey(t, 2000+i))
		s.where[agents[i].Agent()] = i % simNodes
	}
	ctx, cancel := context.WithTimeout(t.Context(), simLength)
	defer cancel()
	var wg sync.WaitGroup
	for i, key := range agents {
		m, err := s.nodes[i%simNodes].node.Space("sim").Join(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		s.members = append(s.members, m)
		l, err := m.Listen("data")
		if err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go func() { defer wg.Done(); s.accept(ctx, l, &wg) }()
	}
	<-time.After(2 * time.Second) // until relays know the agents
	wg.Add(1)
	go func() { defer wg.Done(); s.trouble(ctx, rand.New(rand.NewPCG(seed, 0))) }()
	for i, m := range s.members {
		wg.Add(1)
		go func() { defer wg.Done(); s.traffic(ctx, m, rand.New(rand.NewPCG(seed, uint64(i+1)))) }()
	}
	wg.Wait()
	for _, n := range s.nodes {
		n.stop()
	}
	s.cluster.Close()
	if f := s.fault.Load(); f != nil {
		t.Errorf("seed %d: %s", seed, *f)
	}
	o := &s.outcome
	t.Logf("%d channels whole, %d of them relayed, %d broken in between, %d not opened; %d KiB",
		o.whole.Load(), o.relayed.Load(), o.broken.Load(), o.refused.Load(), o.bytes.Load()>>10)
	if o.whole.Load() < 300 || o.relayed.Load() < 100 {
		t.Errorf("seed %d: %d channels whole and %d relayed: this tests nothing", seed, o.whole.Load(), o.relayed.Load())
	}
}

func (s *simulation) report(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.fault.CompareAndSwap(nil, &text)
}

// trouble makes something fail every second or so.
func (s *simulation) trouble(ctx context.Context, r *rand.Rand) {
	var healing sync.WaitGroup
	defer healing.Wait()
	for {
		select {
		case <-time.After(time.Duration(500+r.IntN(1000)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		a, b := r.IntN(len(s.keys)), r.IntN(len(s.keys))
		if a == b || (a < simNodes/2) != (b < simNodes/2) && max(a, b) < simNodes {
			continue // these never reach each other
		}
		x, y := s.keys[a].PeerID(), s.keys[b].PeerID()
		switch r.IntN(10) {
		case 0: // a relay dies, and comes back
			i := simNodes + r.IntN(simRelays)
			s.nodes[i].stop()
			<-time.After(time.Duration(1+r.IntN(5)) * time.Second)
			s.start(i)
		case 1, 2: // a partition that nobody notices at first
			s.cluster.Block(x, y)
			healing.Add(1)
			after := time.Duration(1+r.IntN(90)) * time.Second
			go func() {
				defer healing.Done()
				<-time.After(after)
				s.cluster.Heal(x, y)
			}()
		case 3: // one that is noticed at once
			s.cluster.Cut(x, y)
			healing.Add(1)
			after := time.Duration(1+r.IntN(10)) * time.Second
			go func() {
				defer healing.Done()
				<-time.After(after)
				s.cluster.Heal(x, y)
			}()
		default:
			s.cluster.Reset(x, y)
		}
	}
}

// traffic opens channels to random agents, one after the other, and sends.
func (s *simulation) traffic(ctx context.Context, m Member, r *rand.Rand) {
	for ctx.Err() == nil {
		to := s.members[r.IntN(len(s.members))]
		openCtx, cancel := context.WithTimeout(ctx, 20*time.Second)
		ch, err := m.Open(openCtx, to.Agent(), "data")
		cancel()
		if err != nil {
			s.outcome.refused.Add(1)
		} else {
			s.send(ctx, ch, r)
		}
		select {
		case <-time.After(time.Duration(r.IntN(5000)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// send sends numbered contents of a pattern, and closes in order.
func (s *simulation) send(ctx context.Context, ch Channel, r *rand.Rand) {
	count := 1 + r.IntN(30)
	seed := r.Uint64()
	slow := time.Duration(r.IntN(3)/2*r.IntN(400)) * time.Millisecond // every third takes its time
	for i := range count {
		<-time.After(slow)
		msg := pattern(seed, i, count, r.IntN(1_000)*(1+r.IntN(40)/39*30))
		if err := ch.Send(ctx, msg); err != nil {
			ch.CloseWithError(Unknown, "gives up")
			return
		}
	}
	ch.Close()
}

// pattern is content i of count: seed, i, count, and bytes that follow from them.
func pattern(seed uint64, i, count, n int) []byte {
	b := binary.BigEndian.AppendUint64(nil, seed)
	b = binary.BigEndian.AppendUint32(b, uint32(i))
	b = binary.BigEndian.AppendUint32(b, uint32(count))
	for k := range n {
		b = append(b, byte(seed)+byte(i)*7+byte(k))
	}
	return b
}

func (s *simulation) accept(ctx context.Context, l Listener, wg *sync.WaitGroup) {
	for {
		ch, err := l.Accept(ctx)
		if err != nil {
			return
		}
		wg.Add(1)
		go func() { defer wg.Done(); s.check(ctx, ch) }()
	}
}

// check reads a channel to its end: what comes must be the beginning of what
// was sent, and all of it where the end is an orderly close.
func (s *simulation) check(ctx context.Context, ch Channel) {
	defer ch.Close()
	var seed uint64
	next, count := 0, -1
	for {
		msg, err := ch.Receive(ctx)
		if errors.Is(err, io.EOF) {
			if next != count && count >= 0 {
				s.report("closed in order after %d of %d contents (%v)", next, count, ch.Info().Path)
			}
			s.outcome.whole.Add(1)
			if ch.Info().Path == network.PathRelay {
				s.outcome.relayed.Add(1)
			}
			return
		}
		if err != nil {
			s.outcome.broken.Add(1)
			return
		}
		got := binary.BigEndian.Uint64(msg)
		i, n := int(binary.BigEndian.Uint32(msg[8:])), int(binary.BigEndian.Uint32(msg[12:]))
		if next == 0 {
			seed, count = got, n
		}
		if got != seed || i != next || string(msg) != string(pattern(seed, i, count, len(msg)-16)) {
			s.report("content %d came where %d belongs (%v)", i, next, ch.Info().Path)
		}
		next++
		s.outcome.bytes.Add(int64(len(msg)))
	}
}
