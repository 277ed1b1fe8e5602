//go:build unix

package transport_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/transport"
)

// BenchmarkThroughAStar is one stream with Noise and yamux through a star on loopback
// TCP, all of it in this process (star.md §14): µs-cpu/64KiB is of both ends and the
// star together.
func BenchmarkThroughAStar(b *testing.B) {
	at := onTCP(b)
	w := newWorld(b)
	o := onLoopback()
	o.Star = func(string) transport.StarOptions { return transport.StarOptions{} } // no budget
	here, there := w.node(o).listen(w, at), w.node(o).listen(w, at)
	here.state(at, transport.Joined)
	there.state(at, transport.Joined)
	from, to := here.connect(w, there, at)
	const chunk = 64 << 10
	read := make(chan error, 1)
	go func() {
		s, err := to.AcceptStream()
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 256<<10))
		}
		read <- err
	}()
	s, err := from.OpenStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for b.Loop() {
		if _, err := s.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	err = errors.Join(s.CloseWrite(), <-read)
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "µs-cpu/64KiB")
	if err != nil {
		b.Error(err)
	}
}

// onTCP runs a star on loopback.
func onTCP(b *testing.B) (at string) {
	srv, err := star.NewHandler(star.Options{Drain: -1})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	hs := &http.Server{Handler: srv.Handler()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(l) })
	wg.Go(func() { _ = srv.Run(ctx) })
	b.Cleanup(func() { cancel(); _ = hs.Close(); wg.Wait() })
	return "/ip4/127.0.0.1/tcp/" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + "/ws/p2p-websocket-star"
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
