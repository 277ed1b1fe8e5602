package parley

import (
	"context"
	"runtime/debug"
	"time"
)

// When many pages have left, their memory is garbage that the runtime would
// keep: an idle process collects every two minutes at best, and gives back
// slowly. A desk program should be as small as it looks.
const (
	leaveQuiet = 2 * time.Second // pages that leave together count as one
	leaveShare = 2               // give back when fewer than 1/leaveShare of the pages are left
)

// giveBack returns memory to the system after many pages have left, until ctx
// ends.
func (n *Node) giveBack(ctx context.Context) {
	most := 0
	tick := time.NewTicker(leaveQuiet)
	defer tick.Stop()
	for last := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := n.backend.count()
		most = max(most, now)
		if now == last && now*leaveShare < most {
			debug.FreeOSMemory()
			most = now
		}
		last = now
	}
}
