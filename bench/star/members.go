package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
)

// crowd is members of an open star.
type crowd struct {
	mu  sync.Mutex
	all []*client
}

// patience is how long a crowd may take to come.
const patience = 60 * time.Second

// come connects and joins n members, some at once. Those that have come while there
// was patience are the crowd.
func (s *server) come(ctx context.Context, n int) (*crowd, error) {
	cr := &crowd{}
	late, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for k := next.Add(1); k <= int64(n) && late.Err() == nil && failed.Load() == nil; k = next.Add(1) {
				c, err := s.joined(late, address(int(k)))
				if err != nil {
					failed.Store(&err)
					return
				}
				cr.mu.Lock()
				cr.all = append(cr.all, c)
				cr.mu.Unlock()
			}
		})
	}
	wg.Wait()
	if e := failed.Load(); e != nil && late.Err() == nil {
		cr.leave()
		return nil, *e
	}
	return cr, ctx.Err()
}

func (cr *crowd) leave() {
	var wg sync.WaitGroup
	for _, c := range cr.all {
		wg.Go(c.close)
	}
	wg.Wait()
}

// measureMembers lets members come and stay, announced to each other. The original
// server does not hold as many; how far it gets is said, and what that costs.
func measureMembers(ctx context.Context, b *bench) ([]row, error) {
	rates, took, cpus, p99, each := figures{}, figures{}, figures{}, figures{}, figures{}
	count, many := map[kind]int{}, 5000
	err := b.each(ctx, setting{announce: true}, func(s *server) error {
		used, start := s.cpu(), time.Now()
		cr, err := s.come(ctx, 1000)
		if err != nil {
			return err
		}
		defer cr.leave()
		each[s.kind] = (s.cpu() - used).Seconds() / float64(len(cr.all))
		count[s.kind], rates[s.kind] = len(cr.all), float64(len(cr.all))/time.Since(start).Seconds()
		if s.kind == reference {
			cpus[reference], p99[reference], err = s.idle(ctx, 30*time.Second)
		}
		return err
	})
	if err == nil && slices.Contains(b.kinds, parley) {
		err = b.with(ctx, parley, setting{announce: true}, func(s *server) error {
			start := time.Now()
			cr, err := s.come(ctx, 5000)
			if err != nil {
				return err
			}
			defer cr.leave()
			many, took[parley] = len(cr.all), time.Since(start).Seconds()
			if err := pause(ctx, 12*time.Second); err != nil { // the first announcements are over
				return err
			}
			return b.profiled(s, "idle-5000", func() error {
				cpus[parley], p99[parley], err = s.idle(ctx, 30*time.Second)
				return err
			})
		})
	}
	rows := []row{line("1,000 members come and stay", least(2000), rates, rate),
		line("the same: server CPU per member", most(1/2000.), each, micros),
		line("5,000 members come and stay", most(10), took, seconds),
		line("5,000 idle members, announcements each 10 s", most(0.05), cpus, percent),
		line("the same: an answer by the server, p99", most(20e-3), p99, millis)}
	if n, ok := count[reference]; ok {
		with := fmt.Sprintf(" with %s members", thousands(float64(n)))
		rows[0].reference += fmt.Sprintf(" (%s in %s)", thousands(float64(n)), patience)
		rows[3].reference += with
		rows[4].reference += with
		rows[3].ratio, rows[4].ratio = "–", "–" // of different crowds
	}
	if many < 5000 { // patience has ended first
		for i := 2; i <= 4; i++ {
			rows[i].parley += fmt.Sprintf(" with %s members", thousands(float64(many)))
			rows[i].verdict = notMet
		}
	}
	return rows, err
}

