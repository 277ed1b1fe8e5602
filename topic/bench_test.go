package topic

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-p2p/parley/network"
)

// countingSink counts publications and what isn't in order.
type countingSink struct {
	last  map[string]int
	got   atomic.Int64
	wrong atomic.Int64
	done  chan struct{} // closed at want
	want  int64
}

func newCountingSink(want int) *countingSink {
	return &countingSink{last: make(map[string]int), want: int64(want), done: make(chan struct{})}
}

func (s *countingSink) Publish(p network.Publication) {
	var n int
	if _, err := fmt.Sscanf(string(p.Content.Data), `"%d`, &n); err != nil || n != s.last[string(p.From)]+1 {
		s.wrong.Add(1)
	}
	s.last[string(p.From)] = n
	if s.got.Add(1) == s.want {
		close(s.done)
	}
}

func (s *countingSink) Presence(string, network.Member, bool) {}

// numbered is publication n, counted from 1, of size bytes.
func numbered(n, size int) network.Content {
	text := fmt.Sprintf(`"%d `, n)
	return jsonText(text + strings.Repeat("x", size-len(text)-1) + `"`)
}

// room has a publisher on the first node, and subscribers spread over all.
type burst struct {
	publisher *Page
	sinks     []*countingSink
}

func newBurst(tb testing.TB, want, subscribers int, nodes ...*testNode) *burst {
	connect(tb, nodes...)
	b := &burst{publisher: nodes[0].Join(newKey(tb), newSink())}
	watcher := nodes[0].page(tb)
	watcher.subscribe(tb, "room")
	for i := range subscribers {
		s := newCountingSink(want)
		p := nodes[i%len(nodes)].Join(newKey(tb), s)
		if _, err := p.Subscribe(context.Background(), "room", nil); err != nil {
			tb.Fatal(err)
		}
		b.sinks = append(b.sinks, s)
		watcher.untilMember(tb, "room", p.id, true)
	}
	watcher.Leave()
	for _, n := range nodes[:min(subscribers, len(nodes))] { // they may reach each other later than the first reaches them
		n.untilReady(tb, "room", min(subscribers, len(nodes))-1)
	}
	return b
}

// untilReady waits until n's router can send to so many others in the topic.
func (n *testNode) untilReady(tb testing.TB, topic string, others int) {
	tb.Helper()
	n.mu.Lock()
	r := n.rooms[topic]
	n.mu.Unlock()
	deadline := time.After(patience)
	for {
		v := r.view.Load()
		if len(v.ready) >= others {
			return
		}
		select {
		case <-v.stale:
		case <-deadline:
			tb.Fatalf("sees %d others in %s, not %d", len(v.ready), topic, others)
		}
	}
}

func (b *burst) run(tb testing.TB, count, size int) {
	for i := range count {
		if err := b.publisher.Publish(context.Background(), "room", numbered(i+1, size)); err != nil {
			tb.Fatal(err)
		}
	}
	for _, s := range b.sinks {
		<-s.done
	}
}

func (b *burst) check(tb testing.TB, nodes ...*testNode) {
	for i, s := range b.sinks {
		if s.got.Load() != s.want || s.wrong.Load() != 0 {
			tb.Errorf("subscriber %d got %d of %d, %d out of order", i, s.got.Load(), s.want, s.wrong.Load())
		}
	}
	for i, n := range nodes {
		if d := n.Stats().Dropped; len(d) > 0 {
			tb.Errorf("node %d dropped %v", i, d)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, nodes := range []int{1, 2, 3, 4} {
		for _, size := range []int{100, 1024, 64 << 10} {
			b.Run(fmt.Sprintf("nodes=%d/subscribers=4/size=%d", nodes, size), func(b *testing.B) {
				all := make([]*testNode, nodes)
				for i := range all {
					all[i] = newNode(b)
				}
				r := newBurst(b, b.N, 4, all...)
				b.SetBytes(int64(size))
				b.ResetTimer()
				r.run(b, b.N, size)
				b.StopTimer()
				r.check(b, all...)
			})
		}
	}
}
