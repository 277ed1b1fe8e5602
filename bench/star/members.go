package main

import (
	"context"
	"errors"
	"fmt"
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

// come connects and joins n members, some at once.
func (s *server) come(ctx context.Context, n int) (*crowd, error) {
	cr := &crowd{}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for k := next.Add(1); k <= int64(n) && failed.Load() == nil; k = next.Add(1) {
				c, err := s.joined(ctx, address(int(k)))
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
	if e := failed.Load(); e != nil {
		cr.leave()
		return nil, *e
	}
	return cr, nil
}

func (cr *crowd) leave() {
	var wg sync.WaitGroup
	for _, c := range cr.all {
		wg.Go(c.close)
	}
	wg.Wait()
}

// measureMembers lets members come and stay, announced to each other.
func measureMembers(ctx context.Context, b *bench) ([]row, error) {
	rates := figures{}
	err := b.each(ctx, setting{announce: true}, func(s *server) error {
		start := time.Now()
		cr, err := s.come(ctx, 1000)
		if err != nil {
			return err
		}
		rates[s.kind] = 1000 / time.Since(start).Seconds()
		cr.leave()
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows := []row{line("1,000 members come and stay", "≥ 2,000 /s", rates, rate, true)}
	took, cpus, p99 := figures{}, figures{}, figures{}
	if !has(parley) {
		return rows, nil
	}
	err = b.with(ctx, parley, setting{announce: true}, func(s *server) error {
		start := time.Now()
		cr, err := s.come(ctx, 5000)
		if err != nil {
			return err
		}
		defer cr.leave()
		took[parley] = time.Since(start).Seconds()
		time.Sleep(12 * time.Second) // the first announcements are over
		return b.profiled(s, "idle-5000", func() error {
			cpus[parley], p99[parley], err = s.idle(ctx, 30*time.Second)
			return err
		})
	})
	seconds := func(v float64) string { return trim(v) + " s" }
	return append(rows, line("5,000 members come and stay", "≤ 10 s", took, seconds, false),
		line("5,000 idle members, announcements each 10 s: of a core", "≤ 5 %", cpus, percent, false),
		line("the same: an answer by the server, p99", "≤ 20 ms", p99, millis, false)), err
}

func has(k kind) bool {
	for _, have := range kinds {
		if have == k {
			return true
		}
	}
	return false
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
		time.Sleep(100 * time.Millisecond)
	}
	return (s.cpu() - used).Seconds() / time.Since(start).Seconds(), all.at(0.99), nil
}

// measureIdle is memory and CPU of members that do nothing but ping.
func measureIdle(ctx context.Context, b *bench) ([]row, error) {
	empty, each, cpus := figures{}, figures{}, figures{}
	err := b.each(ctx, setting{}, func(s *server) error {
		time.Sleep(2 * time.Second)
		empty[s.kind] = s.rss()
		cr, err := s.come(ctx, 1000)
		if err != nil {
			return err
		}
		defer cr.leave()
		if s.kind == parley {
			if _, err := s.ask("gc"); err != nil { // what joining needed for a while
				return err
			}
		}
		time.Sleep(3 * time.Second)
		each[s.kind] = s.rss() - empty[s.kind]
		cpus[s.kind], _, err = s.idle(ctx, 26*time.Second) // a whole ping interval
		return err
	})
	return []row{line("memory per 1,000 joined", "≤ 8 MB", each, mb, false), line("empty server", "≤ 25 MB", empty, mb, false),
		line("1,000 idle members, announcements off: of a core", "≤ 0.3 %", cpus, percent, false)}, err
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
			dials[s.kind] = kept / 20_000
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
	kb := func(v float64) string { return thousands(v/1e3) + " kB" }
	return []row{line("held of 512 MiB to a reader that does not read", "≤ 1 MiB", unread, mb, false),
		line("kept per finished dial", "0 B", dials, bytes, false),
		line("kept of 10,000 unfinished challenges on one connection", "≤ 16 kB", challenges, kb, false)}, err
}

// receipts count chunks that have left the sender.
type receipts chan struct{}

// Sent is told of each.
func (r receipts) Sent(int, int, bool) { <-r }

// unread sends up to 512 MiB to a member that reads nothing, and gives what the
// server's memory grew by.
func (s *server) unread(ctx context.Context) (held float64, err error) {
	from, err := s.joined(ctx, address(1))
	if err != nil {
		return 0, err
	}
	defer from.close()
	to, err := s.joined(ctx, address(2))
	if err != nil {
		return 0, err
	}
	block := make(chan struct{})
	to.onChunk = func(*client, []byte, int) { <-block }
	defer to.close()
	defer close(block)
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
	time.Sleep(3 * time.Second)
	return s.rss() - before, nil
}

// finished dials and ends n times, and gives what is kept of that.
func (s *server) finished(ctx context.Context, n int) (float64, error) {
	from, err1 := s.joined(ctx, address(1))
	to, err2 := s.joined(ctx, address(2))
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	defer from.close()
	defer to.close()
	dial := func(k int) error {
		id := fmt.Sprintf("dial-%d", k)
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
	for k := range 500 {
		if err := dial(-k - 1); err != nil {
			return 0, err
		}
	}
	before, err := s.heap()
	for k := 0; k < n && err == nil; k++ {
		err = dial(k)
	}
	if err != nil {
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
	before, err := s.heap()
	for k := 0; k < n && err == nil; k++ {
		_, err = c.call(ctx, "ss-join", fmt.Sprintf("/ip4/10.9.%d.%d/tcp/9090/ws/p2p-websocket-star/ipfs/%s", k>>8, k&255, who.id), who.public)
	}
	if err != nil {
		return 0, err
	}
	after, err := s.heap()
	return after - before, err
}