// idle watches a server for a while: its CPU, and how fast it answers.
func (s *server) idle(ctx context.Context, watch time.Duration) (cpu, p99 float64, err error) {
	c, err := s.connect(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	var all sample
	used, start := s.cpu(), time.Now()
	for time.Since(start) < watch {
		asked := time.Now()
		if _, err := c.call(ctx, "ss-dial", address(1), address(2), "refused"); err != nil {
			return 0, 0, err
		}
		all = append(all, time.Since(asked))
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
	return (s.cpu() - used).Seconds() / time.Since(start).Seconds(), all.at(0.99), nil
}

// measureIdle is memory and CPU of members that do nothing but ping.
func measureIdle(ctx context.Context, b *bench) ([]row, error) {
	empty, each, cpus := figures{}, figures{}, figures{}
	err := b.each(ctx, setting{}, func(s *server) error {
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		empty[s.kind] = s.rss()
		first, err := s.come(ctx, 64) // the program itself comes into memory
		if err != nil {
			return err
		}
		first.leave()
		if _, err := s.heap(); err != nil {
			return err
		}
		before := s.rss()
		cr, err := s.come(ctx, 1000)
		if err != nil {
			return err
		}
		defer cr.leave()
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		if s.kind == parley {
			if _, err := s.ask("gc"); err != nil { // what joining needed for a while
				return err
			}
		}
		each[s.kind] = s.rss() - before
		if b.profile != "" && s.kind == parley {
			if _, err := s.ask("heap " + filepath.Join(b.profile, "idle-heap.prof")); err != nil {
				return err
			}
		}
		return b.profiled(s, "idle-1000", func() error {
			cpus[s.kind], _, err = s.idle(ctx, 26*time.Second) // a whole ping interval
			return err
		})
	})
	return []row{line("memory per 1,000 joined", most(8e6), each, mb), line("empty server", most(25e6), empty, mb),
		line("1,000 idle members, announcements off", most(0.003), cpus, percent)}, err
}

// measureMemory is what servers keep.
func measureMemory(ctx context.Context, b *bench) ([]row, error) {
	unread, dials, challenges := figures{}, figures{}, figures{}
	err := b.each(ctx, setting{}, func(s *server) error {
		held, err := s.unread(ctx)
		unread[s.kind] = held
		return err
	})
	if err == nil {
		err = b.each(ctx, setting{}, func(s *server) error {
			kept, err := s.finished(ctx, 20_000)
			dials[s.kind] = math.Round(kept / 20_000)
			return err
		})
	}
	if err == nil {
		err = b.each(ctx, setting{challenge: true}, func(s *server) error {
			kept, err := s.unfinished(ctx, 10_000)
			challenges[s.kind] = kept
			return err
		})
	}
	return []row{line("held of 512 MiB to a reader that does not read", most(1<<20), unread, mib),
		line("kept per finished dial", most(0), dials, bytes),
		line("kept of 10,000 unfinished challenges on one connection", most(16<<10), challenges, kib)}, err
}

// receipts count chunks that have left the sender.
type receipts chan struct{}

// Sent is told of each.
func (r receipts) Sent(int, int, bool) { <-r }

// unread sends up to 512 MiB to a member that reads nothing, and gives what the
// server's memory grew by.
func (s *server) unread(ctx context.Context) (held float64, err error) {
	from, to, end, err := s.two(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	block := make(chan struct{})
	defer close(block)
	to.onChunk = func(*client, []byte, int) { <-block }
	if err := from.dial(ctx, address(1), address(2), "unread"); err != nil {
		return 0, err
	}
	const size = 64 << 10
	text, data, left := chunkText("unread.dialer"), append([]byte{4}, make([]byte, size)...), make(receipts, 16)
	before := s.rss()
	for range 512 << 20 / size {
		select {
		case left <- struct{}{}:
		case <-time.After(8 * time.Second): // it is held back
			if from.sock.Err() != nil {
				return 0, fmt.Errorf("the sender's connection ended: %w", from.sock.Err())
			}
			return s.rss() - before, nil
		}
		if err := from.sock.Send(flow.Bulk, socketio.Msg{Text: text, Bin: data, Receipt: left}); err != nil {
			return 0, err
		}
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return 0, err
	}
	return s.rss() - before, nil
}

// finished dials and ends n times, and gives what is kept of that.
func (s *server) finished(ctx context.Context, n int) (float64, error) {
	from, _, end, err := s.two(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	dial := func(id string) error {
		over := from.waiter(from.ended, id+".listener")
		if err := from.dial(ctx, address(1), address(2), id); err != nil {
			return err
		}
		if err := from.emit(-1, errorWord+id+".dialer", "true"); err != nil {
			return err
		}
		select {
		case <-over:
		case <-time.After(10 * time.Second):
			return errors.New("a dial did not end")
		}
		from.forget(id + ".dialer")
		from.forget(id + ".listener")
		return nil
	}
	series := func(name string, n int) (err error) {
		for k := 0; k < n && err == nil; k++ {
			err = dial(fmt.Sprintf("%s-%d", name, k))
		}
		return err
	}
	if err := series("warm", n/2); err != nil { // buffers and tables find their size
		return 0, err
	}
	before, err := s.heap()
	if err != nil {
		return 0, err
	}
	if err := series("dial", n); err != nil {
		return 0, err
	}
	after, err := s.heap()
	return after - before, err
}

// unfinished asks for n challenges, and gives what is kept of them.
func (s *server) unfinished(ctx context.Context, n int) (float64, error) {
	who, err := newIdentity(crypto.RSA)
	if err != nil {
		return 0, err
	}
	c, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer c.close()
	ask := func(c *client, net int) (err error) {
		for k := 0; k < n && err == nil; k++ {
			addr := fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/9090/ws/p2p-websocket-star/ipfs/%s", net, k>>8, k&255, who.id)
			_, err = c.call(ctx, "ss-join", addr, who.public)
		}
		return err
	}
	other, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	err = ask(other, 8) // buffers find their size
	other.close()
	if err != nil {
		return 0, err
	}
	before, err := s.heap()
	if err != nil {
		return 0, err
	}
	if err := ask(c, 9); err != nil {
		return 0, err
	}
	after, err := s.heap()
	return after - before, err
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
