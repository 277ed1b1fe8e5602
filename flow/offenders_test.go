package flow

import (
	"testing"
	"time"
)

var offencesBegin = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

func TestOffenders(t *testing.T) {
	rule := Offences{Count: 3, Within: time.Minute, Refusal: time.Minute, Most: 3 * time.Minute}
	type step struct {
		at      time.Duration
		offends bool // else it only asks
		refused bool // by this offence, or at this time
	}
	const s, m = time.Second, time.Minute
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"the third within the window", []step{{0, true, false}, {30 * s, true, false}, {59 * s, false, false}, {m, true, true},
			{m, false, true}, {2*m - 1, false, true}, {2 * m, false, false}}},
		{"the window is over", []step{{0, true, false}, {s, true, false}, {m + 1, true, false}, {m + 2, true, false}, {m + 3, true, true}}},
		{"each refusal is longer, up to the most", []step{
			{0, true, false}, {0, true, false}, {0, true, true}, {m - 1, false, true}, {m, false, false},
			{m, true, false}, {m, true, false}, {m, true, true}, {3*m - 1, false, true}, {3 * m, false, false},
			{3 * m, true, false}, {3 * m, true, false}, {3 * m, true, true}, {6*m - 1, false, true}, {6 * m, false, false}}},
		{"who behaves begins anew", []step{
			{0, true, false}, {0, true, false}, {0, true, true}, {m, true, false}, {m, true, false}, {m, true, true},
			{6*m + 1, true, false}, {6*m + 1, true, false}, {6*m + 1, true, true}, {7 * m, false, true}, {7*m + 1, false, false}}},
		{"the count begins anew with a refusal", []step{{0, true, false}, {s, true, false}, {2 * s, true, true},
			{70 * s, true, false}, {100 * s, true, false}, {125 * s, true, true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := NewOffenders[string](rule, 10)
			for i, step := range c.steps {
				now := offencesBegin.Add(step.at)
				got := false
				if step.offends {
					got = o.Offend("evil", now)
				} else {
					got = o.Refused("evil", now)
				}
				if got != step.refused {
					t.Fatalf("step %d at %v: %v", i, step.at, got)
				}
				if o.Refused("good", now) {
					t.Fatal("another is refused")
				}
			}
		})
	}
}

// A flood of names holds no more than the table, and who is refused is the last
// to be forgotten of those that are as old.
func TestOffendersAreBounded(t *testing.T) {
	o := NewOffenders[int](Offences{Count: 1, Within: time.Minute, Refusal: time.Minute, Most: time.Minute}, 100)
	now := offencesBegin
	for i := range 1000 {
		now = now.Add(time.Millisecond)
		o.Offend(i, now)
		if o.Len() > 100 {
			t.Fatalf("%d names are held", o.Len())
		}
	}
	if o.Refused(899, now) || !o.Refused(900, now) || !o.Refused(999, now) {
		t.Error("not the oldest were forgotten")
	}
	o.Offend(-1, now.Add(time.Hour))
	if o.Len() != 1 {
		t.Errorf("%d names are held when their refusals are long over", o.Len())
	}
}
