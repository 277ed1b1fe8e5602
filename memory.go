package parley

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The heap of a node is small, and Go collects a small heap often: at 10 MB of
// live memory and 100 MB/s of messages ten times a second, a fifth of all time
// and more.
// So a busy node may leave more garbage before it collects; and a node that has
// become quiet collects at once and gives the memory back, for a desk program
// should be as small as it looks. Measured in docs/decisions/0010.
const (
	memoryTick = time.Second
	heapSlack  = 48 << 20 // garbage that a busy node may leave, or as much as is live
	mostPace   = 1000     // percent of garbage, however little is live
	quietRate  = 2 << 20  // bytes allocated in a tick below which a node is quiet
	worthwhile = 6 << 20  // garbage that is worth a collection, or an eighth of what is live
	leaveShare = 2        // it is at once when fewer than 1/leaveShare of the pages are left
	restFactor = 100      // a collection may take this part of the time
)

// memory tends the memory of the process, as far as the collector's settings of
// the environment (GOGC, GOMEMLIMIT) leave it to parley.
type memory struct {
	pace      int       // percent of garbage, as the collector was told; 0: not yet
	allocated uint64    // bytes, since the start, at the last tick
	pages     int       // at the last tick
	mostPages int       // since the last collection
	rest      time.Time // not before it is the next collection
}

// reading is what Go tells of its memory, in bytes.
type reading struct {
	live      uint64 // found by the last collection
	objects   uint64 // live and garbage
	allocated uint64 // since the start
}

// tendMemory runs until ctx ends. The settings are the process's, so only a
// program whose process is the node's has it (Config.OwnsProcess).
func (n *Node) tendMemory(ctx context.Context) {
	if !n.cfg.OwnsProcess || os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	var m memory
	for {
		r := readMemory()
		if pace := paceFor(r.live); m.pace == 0 || pace*8 < m.pace*7 || pace*7 > m.pace*8 {
			m.pace = pace
			debug.SetGCPercent(pace)
		}
		now := time.Now()
		if times := m.due(r, n.backend.count(), now); times > 0 {
			for range times {
				debug.FreeOSMemory()
			}
			m.rest = time.Now().Add(restFactor * time.Since(now))
			m.allocated = readMemory().allocated
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// paceFor is how much garbage may be left, in percent of what is live.
func paceFor(live uint64) int {
	return int(min(mostPace, max(100, heapSlack*100/max(live, 1))))
}

// due is how often to collect now: not at all unless nothing goes on and it is
// worth it; twice when pages have left, for pools let go at the second time.
func (m *memory) due(r reading, pages int, now time.Time) (times int) {
	still := r.allocated-m.allocated < quietRate && pages == m.pages
	m.allocated, m.pages, m.mostPages = r.allocated, pages, max(m.mostPages, pages)
	garbage := r.objects - min(r.live, r.objects)
	left := pages*leaveShare < m.mostPages
	rested := !now.Before(m.rest) && garbage >= max(worthwhile, r.live/8)
	switch {
	case still && left:
		times = 2
	case still && rested:
		times = 1
	default:
		return 0
	}
	m.mostPages = pages
	return times
}

// readMemory stops nothing, and takes some microseconds.
func readMemory() reading {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return reading{live: s[0].Value.Uint64(), objects: s[1].Value.Uint64(), allocated: s[2].Value.Uint64()}
}
