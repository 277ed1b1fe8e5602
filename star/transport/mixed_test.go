//go:build unix

package transport_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/internal/npmtest"
)

// C-1: a node and an original client on parley's server, each dialling the other: one
// has the extensions, the other not. Then the same on two servers of a cluster.
func TestC_1_MixedClients(t *testing.T) {
	for name, servers := range map[string]int{"one server": 1, "two servers of a cluster": 2} {
		t.Run(name, func(t *testing.T) {
			eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
				var stars []*star.Server
				var hosts []string
				nats := ""
				if servers > 1 {
					nats = natstest.Start(t, 1).URL()
					w = newWorld(t) // which ends first
				}
				for range servers {
					srv := w.onLoopback(nats)
					stars, hosts = append(stars, srv), append(hosts, strings.TrimPrefix(srv.URI(), "http://"))
				}
				host, port, _ := net.SplitHostPort(w.balance(hosts))
				at := "/ip4/" + host + "/tcp/" + port + "/ws/p2p-websocket-star"
				rawStreams(t, w, stack, at, at)
				for i, srv := range stars {
					if n := srv.Stats(); servers > 1 && n.Sessions != 1 {
						t.Errorf("server %d has %d clients, not one each", i, n.Sessions)
					}
				}
			})
		})
	}
}

// onLoopback starts a star on a port of its own; nats is its cluster's, or empty.
func (w *world) onLoopback(nats string) *star.Server {
	w.t.Helper()
	o, ready := star.Options{Host: "127.0.0.1", Drain: -1}, func() bool { return true }
	if nats != "" {
		// Longer than a busy machine needs: an original client doesn't try again.
		times := cluster.Times{Life: time.Minute, Renew: time.Second, Claim: 30 * time.Second}
		shared, err := cluster.New(w.t.Context(), cluster.Options{URL: nats, Times: times})
		if err != nil {
			w.t.Fatal(err)
		}
		o.Registry, ready = shared, shared.Ready
	}
	srv, err := star.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Run(ctx); err != nil {
			w.t.Errorf("star: %v", err)
		}
	})
	w.atEnd(func() { cancel(); running.Wait() })
	eventually(w.t, "it takes joins", ready)
	return srv
}

// balance is one name for several servers: each connection goes to the next of them.
func (w *world) balance(hosts []string) (addr string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for i := 0; ; i++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := (&net.Dialer{}).DialContext(ctx, "tcp", hosts[i%len(hosts)])
			if err != nil {
				_ = in.Close()
				continue
			}
			both := func() { _, _ = in.Close(), out.Close() }
			context.AfterFunc(ctx, both)
			running.Go(func() { defer both(); _, _ = io.Copy(in, out) })
			running.Go(func() { defer both(); _, _ = io.Copy(out, in) })
		}
	})
	w.atEnd(func() { _ = l.Close(); cancel(); running.Wait() })
	return l.Addr().String()
}

// eventually waits for what another goroutine brings about.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
