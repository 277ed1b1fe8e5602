package conn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// tap stands between two connections, passes records on with a delay, and keeps
// the books of every channel's credit, independent of both ends.
type tap struct {
	delay  time.Duration
	mu     sync.Mutex
	credit [2]map[uint32]int64 // by direction of contents: what may still be sent
	faults []string
	wg     sync.WaitGroup
}

// between wires two carriers together through the tap.
func (p *tap) between(a, b net.Conn) {
	p.credit = [2]map[uint32]int64{{}, {}}
	p.wg.Add(2)
	go p.pass(0, a, b)
	go p.pass(1, b, a)
}

type delayed struct {
	at  time.Time
	rec []byte
}

func (p *tap) pass(dir int, from, to net.Conn) {
	defer p.wg.Done()
	queue := make(chan delayed, 10_000)
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for d := range queue {
			<-time.After(time.Until(d.at))
			if _, err := to.Write(d.rec); err != nil {
				from.Close()
			}
		}
		to.Close()
	}()
	defer close(queue)
	rd := wire.NewReader(from, 64<<10)
	for {
		n, err := rd.Size()
		if err != nil {
			return
		}
		rec, err := rd.Record()
		if err != nil {
			return
		}
		var m mux.Message
		if err := mux.Decode(rec, &m); err != nil {
			p.fault("undecodable record: %v", err)
			return
		}
		p.count(dir, &m)
		queue <- delayed{time.Now().Add(p.delay), append(wire.AppendSize(nil, n), rec...)}
	}
}

func (p *tap) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

func (p *tap) count(dir int, m *mux.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Kind {
	case mux.Create: // tests leave the windows at their defaults
		p.credit[dir][m.Channel], p.credit[1-dir][m.Channel] = ownWindow, ownWindow
	case mux.Window:
		if p.credit[1-dir][m.Channel] += int64(m.Window); p.credit[1-dir][m.Channel] > MaxCredit {
			p.fault("channel %d: %d bytes of credit", m.Channel, p.credit[1-dir][m.Channel])
		}
	case mux.Content:
		if p.credit[dir][m.Channel] -= cost(len(m.Content)); p.credit[dir][m.Channel] < 0 {
			p.fault("channel %d: %d bytes over its window", m.Channel, -p.credit[dir][m.Channel])
		}
	case mux.Error:
		p.fault("error %v on %d: %s", m.Code, m.Channel, m.Text)
	}
}

// plan is what one channel of the property test carries.
type plan struct {
	Sizes   []int // contents, one way
	Back    []int // and the other way
	Stalled bool  // nobody reads them
	Stream  bool  // read as a stream
}

func drawPlans(t *rapid.T) []plan {
	size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 20_000), rapid.Just(65_536), rapid.Just(0))
	sizes := rapid.SliceOfN(size, 0, 15)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) plan {
		return plan{Sizes: sizes.Draw(t, "sizes"), Back: sizes.Draw(t, "back"),
			Stalled: rapid.IntRange(0, 3).Draw(t, "stalled") == 0, Stream: rapid.Bool().Draw(t, "stream")}
	}), 1, 5).Draw(t, "channels")
}

// TestFlowControlProperty: whatever is sent, at no time is more under way than
// the window, everything arrives in order, and channels whose reader has stalled
// keep nothing from the others. A deadlock would stop the bubble.
func TestFlowControlProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plans := drawPlans(rt)
		delay := rapid.SampledFrom([]time.Duration{0, 100 * time.Microsecond, 30 * time.Millisecond}).Draw(rt, "delay")
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = runPlans(t, plans, delay) })
		if len(faults) > 0 {
			rt.Fatalf("%d faults, the first: %s", len(faults), faults[0])
		}
	})
}

func runPlans(t *testing.T, plans []plan, delay time.Duration) []string {
	a, tapA := net.Pipe()
	tapB, b := net.Pipe()
	p := &tap{delay: delay}
	p.between(tapA, tapB)
	pr := connect(t, a, b, Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg, stalled sync.WaitGroup
	for i, plan := range plans {
		near, err := pr.a.Open(ctx, ids)
		if err != nil {
			return []string{err.Error()}
		}
		if err := near.WaitAccepted(ctx); err != nil {
			return []string{err.Error()}
		}
		far := <-pr.hb.accepted
		group := &wg
		if plan.Stalled {
			group = &stalled
		}
		group.Add(2)
		go func() { defer group.Done(); p.send(ctx, near, i, plan.Sizes, plan.Stalled) }()
		go func() { defer group.Done(); p.send(ctx, far, -i-1, plan.Back, plan.Stalled) }()
		if !plan.Stalled {
			wg.Add(2)
			go func() { defer wg.Done(); p.receive(ctx, far, i, plan.Sizes, plan.Stream) }()
			go func() { defer wg.Done(); p.receive(ctx, near, -i-1, plan.Back, plan.Stream) }()
		}
	}
	wg.Wait()
	cancel()
	stalled.Wait()
	pr.a.Close()
	pr.b.Close()
	a.Close()
	b.Close()
	p.wg.Wait()
	return p.faults
}

// filled makes the bytes of content k of a channel.
func filled(channel, k, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(channel), uint64(k)))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func (p *tap) send(ctx context.Context, s *Stream, channel int, sizes []int, stalled bool) {
	for k, n := range sizes {
		if err := s.Send(ctx, filled(channel, k, n)); err != nil && !(stalled && errors.Is(err, context.Canceled)) {
			p.lockedFault("channel %d, content %d: send: %v", channel, k, err)
		}
	}
}

