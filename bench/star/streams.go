package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
)

// transfer is what one run carried.
type transfer struct {
	perSecond  float64       // chunks
	cpuPerUnit float64       // seconds of the server's CPU a chunk
	took       time.Duration // in all
}

// pair is two members of an open star with streams from one to the other.
type pair struct {
	s        *server
	from, to *client
	window   chan struct{} // chunks on their way
	got      atomic.Int64
	want     int64
	all      chan struct{}
	close    func()
}

// inFlight bounds the chunks on their way, so that none waits in a server without
// bounds.
func inFlight(size int) int { return min(max(4<<20/size, 8), 2048) }

func (s *server) pair(ctx context.Context, size int) (*pair, error) {
	p := &pair{s: s, window: make(chan struct{}, inFlight(size)), all: make(chan struct{}, 1)}
	var err error
	if p.from, p.to, p.close, err = s.two(ctx); err != nil {
		return nil, err
	}
	p.to.onChunk = func(*client, []byte, int) {
		<-p.window
		if p.got.Add(1) == p.want {
			p.all <- struct{}{}
		}
	}
	return p, nil
}

// carry sends count chunks of a size, in turns over the streams.
func (p *pair) carry(ctx context.Context, streams []string, size, count int) (transfer, error) {
	texts := make([][]byte, len(streams))
	for i, id := range streams {
		texts[i] = chunkText(id + ".dialer")
	}
	data := make([]byte, size+1)
	data[0] = 4
	p.got.Store(0)
	p.want = int64(count)
	cpu, start := p.s.cpu(), time.Now()
	for i := range count {
		select {
		case p.window <- struct{}{}:
		case <-time.After(30 * time.Second):
			return transfer{}, fmt.Errorf("stuck after %d of %d chunks: %w", p.got.Load(), count, p.from.sock.Err())
		}
		if err := p.from.sock.Send(flow.Bulk, socketio.Msg{Text: texts[i%len(texts)], Bin: data}); err != nil {
			return transfer{}, err
		}
	}
	select {
	case <-p.all:
	case <-time.After(30 * time.Second):
		return transfer{}, fmt.Errorf("%d of %d chunks came", p.got.Load(), count)
	case <-ctx.Done():
		return transfer{}, ctx.Err()
	}
	took := time.Since(start)
	return transfer{perSecond: float64(count) / took.Seconds(), cpuPerUnit: (p.s.cpu() - cpu).Seconds() / float64(count), took: took}, nil
}

// throughput is the median of runs over n streams; each carries for about 1 s.
func (b *bench) throughput(ctx context.Context, s *server, n, size int) (t transfer, err error) {
	p, err := s.pair(ctx, size)
	if err != nil {
		return t, err
	}
	defer p.close()
	streams := make([]string, n)
	for i := range streams {
		streams[i] = fmt.Sprintf("%d-%d", size, i)
		if err := p.from.dial(ctx, address(1), address(2), streams[i]); err != nil {
			return t, err
		}
	}
	warm, err := p.carry(ctx, streams, size, max(n, min(2000, 64<<20/size)))
	if err != nil {
		return t, err
	}
	var rates, cpus []float64
	err = b.profiled(s, fmt.Sprintf("stream-%d-%d", n, size), func() error {
		for range b.runs {
			got, err := p.carry(ctx, streams, size, max(int(warm.perSecond), 64))
			if err != nil {
				return err
			}
			rates, cpus = append(rates, got.perSecond), append(cpus, got.cpuPerUnit)
		}
		return nil
	})
	return transfer{perSecond: median(rates), cpuPerUnit: median(cpus)}, err
}

