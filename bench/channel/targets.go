package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"time"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// heap is what is in use after a collection.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func measureIdle(ctx context.Context) (string, error) {
	const channels = 10_000
	m, err := newParley(ctx, false)
	if err != nil {
		return "", err
	}
	defer m.close()
	before := heap()
	keep := make([]io.ReadWriteCloser, 0, 2*channels)
	for range channels {
		near, far, err := pair(m)
		if err != nil {
			return "", err
		}
		keep = append(keep, near, far)
	}
	each := float64(heap()-before) / (2 * channels)
	runtime.KeepAlive(keep)
	return table("Idle channels", "10,000 on one connection, each used once; both ends are in this process and counted.",
		[]string{"", "heap of one end, bytes", "target"},
		[]string{"idle channel", fmt.Sprintf("%.0f", each), "≤ 2,048: " + verdict(each <= 2048)}), nil
}

// measureIsolation compares 99 channels alone with 99 beside one whose reader
// has stopped.
func measureIsolation(ctx context.Context) (string, error) {
	rate := func(stalled bool) (float64, uint64, error) {
		m, err := newParley(ctx, false)
		if err != nil {
			return 0, 0, err
		}
		defer m.close()
		held := uint64(0)
		if _, err := small(m); err != nil { // so that buffers have their size
			return 0, 0, err
		}
		if stalled {
			near, far, err := pair(m)
			if err != nil {
				return 0, 0, err
			}
			before := heap()
			go func() {
				for msg := make([]byte, 100); ; {
					if _, err := near.Write(msg); err != nil {
						return
					}
				}
			}()
			time.Sleep(200 * time.Millisecond) // until its window is full
			if after := heap(); after > before {
				held = after - before
			}
			defer far.Close()
		}
		v, err := small(m)
		return v, held, err
	}
	var alone, beside []float64
	var held uint64
	for range rounds {
		v, _, err := rate(false)
		if err != nil {
			return "", err
		}
		alone = append(alone, v)
		v, h, err := rate(true)
		if err != nil {
			return "", err
		}
		beside = append(beside, v)
		held = max(held, h)
	}
	share := median(beside) / median(alone)
	return table("One reader that has stopped", "64-byte messages on 100 other channels of the same connection.",
		[]string{"", "value", "target"},
		[]string{"throughput of the others", fmt.Sprintf("%.0f %%", 100*share), "≥ 90 %: " + verdict(share >= 0.9)},
		[]string{"memory it holds", fmt.Sprintf("%d KiB", held>>10), "≤ 256 KiB: " + verdict(held <= 256<<10)}), nil
}

// measureGarbage sends 100,000 records a second on channels that have ended.
func measureGarbage(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	victim, err := newEnd(ctx, channel.Limits{}, nil)
	if err != nil {
		return "", err
	}
	a, b, err := tcpPair()
	if err != nil {
		return "", err
	}
	defer a.Close()
	served := make(chan error, 1)
	go func() { served <- victim.node.Serve(ctx, channel.Carrier{Stream: b, Address: "x"}) }()
	go func() { _, _ = io.Copy(io.Discard, a) }()
	nonce := [32]byte{1}
	opening := mux.AppendRecord(nil, wire.Unpacked, &mux.Message{Kind: mux.Hello, Hello: mux.Parameters{Nonce: nonce[:], Features: 3}})
	opening = mux.AppendRecord(opening, wire.Unpacked, &mux.Message{Kind: mux.Create, Channel: 1, SpaceHash: nonce[:], To: nonce[:], From: nonce[:]})
	if _, err := a.Write(opening); err != nil {
		return "", err
	}
	garbage := mux.AppendRecord(nil, wire.Unpacked, &mux.Message{Kind: mux.Content, Channel: 1, Content: make([]byte, 16)})
	cpu := cpuTime()
	start := time.Now()
	const rate, seconds = 100_000, 3
	for sent := 0; sent < rate*seconds; {
		batch := int(time.Since(start).Seconds()*rate) - sent
		if batch < 500 {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if _, err := a.Write(bytes.Repeat(garbage, batch)); err != nil {
			return "", fmt.Errorf("the victim ended the connection after %d records: %w", sent, err)
		}
		sent += batch
	}
	share := (cpuTime() - cpu).Seconds() / time.Since(start).Seconds()
	select {
	case err := <-served:
		return "", fmt.Errorf("the victim ended the connection: %w", err)
	default:
	}
	return table("Garbage", "100,000 records a second for a channel that has been refused; the attacker's own work is counted too.",
		[]string{"", "share of a core", "target"},
		[]string{"garbage ids", fmt.Sprintf("%.0f %%", 100*share), "≤ 20 %: " + verdict(share <= 0.2)}), nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
