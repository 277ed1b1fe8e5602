package topic

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestG_D11_BurstsArriveWholeAndInOrder: as fast as the publisher can, to four
// subscribers, on one node and between several.
func TestG_D11_BurstsArriveWholeAndInOrder(t *testing.T) {
	for nodes := 1; nodes <= 3; nodes++ {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			all := make([]*testNode, nodes)
			for i := range all {
				all[i] = newNode(t)
			}
			count := scaled(3000)
			b := newBurst(t, count, 4, all...)
			b.run(t, count, 100)
			b.check(t, all...)
		})
	}
}

// TestShortQueues: nothing is lost where the queues are far too short for the
// burst, because publishers wait.
func TestShortQueues(t *testing.T) {
	nodes := []*testNode{newNodeWithQueue(t, 64), newNodeWithQueue(t, 64)}
	count := scaled(3000)
	b := newBurst(t, count, 2, nodes...)
	b.run(t, count, 100)
	b.check(t, nodes...)
}

// TestManyPublishers: each publisher's order holds at every subscriber, and
// nothing is lost or doubled, when many publish at once from everywhere.
func TestManyPublishers(t *testing.T) {
	nodes := []*testNode{newNode(t), newNode(t), newNode(t)}
	publishers, each := 6, scaled(300)
	b := newBurst(t, publishers*each, 4, nodes...)
	var all sync.WaitGroup
	for i := range publishers {
		p := nodes[i%len(nodes)].Join(newKey(t), newSink())
		all.Go(func() {
			for j := range each {
				if err := p.Publish(context.Background(), "room", numbered(j+1, 100)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, s := range b.sinks {
		<-s.done
	}
	b.check(t, nodes...)
}

// TestLine: publications reach a node that is not connected to the publisher's,
// in order, once the node between has both in its mesh.
func TestLine(t *testing.T) {
	a, b, c := newNode(t), newNode(t), newNode(t)
	connect(t, a, b)
	connect(t, b, c)
	near, middle, far := a.page(t), b.page(t), c.page(t)
	for _, p := range []*page{near, middle, far} {
		p.subscribe(t, "room")
	}
	middle.untilMember(t, "room", near.id, true)
	middle.untilMember(t, "room", far.id, true)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for meshed := false; !meshed; {
		near.publish(t, "room", `"probe"`)
		select {
		case <-far.changed:
			meshed = slices.Contains(far.texts(), `"probe"`)
		case <-tick.C:
		}
	}
	count := scaled(1000)
	for i := range count {
		near.publish(t, "room", fmt.Sprint(i))
	}
	last := fmt.Sprint(count - 1)
	far.until(t, "the last one", func() bool { return slices.Contains(far.texts(), last) })
	got := slices.DeleteFunc(far.texts(), func(s string) bool { return s == `"probe"` })
	for i, text := range got {
		if text != fmt.Sprint(i) {
			t.Fatalf("place %d of %d has %s", i, len(got), text)
		}
	}
}

// slowSink is behind until it is eased.
type slowSink struct {
	*sink
	mu     sync.Mutex
	behind chan struct{}
}

func (s *slowSink) Behind() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind == nil {
		return nil
	}
	return s.behind
}

func (s *slowSink) ease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.behind)
	s.behind = nil
}

// TestG_D10_SlowPageSlowsPublishers: publishers wait for a page that is behind;
// one that hangs is waited for once, and then drops its oldest, which is its
// session's to tell.
func TestG_D10_SlowPageSlowsPublishers(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	slow := &slowSink{sink: newSink(), behind: make(chan struct{})}
	p := n.Join(newKey(t), slow)
	if _, err := p.Subscribe(context.Background(), "room", nil); err != nil {
		t.Fatal(err)
	}
	a.publish(t, "room", "1")
	slow.untilCount(t, 1)

	second := make(chan error, 1)
	go func() { second <- a.Page.Publish(context.Background(), "room", jsonText("2")) }()
	select {
	case err := <-second:
		if len(slow.texts()) < 2 { // it only goes on by patience, and then it has been delivered
			t.Errorf("went on while the page was behind: %v", err)
		}
	default:
	}
	slow.ease()
	if err := <-second; err != nil {
		t.Error(err)
	}
	slow.untilCount(t, 2)

	slow.mu.Lock()
	slow.behind = make(chan struct{}) // never closed: it hangs
	slow.mu.Unlock()
	const more = 3000 // at slowPatience each this would take minutes
	for i := range more {
		a.publish(t, "room", fmt.Sprint(3+i))
	}
	slow.untilCount(t, 2+more)
}

var _ Pacer = (*slowSink)(nil)
var _ Sink = (*countingSink)(nil)
