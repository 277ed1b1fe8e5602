package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	rounds    = 5 // of each measurement; the median counts
	roundTime = 600 * time.Millisecond
	piece     = 64 << 10
)

// figures are one multiplexer's medians.
type figures struct{ bulk, small, echo, churn float64 }

func measureMuxers(ctx context.Context) (string, error) {
	all, err := muxers(ctx)
	if err != nil {
		return "", err
	}
	results := make([]figures, len(all))
	for _, m := range []struct {
		run  func(*muxer) (float64, error)
		into func(*figures) *float64
	}{
		{bulk, func(f *figures) *float64 { return &f.bulk }},
		{small, func(f *figures) *float64 { return &f.small }},
		{echo, func(f *figures) *float64 { return &f.echo }},
		{churn, func(f *figures) *float64 { return &f.churn }},
	} {
		values := make([][]float64, len(all))
		for range rounds {
			for i, mux := range all { // in turns
				v, err := m.run(mux)
				if err != nil {
					return "", fmt.Errorf("%s: %w", mux.name, err)
				}
				values[i] = append(values[i], v)
			}
		}
		for i := range all {
			*m.into(&results[i]) = median(values[i])
		}
	}
	var rows [][]string
	for i, m := range all {
		m.close()
		f := results[i]
		rows = append(rows, []string{m.name, fmt.Sprintf("%.0f", f.bulk/(1<<20)), fmt.Sprintf("%.0f", f.small/1000),
			fmt.Sprintf("%.1f", f.echo*1e6), fmt.Sprintf("%.1f", f.churn/1000)})
	}
	f := results[0]
	rows = append(rows, []string{"target", "≥ 1,024: " + verdict(f.bulk >= 1<<30), "≥ 400: " + verdict(f.small >= 400e3),
		"≤ 15: " + verdict(f.echo <= 15e-6), "≥ 40: " + verdict(f.churn >= 40e3)})
	return table("Channels beside stream multiplexers",
		"One TCP connection on loopback, medians of "+fmt.Sprint(rounds)+" rounds in turns. \"Unproven\" is what the others do: nobody proves who "+
			"he is. \"Proven\" signs and checks two ed25519 signatures at each end of every channel that opens, and waits a round trip for it.",
		[]string{"", "one channel, MiB/s", "64 B on 100 channels, 1,000/s", "echo of 64 B, p50 µs", "open, echo, close, 1,000/s"}, rows...), nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// pair opens a stream and gives both ends. Some multiplexers show a stream to
// the other end with its first byte only.
func pair(m *muxer) (near, far io.ReadWriteCloser, err error) {
	if near, err = m.open(); err != nil {
		return nil, nil, err
	}
	if _, err = near.Write([]byte{1}); err != nil {
		return nil, nil, err
	}
	if far, err = m.accept(); err != nil {
		return nil, nil, err
	}
	_, err = io.ReadFull(far, make([]byte, 1))
	return near, far, err
}

// bulk is bytes a second over one stream.
func bulk(m *muxer) (float64, error) {
	near, far, err := pair(m)
	if err != nil {
		return 0, err
	}
	got := make(chan int64, 1)
	go func() {
		n, _ := io.CopyBuffer(io.Discard, struct{ io.Reader }{far}, make([]byte, piece))
		got <- n
	}()
	msg := make([]byte, piece)
	start := time.Now()
	for time.Since(start) < roundTime {
		if _, err := near.Write(msg); err != nil {
			return 0, err
		}
	}
	near.Close()
	n := <-got
	took := time.Since(start)
	far.Close()
	return float64(n) / took.Seconds(), nil
}

// small is messages of 64 bytes a second over 100 streams, one way.
func small(m *muxer) (float64, error) {
	const streams = 100
	var mu sync.Mutex
	var total int64
	var failed error
	var wg sync.WaitGroup
	var nears []io.ReadWriteCloser
	for range streams {
		near, far, err := pair(m)
		if err != nil {
			return 0, err
		}
		nears = append(nears, near)
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := make([]byte, 64)
			n := int64(0)
			for {
				if _, err := io.ReadFull(far, buf); err != nil {
					break
				}
				n++
			}
			far.Close()
			mu.Lock()
			total += n
			mu.Unlock()
		}()
	}
	start := time.Now()
	for _, near := range nears {
		wg.Add(1)
		go func() {
			defer wg.Done()
			msg := make([]byte, 64)
			for time.Since(start) < roundTime {
				if _, err := near.Write(msg); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					break
				}
			}
			near.Close()
		}()
	}
	wg.Wait()
	return float64(total) / time.Since(start).Seconds(), failed
}

// echo is the median round trip in seconds.
func echo(m *muxer) (float64, error) {
	near, far, err := pair(m)
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		echoAll(far)
	}()
	buf := make([]byte, 64)
	var times []time.Duration
	for start := time.Now(); time.Since(start) < roundTime; {
		t := time.Now()
		if _, err := near.Write(buf); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(near, buf); err != nil {
			return 0, err
		}
		times = append(times, time.Since(t))
	}
	near.Close()
	<-done
	slices.Sort(times)
	return times[len(times)/2].Seconds(), nil
}

func echoAll(s io.ReadWriteCloser) {
	buf := make([]byte, 64)
	for {
		n, err := s.Read(buf)
		if err != nil {
			break
		}
		if _, err := s.Write(buf[:n]); err != nil {
			break
		}
	}
	s.Close()
}

// churn is how often a second a stream is opened, echoes 64 bytes and closes.
func churn(m *muxer) (float64, error) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, err := m.accept()
			if err != nil {
				return
			}
			go echoAll(s)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	n := 0
	once := func() error {
		s, err := m.open()
		if err != nil {
			return err
		}
		buf := make([]byte, 64)
		if _, err := s.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(s, buf); err != nil {
			return err
		}
		n++
		return s.Close()
	}
	start := time.Now()
	for time.Since(start) < roundTime {
		if err := once(); err != nil {
			return 0, err
		}
	}
	rate := float64(n) / time.Since(start).Seconds()
	close(stop)
	if err := once(); err != nil { // ends the accepting loop
		return 0, err
	}
	<-done
	return rate, nil
}