func (p *tap) receive(ctx context.Context, s *Stream, channel int, sizes []int, stream bool) {
	for k, n := range sizes {
		var got []byte
		var err error
		if stream {
			got = make([]byte, n)
			_, err = io.ReadFull(s, got)
		} else {
			got, err = s.Receive(ctx)
		}
		if err != nil || string(got) != string(filled(channel, k, n)) {
			p.lockedFault("channel %d, content %d: received %d bytes, %v; want %d", channel, k, len(got), err, n)
			return
		}
	}
}

func (p *tap) lockedFault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault(format, args...)
}

// TestTurns looks at the records themselves: with contents of three channels
// queued, every round has one of each.
func TestTurns(t *testing.T) {
	c := New(nopCarrier{}, newConfig(true, Limits{}), newAcceptAll())
	c.setPeer(peer{window: defaultWindow, maxContent: defaultContent, maxChannels: 10}, [32]byte{})
	for range 3 {
		s, err := c.Open(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		for k := range 4 {
			if err := s.Send(t.Context(), []byte{byte(k)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.mu.Lock()
	c.collect()
	out := append([]byte{}, c.out...)
	c.mu.Unlock()
	var got []string
	for len(out) > 0 {
		n, taken, err := wire.ParseSize(out)
		if err != nil {
			t.Fatal(err)
		}
		var m mux.Message
		if err := mux.Decode(out[taken:taken+n], &m); err != nil {
			t.Fatal(err)
		}
		out = out[taken+n:]
		switch m.Kind {
		case mux.Content:
			got = append(got, fmt.Sprintf("%d:%d", m.Channel, m.Content[0]))
		default:
			got = append(got, fmt.Sprintf("kind %d", m.Kind))
		}
	}
	want := "[kind 8 kind 1 kind 1 kind 1 1:0 3:0 5:0 1:1 3:1 5:1 1:2 3:2 5:2 1:3 3:3 5:3]"
	if fmt.Sprint(got) != want {
		t.Errorf("left as %v, want %s", got, want)
	}
}

// nopCarrier takes everything and gives nothing.
type nopCarrier struct{}

func (nopCarrier) Read([]byte) (int, error)    { return 0, io.EOF }
func (nopCarrier) Write(p []byte) (int, error) { return len(p), nil }
func (nopCarrier) Close() error                { return nil }

// TestWindowGrows: on a long path with a fast reader the window grows, so that
// throughput is not bound to a window a round trip.
func TestWindowGrows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, tapA := net.Pipe()
		tapB, b := net.Pipe()
		p := &tap{delay: 25 * time.Millisecond}
		p.between(tapA, tapB)
		pr := connect(t, a, b, Limits{})
		near, far := pr.open(t, ids)
		const size, total = 32 << 10, 32 << 20
		go func() {
			for range total / size {
				if err := near.Send(t.Context(), make([]byte, size)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		start := time.Now()
		for range total / size {
			if _, err := far.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		took := time.Since(start)
		// With 256 KiB a round trip of 50 ms it would take 6.4 s.
		if took > 3*time.Second {
			t.Errorf("32 MiB took %v", took)
		}
		if far.window != 4<<20 {
			t.Errorf("window %d, want 4 MiB", far.window)
		}
		if len(p.faults) > 0 {
			t.Error(p.faults[0])
		}
		pr.a.Close()
		pr.b.Close()
		p.wg.Wait()
	})
}

// TestStalledReader: it holds 256 KiB of memory and no more, whatever the contents
// are, and the others don't notice.
func TestStalledReader(t *testing.T) {
	for _, size := range []int{1, 32, 33, 64, 1000, 1025, 15_361, 16_384, 40_000, 65_536} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			bubble(t, func(t *testing.T) { stallReader(t, size) })
		})
	}
}

func stallReader(t *testing.T, size int) {
	a, b := net.Pipe()
	p := connect(t, a, b, Limits{})
	slow, stalled := p.open(t, ids)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for slow.Send(ctx, make([]byte, size)) == nil {
		}
	}()
	synctest.Wait()
	if n := stalled.unread; n > ownWindow || n+cost(size) <= ownWindow {
		t.Errorf("holds %d bytes of credit", n)
	}
	held := 0
	for c := stalled.rx.head; c != nil; c = c.next {
		held += cap(c.buf) + int(unsafe.Sizeof(*c))
	}
	if held > 256<<10 {
		t.Errorf("holds %d bytes of memory", held)
	}
	for range 99 {
		near, far := p.open(t, ids)
		if err := near.Send(t.Context(), make([]byte, 60_000)); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
