//go:build unix

package star_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star"
)

func setting(name, otherwise string) string {
	if text := os.Getenv(name); text != "" {
		return text
	}
	return otherwise
}

// 5,000 clients for 10 minutes (PARLEY_SOAK_CLIENTS, PARLEY_SOAK_TIME), over real
// connections to a star in this process: memory is flat and nothing is lost. Each
// has an exchange a minute (PARLEY_SOAK_PAUSE), and one in five comes back behind
// it: more than that is more than both halves on two cores can carry in time.
func TestSoakForLong(t *testing.T) {
	if os.Getenv("PARLEY_LONG") == "" {
		t.Skip("minutes; set PARLEY_LONG=1")
	}
	n, err := strconv.Atoi(setting("PARLEY_SOAK_CLIENTS", "5000"))
	if err != nil {
		t.Fatal(err)
	}
	lasting, err := time.ParseDuration(setting("PARLEY_SOAK_TIME", "10m"))
	if err != nil {
		t.Fatal(err)
	}
	pause, err := time.ParseDuration(setting("PARLEY_SOAK_PAUSE", "1m"))
	if err != nil {
		t.Fatal(err)
	}
	o := soaking
	o.Host = "127.0.0.1"
	srv, err := star.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	base, err := url.Parse(srv.URI())
	if err != nil {
		t.Fatal(err)
	}
	// Connections that polls share are let go here before the star does so, which gives one 10 s for its first header, also
	// where a dial was overtaken and nobody needs it yet: a POST on one that is just being closed is lost.
	tr := &http.Transport{MaxIdleConns: 1 << 20, MaxIdleConnsPerHost: 1 << 20, IdleConnTimeout: 5 * time.Second}
	k := &soak{client: &http.Client{Transport: tr}, base: base, pause: pause, fail: t.Errorf}
	var heap []int64
	started, cpu := time.Now(), cpuTime(t)
	k.run(t, n, lasting, func(i int) {
		heap = append(heap, heapInUse())
		s := srv.Stats()
		t.Logf("%5.0f s: %d members, %d goroutines, heap %.1f MB, %d dials, %d returns, %.1f MB carried, held %d, CPU %.0f s",
			time.Since(started).Seconds(), s.Members, runtime.NumGoroutine(), float64(heap[i])/1e6, k.dials.Load(), k.returns.Load(),
			float64(k.carried.Load())/1e6, s.Streams.Held, (cpuTime(t) - cpu).Seconds())
	})
	// A sample has what is on its way just then: medians are compared.
	first, last := slices.Sorted(slices.Values(heap[:5]))[2], slices.Sorted(slices.Values(heap[5:]))[2]
	if last > first+first/5+4<<20 {
		t.Errorf("the heap has grown from %.1f to %.1f MB", float64(first)/1e6, float64(last)/1e6)
	}
	for _, m := range regexp.MustCompile(`(?m)^parley_star_(?:limit_hits|stream_resets|dropped|refused)_total.* [1-9].*$`).FindAllString(srv.Metrics(), -1) {
		t.Log(m)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	tr.CloseIdleConnections()
	if s := srv.Stats(); s.Members != 0 || s.Sessions != 0 || s.Streams.Dials != 0 || s.Streams.Held != 0 {
		t.Errorf("left: %+v", s)
	}
}

// cpuTime is what this process has taken so far.
func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
