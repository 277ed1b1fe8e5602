package parley

import (
	"testing"
	"time"
)

func TestMemory_PaceLeavesASmallHeapRoomAndALargeOneNoMoreThanItsSize(t *testing.T) {
	tests := map[string]struct {
		live uint64
		want int
	}{
		"nothing known yet": {0, mostPace},
		"1 MB":              {1 << 20, mostPace},
		"12 MB":             {12 << 20, 400},
		"the slack itself":  {heapSlack, 100},
		"1 GB":              {1 << 30, 100},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := paceFor(tt.live); got != tt.want {
				t.Errorf("paceFor(%d) = %d, want %d", tt.live, got, tt.want)
			}
		})
	}
}

func TestMemory_CollectsWhenQuietAndWorthIt(t *testing.T) {
	const mb = 1 << 20
	now := time.Now()
	quiet := reading{live: 10 * mb, objects: 40 * mb, allocated: 500 * mb}
	tests := map[string]struct {
		m     memory
		r     reading
		pages int
		want  int
	}{
		"garbage and quiet":             {memory{allocated: 500 * mb}, quiet, 0, 1},
		"still busy":                    {memory{allocated: 400 * mb}, quiet, 0, 0},
		"pages come":                    {memory{allocated: 500 * mb, pages: 3}, quiet, 4, 0},
		"little garbage":                {memory{allocated: 500 * mb}, reading{10 * mb, 11 * mb, 500 * mb}, 0, 0},
		"little for so large a heap":    {memory{allocated: 500 * mb}, reading{400 * mb, 430 * mb, 500 * mb}, 0, 0},
		"little, but pages have left":   {memory{allocated: 500 * mb, mostPages: 10}, reading{10 * mb, 11 * mb, 500 * mb}, 0, 2},
		"pages left after a collection": {memory{allocated: 500 * mb, mostPages: 10, rest: now.Add(time.Minute)}, quiet, 0, 2},
		"collected a moment ago":        {memory{allocated: 500 * mb, rest: now.Add(time.Second)}, quiet, 0, 0},
		"more live than objects, says":  {memory{allocated: 500 * mb}, reading{10 * mb, 5 * mb, 500 * mb}, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.m.due(tt.r, tt.pages, now); got != tt.want {
				t.Errorf("due = %d, want %d", got, tt.want)
			}
		})
	}
}

// TestMemory_PagesThatLeaveCountOnce: what is due is due until it was done, and
// then no more.
func TestMemory_PagesThatLeaveCountOnce(t *testing.T) {
	var m memory
	now := time.Now()
	r := reading{live: 100, objects: 100}
	var got []int
	for _, pages := range []int{8, 8, 3, 3, 3} {
		got = append(got, m.due(r, pages, now))
	}
	want := []int{0, 0, 0, 2, 0}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("due = %v, want %v", got, want)
		}
	}
}

func TestMemory_ReadsWhatGoTells(t *testing.T) {
	if r := readMemory(); r.objects == 0 || r.allocated < r.objects/2 {
		t.Errorf("readMemory = %+v", r)
	}
}