func measureMessages(ctx context.Context, b *bench) ([]row, error) {
	var rows []row
	for _, m := range []struct {
		size      int
		cpu, rate goal
	}{{100, most(4e-6, 4), least(200e3)}, {1 << 10, most(6e-6, 4), least(150e3)}} {
		cpus, rates := figures{}, figures{}
		err := b.each(ctx, setting{}, func(s *server) error {
			t, err := b.throughput(ctx, s, 1, m.size)
			cpus[s.kind], rates[s.kind] = t.cpuPerUnit, t.perSecond
			return err
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, line(fmt.Sprintf("server CPU per message of %d B", m.size), m.cpu, cpus, micros),
			line(fmt.Sprintf("messages of %d B", m.size), m.rate, rates, rate))
	}
	return rows, nil
}

func measureStreams(ctx context.Context, b *bench) ([]row, error) {
	var rows []row
	for _, m := range []struct {
		n, size   int
		cpu, rate goal // none: no row
	}{
		{1, 64 << 10, most(45e-6, 8), least(600e6)}, {1, 512 << 10, most(330e-6), goal{}},
		{1, 16 << 10, goal{}, least(350e6)}, {100, 16 << 10, goal{}, least(400e6)},
	} {
		cpus, rates := figures{}, figures{}
		err := b.each(ctx, setting{}, func(s *server) error {
			t, err := b.throughput(ctx, s, m.n, m.size)
			cpus[s.kind], rates[s.kind] = t.cpuPerUnit, t.perSecond*float64(m.size)
			return err
		})
		if err != nil {
			return nil, err
		}
		if m.cpu != (goal{}) {
			rows = append(rows, line(fmt.Sprintf("server CPU per chunk of %d KiB", m.size>>10), m.cpu, cpus, micros))
		}
		if m.rate != (goal{}) {
			rows = append(rows, line(fmt.Sprintf("%s, chunks of %d KiB", map[int]string{1: "one stream", 100: "100 streams at once"}[m.n], m.size>>10), m.rate, rates, mbs))
		}
	}
	return rows, nil
}

// measureRoundTrip sends 100 B there and back, one after another.
func measureRoundTrip(ctx context.Context, b *bench) ([]row, error) {
	p50, p99 := figures{}, figures{}
	err := b.each(ctx, setting{}, func(s *server) error {
		from, to, end, err := s.two(ctx)
		if err != nil {
			return err
		}
		defer end()
		data := append([]byte{4}, make([]byte, 100)...)
		there, back := chunkText("rt.dialer"), chunkText("rt.listener")
		arrived := make(chan struct{}, 1)
		to.onChunk = func(c *client, _ []byte, _ int) { _ = c.sock.Send(flow.Bulk, socketio.Msg{Text: back, Bin: data}) }
		from.onChunk = func(*client, []byte, int) { arrived <- struct{}{} }
		if err := from.dial(ctx, address(1), address(2), "rt"); err != nil {
			return err
		}
		var all sample
		for i := range 1000 + 4000*b.runs {
			start := time.Now()
			if err := from.sock.Send(flow.Bulk, socketio.Msg{Text: there, Bin: data}); err != nil {
				return err
			}
			select {
			case <-arrived:
			case <-time.After(30 * time.Second):
				return fmt.Errorf("no echo: %w", from.sock.Err())
			}
			if i >= 1000 {
				all = append(all, time.Since(start))
			}
		}
		p50[s.kind], p99[s.kind] = all.at(0.5), all.at(0.99)
		return nil
	})
	return []row{line("round trip of 100 B, p50", most(60e-6), p50, micros),
		line("round trip of 100 B, p99", most(250e-6), p99, micros)}, err
}

// measureDials dials one after another, then 64 at once; each dial is ended.
func measureDials(ctx context.Context, b *bench) ([]row, error) {
	p50, p99, rates := figures{}, figures{}, figures{}
	err := b.each(ctx, setting{}, func(s *server) error {
		from, _, end, err := s.two(ctx)
		if err != nil {
			return err
		}
		defer end()
		var next atomic.Int64
		one := func() (time.Duration, error) {
			id := fmt.Sprintf("dial-%d", next.Add(1))
			start := time.Now()
			args, err := from.call(ctx, "ss-dial", address(1), address(2), id)
			took := time.Since(start)
			if err == nil && len(args) > 0 && string(args[0]) != "null" {
				err = fmt.Errorf("dial: %s", args)
			}
			return took, orEnd(err, from, id)
		}
		var all sample
		for i := range 2500 {
			took, err := one()
			if err != nil {
				return err
			}
			if i >= 500 {
				all = append(all, took)
			}
		}
		p50[s.kind], p99[s.kind] = all.at(0.5), all.at(0.99)
		rates[s.kind], _, err = b.atOnce(s, 64, 3000, func() error { _, err := one(); return err })
		return err
	})
	return []row{line("dial to answer, p50", most(0.2e-3), p50, millis), line("dial to answer, p99", most(1e-3), p99, millis),
		line("dials, 64 at once", least(20e3), rates, rate)}, err
}

// orEnd ends both streams of a dial.
func orEnd(err error, from *client, id string) error {
	if err != nil {
		return err
	}
	if err = from.emit(-1, acceptWord+id+".listener"); err == nil {
		err = from.emit(-1, errorWord+id+".dialer", "true")
	}
	from.forget(id + ".dialer")
	return err
}

// atOnce does count units in n goroutines, in some runs; the rate and the server's
// CPU time a unit are medians.
func (b *bench) atOnce(s *server, n, count int, unit func() error) (perSecond, cpu float64, err error) {
	var rates, cpus []float64
	for range b.runs {
		var wg sync.WaitGroup
		var failed atomic.Pointer[error]
		used, start := s.cpu(), time.Now()
		for range n {
			wg.Go(func() {
				for range count / n {
					if err := unit(); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		wg.Wait()
		if e := failed.Load(); e != nil {
			return 0, 0, *e
		}
		done := float64(count / n * n)
		rates, cpus = append(rates, done/time.Since(start).Seconds()), append(cpus, (s.cpu()-used).Seconds()/done)
	}
	return median(rates), median(cpus), nil
}
