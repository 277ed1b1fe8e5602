package cluster

import (
	"slices"
	"testing"
	"time"
)

// A server that can't hear takes nobody for dead, however long; once it hears again,
// all others have a whole life.
func TestDeafServersTakeNobodyForDead(t *testing.T) {
	const life = 6 * time.Second
	now := time.Unix(1000, 0)
	l := newLeases("self", life)
	hear := func(names ...string) {
		for _, n := range names {
			l.heard(n, leaseEntry{}, now)
		}
	}
	tick := func(own bool, names ...string) []string {
		now = now.Add(time.Second)
		l.own(now)
		if own {
			hear("self")
		}
		hear(names...)
		return l.expire(now)
	}
	hear("self", "a", "b")
	for range 60 { // what sends the leases has died
		if dead := tick(false); dead != nil {
			t.Fatalf("%v taken for dead by one that hears nothing", dead)
		}
	}
	if !l.deaf(now.Add(2*time.Second), time.Second) {
		t.Error("it doesn't see that it is deaf")
	}
	dead, waited := []string(nil), 0
	for ; dead == nil; waited++ { // it hears again, and b is gone
		dead = tick(true, "a")
	}
	if !slices.Equal(dead, []string{"b"}) || waited != 8 {
		t.Errorf("%v after %d s; want b, a whole life after it heard again", dead, waited)
	}
	if l.deaf(now, 0) {
		t.Error("deaf although it hears")
	}
}

func TestChangesThatDoNotCome(t *testing.T) {
	var h hearing
	for i, step := range []struct {
		what string
		do   func() bool
		deaf bool
	}{
		{"a reading need not end with the last revision", func() bool { h.began(); h.came(3); return h.deaf(10) }, false},
		{"nothing new", func() bool { return h.deaf(10) }, false},
		{"new, and may be on its way", func() bool { return h.deaf(12) }, false},
		{"it has come", func() bool { h.came(11); h.came(12); return h.deaf(12) }, false},
		{"more is on its way", func() bool { return h.deaf(15) }, false},
		{"a part of it has not come", func() bool { h.came(14); return h.deaf(15) }, true},
		{"read again", func() bool { h.began(); return h.deaf(15) }, false},
		{"a bucket that was made anew", func() bool { h.began(); h.came(1); return h.deaf(1) }, false},
		{"with more in it", func() bool { h.came(2); return h.deaf(2) }, false},
		{"and more that comes late", func() bool { _ = h.deaf(3); h.came(3); return h.deaf(3) }, false},
	} {
		if got := step.do(); got != step.deaf {
			t.Errorf("step %d, %s: deaf %v", i, step.what, got)
		}
	}
}
