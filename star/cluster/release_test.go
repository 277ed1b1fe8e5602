package cluster

import (
	"testing"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star"
)

// A place that is given back takes with it what was written for it, also where the
// star doesn't know the latest epoch yet, and never what another server has written:
// to purge revision 0 is to purge any.
func TestReleaseTakesItsOwn(t *testing.T) {
	const place = "/dns4/star/tcp/1/ws/p2p-webrtc-star/p2p/A"
	key := keyOf(place)
	for _, tt := range []struct {
		name  string
		own   claim
		epoch uint64
		want  job
		kept  bool
	}{
		{"the latest", claim{rev: 7}, 7, job{kind: jobPurge, key: key, rev: 7}, false},
		{"one before it", claim{rev: 7}, 3, job{kind: jobPurge, key: key, rev: 3}, true},
		{"a bucket that was made anew", claim{}, 0, job{kind: jobStray, key: key}, false},
		{"the same, and the star doesn't know", claim{}, 7, job{kind: jobStray, key: key}, false},
		{"written again, and the star doesn't know", claim{rev: 9, again: true, was: 7}, 7, job{kind: jobPurge, key: key, rev: 9}, false},
		{"written anew, and the star doesn't know", claim{rev: 9, again: true}, 0, job{kind: jobPurge, key: key, rev: 9}, false},
		{"of a claim before this one", claim{rev: 9}, 0, job{kind: jobStray, key: key}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Cluster{table: newMembers("self"), jobs: flow.NewQueue[job](1 << 10)}
			tt.own.Claim = star.Claim{Place: place}
			c.table.own[key] = &tt.own
			c.Release(place, tt.epoch)
			if jobs, _ := c.jobs.TryPop(1, nil); len(jobs) != 1 || jobs[0] != tt.want {
				t.Errorf("jobs %+v, want %+v", jobs, tt.want)
			}
			if kept := c.table.own[key] != nil; kept != tt.kept {
				t.Errorf("the claim is kept: %v", kept)
			}
		})
	}
}
