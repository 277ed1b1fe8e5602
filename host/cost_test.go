//go:build unix

package host

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/parley-p2p/parley/network"
)

// allInterfaces is what a node has by default, without asking routers.
func allInterfaces() Config { return Config{NoNAT: true} }

func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(entries) - 1 // the directory itself
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// A page has at most four descriptors and a bounded number of goroutines, and
// both are given back (gateway.md §5.1, G-R5).
func TestG_R5_PageCost(t *testing.T) {
	n := newNode(t, allInterfaces())
	newPage(t, n).Close() // what is made once
	baseG, baseFD := settled(t), descriptors(t)
	const count = 20
	pages := make([]*Page, count)
	for i := range pages {
		pages[i] = newPage(t, n)
	}
	fds := float64(descriptors(t)-baseFD) / count
	goroutines := float64(runtime.NumGoroutine()-baseG) / count
	t.Logf("a page: %.1f descriptors, %.1f goroutines", fds, goroutines)
	if fds > 4 {
		t.Errorf("%.1f descriptors a page, want at most 4", fds)
	}
	if goroutines > 30 {
		t.Errorf("%.1f goroutines a page, want at most 30", goroutines)
	}
	for _, p := range pages {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	g, fd := runtime.NumGoroutine(), descriptors(t)
	for ctx := deadline(t); (g > baseG || fd > baseFD) && ctx.Err() == nil; g, fd = runtime.NumGoroutine(), descriptors(t) {
		<-time.After(10 * time.Millisecond) // what was closed ends in its own time
	}
	if g > baseG {
		t.Errorf("%d goroutines after closing, %d before", g, baseG)
	}
	if fd > baseFD {
		t.Errorf("%d descriptors after closing, %d before", fd, baseFD)
	}
}

// settled waits until the number of goroutines stays the same for a while.
func settled(t testing.TB) int {
	t.Helper()
	last, same := runtime.NumGoroutine(), 0
	for ctx := deadline(t); same < 20 && ctx.Err() == nil; {
		<-time.After(10 * time.Millisecond)
		now := runtime.NumGoroutine()
		if same++; now != last {
			same = 0
		}
		last = now
	}
	return last
}

// BenchmarkPageCost prints what pages cost: bytes (heap and stacks in use),
// goroutines, descriptors, time to make, and CPU while idle.
func BenchmarkPageCost(b *testing.B) {
	for _, count := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for b.Loop() {
				n := newNode(b, allInterfaces())
				newPage(b, n).Close()
				mem, g, fd := heap(), settled(b), descriptors(b)
				start := time.Now()
				for range count {
					newPage(b, n)
				}
				made := time.Since(start)
				per := func(total float64) float64 { return total / float64(count) }
				b.ReportMetric(per(float64(heap()-mem)), "B/page")
				b.ReportMetric(per(float64(runtime.NumGoroutine()-g)), "goroutines/page")
				b.ReportMetric(per(float64(descriptors(b)-fd)), "fds/page")
				b.ReportMetric(per(float64(made.Microseconds())), "µs/page")
				b.ReportMetric(idleCPU(5*time.Second)*100, "%cpu-idle")
				start = time.Now()
				_ = n.Close()
				b.ReportMetric(per(float64(time.Since(start).Microseconds())), "µs-close/page")
				debug.FreeOSMemory()
			}
		})
	}
}

// idleCPU is the share of one core that the process uses during d.
func idleCPU(d time.Duration) float64 {
	used := func() time.Duration {
		var r syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
			return 0
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	before := used()
	timer := time.NewTimer(d)
	<-timer.C
	return float64(used()-before) / float64(d)
}

// BenchmarkRoundTrip compares the ways between two pages by one 64-byte message
// there and back on an open stream.
func BenchmarkRoundTrip(b *testing.B) {
	through := loopback()
	through.PageListen = []string{}
	for _, bb := range []struct {
		name     string
		cfg      Config
		sameNode bool
	}{{"direct tcp", loopback(), false}, {"through the node", through, false}, {"same node", loopback(), true}} {
		b.Run(bb.name, func(b *testing.B) {
			na := newNode(b, bb.cfg)
			nb := na
			if !bb.sameNode {
				nb = newNode(b, bb.cfg)
			}
			x, y := newPage(b, na), newPage(b, nb)
			y.Handle(echo, echoHandler)
			tell(x.endpoint, y.Local(), y.Addrs())
			s, err := x.Open(deadline(b), y.Local(), echo)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Reset()
			benchEcho(b, s)
		})
	}
}

func benchEcho(b *testing.B, s network.Stream) {
	msg, got := make([]byte, 64), make([]byte, 64)
	for b.Loop() {
		if _, err := s.Write(msg); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(got); {
			k, err := s.Read(got[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
}

// BenchmarkOpen is a stream to a connected page: opened, agreed on, and closed.
func BenchmarkOpen(b *testing.B) {
	na, nb := newNode(b, loopback()), newNode(b, loopback())
	x, y := newPage(b, na), newPage(b, nb)
	y.Handle(echo, func(_ context.Context, s network.Stream) { _ = s.Close() })
	tell(x.endpoint, y.Local(), y.Addrs())
	ctx := deadline(b)
	for b.Loop() {
		s, err := x.Open(ctx, y.Local(), echo)
		if err != nil {
			b.Fatal(err)
		}
		_ = s.Close()
	}
}

// BenchmarkConnect is the first stream between two pages of two nodes that know
// each other: dial, handshake, stream.
func BenchmarkConnect(b *testing.B) {
	through := loopback()
	through.PageListen = []string{}
	for name, cfg := range map[string]Config{"direct tcp": loopback(), "through the node": through} {
		b.Run(name, func(b *testing.B) {
			na, nb := newNode(b, cfg), newNode(b, cfg)
			y := newPage(b, nb)
			y.Handle(echo, echoHandler)
			if err := na.net.Connect(deadline(b), nb.Local()); err == nil {
				b.Fatal("connected without an address")
			}
			tell(na.net, nb.Local(), nb.Addrs())
			if err := na.Connect(deadline(b), nb.Local()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				x := newPage(b, na)
				tell(x.endpoint, y.Local(), y.Addrs())
				b.StartTimer()
				s, err := x.Open(deadline(b), y.Local(), echo)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_ = s.Reset()
				_ = x.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkBulk carries 64 KiB writes one way.
func BenchmarkBulk(b *testing.B) {
	through := loopback()
	through.PageListen = []string{}
	for _, bb := range []struct {
		name     string
		cfg      Config
		sameNode bool
	}{{"direct tcp", loopback(), false}, {"through the node", through, false}, {"same node", loopback(), true}} {
		b.Run(bb.name, func(b *testing.B) {
			na := newNode(b, bb.cfg)
			nb := na
			if !bb.sameNode {
				nb = newNode(b, bb.cfg)
			}
			x, y := newPage(b, na), newPage(b, nb)
			done := make(chan int64, 1)
			y.Handle("/sink", func(_ context.Context, s network.Stream) {
				n, _ := io.Copy(io.Discard, s)
				_ = s.Close()
				done <- n
			})
			tell(x.endpoint, y.Local(), y.Addrs())
			s, err := x.Open(deadline(b), y.Local(), "/sink")
			if err != nil {
				b.Fatal(err)
			}
			block := make([]byte, 64<<10)
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if _, err := s.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			_ = s.CloseWrite()
			<-done
		})
	}
}
