package cluster_test

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star/cluster"
)

func setting(name, otherwise string) string {
	if text := os.Getenv(name); text != "" {
		return text
	}
	return otherwise
}

// TestSoak for ten minutes (PARLEY_SOAK_TIME) with 300 clients
// (PARLEY_SOAK_CLUSTER_CLIENTS) over three NATS servers. A star is killed every fifth
// of the time, a NATS server in between, which comes back: memory is flat.
func TestSoakForLong(t *testing.T) {
	if os.Getenv("PARLEY_LONG") == "" {
		t.Skip("minutes; set PARLEY_LONG=1")
	}
	n, err := strconv.Atoi(setting("PARLEY_SOAK_CLUSTER_CLIENTS", "300"))
	if err != nil {
		t.Fatal(err)
	}
	lasting, err := time.ParseDuration(setting("PARLEY_SOAK_TIME", "10m"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, 3, cluster.Times{}, 20*time.Second)
	var heap []int64
	started := time.Now()
	f.soak(n, lasting, func(i int) {
		heap = append(heap, heapInUse())
		t.Logf("%5.0f s: %d members, %d goroutines, heap %.1f MB, %d dials, %d failed across a kill, %d returns, %.1f MB carried",
			time.Since(started).Seconds(), len(f.nodes[0].star.Members()), runtime.NumGoroutine(), float64(heap[i])/1e6,
			f.dials.Load(), f.crossed.Load(), f.returns.Load(), float64(f.carried.Load())/1e6)
		switch {
		case i >= 8: // the end shows a cluster at rest
		case i%2 == 0:
			f.killStar()
		default:
			dead := max(f.nats.Leader("STAR_MEMBERS"), 0)
			f.killed()
			f.nats.Kill(dead)
			<-time.After(10 * time.Second)
			f.killed() // its return moves clients of NATS, too
			f.nats.Restart(dead)
		}
	})
	// A sample has what is on its way just then: medians are compared.
	first, last := slices.Sorted(slices.Values(heap[:5]))[2], slices.Sorted(slices.Values(heap[5:]))[2]
	if last > first+first/5+8<<20 {
		t.Errorf("the heap has grown from %.1f to %.1f MB", float64(first)/1e6, float64(last)/1e6)
	}
}
