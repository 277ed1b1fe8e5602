package conn

import (
	"io"
	"sync"
	"testing"
)

// wide are limits that let a benchmark open as many channels as it likes.
var wide = Limits{Channels: 100_000, CreateRate: 1e9, CreateBurst: 1e9, ErrorRate: 1e9}

func benchPair(b *testing.B) *pair {
	x, y := tcpPair(b)
	return connect(b, x, y, wide)
}

func BenchmarkBulk(b *testing.B) {
	p := benchPair(b)
	near, far := p.open(b, ids)
	msg := make([]byte, 65536)
	b.SetBytes(int64(len(msg)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for left := b.N * len(msg); left > 0; {
			n, err := far.Read(buf)
			if err != nil {
				b.Error(err)
				return
			}
			left -= n
		}
	}()
	b.ResetTimer()
	for range b.N {
		if _, err := near.Write(msg); err != nil {
			b.Fatal(err)
		}
	}
	<-done
}

func BenchmarkSmall100(b *testing.B) {
	p := benchPair(b)
	const channels = 100
	var wg sync.WaitGroup
	msg := make([]byte, 64)
	per := b.N/channels + 1
	b.SetBytes(64)
	var nears, fars []*Stream
	for range channels {
		near, far := p.open(b, ids)
		nears, fars = append(nears, near), append(fars, far)
	}
	b.ResetTimer()
	for i := range channels {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for range per {
				if err := nears[i].Send(b.Context(), msg); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		go func() {
			defer wg.Done()
			buf := make([]byte, 64)
			for range per {
				if _, err := io.ReadFull(fars[i], buf); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	b.ReportMetric(float64(per*channels)/b.Elapsed().Seconds(), "msgs/s")
}

func BenchmarkEcho(b *testing.B) {
	p := benchPair(b)
	near, far := p.open(b, ids)
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			far.Write(buf[:n])
		}
	}()
	buf := make([]byte, 64)
	for b.Loop() {
		near.Write(buf)
		if _, err := io.ReadFull(near, buf); err != nil {
			b.Fatal(err)
		}
	}
	near.Close()
}

func BenchmarkOpenEchoClose(b *testing.B) {
	p := benchPair(b)
	go func() {
		for s := range p.hb.accepted {
			buf := make([]byte, 64)
			n, err := s.Read(buf)
			if err != nil {
				b.Error(err)
				return
			}
			s.Write(buf[:n])
		}
	}()
	buf := make([]byte, 64)
	b.ResetTimer()
	for range b.N {
		s, err := p.a.Open(b.Context(), ids)
		if err != nil {
			b.Fatal(err)
		}
		s.Write(buf)
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	b.StopTimer()
	close(p.hb.accepted)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}
