package topic

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/identity"
)

var day = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

// arrival is a message at a time after day.
type arrival struct {
	at  time.Duration
	seq uint64
}

// play lets messages of one publisher arrive and gives what was passed on, and
// when (in ms).
func play(o *order, arrivals ...arrival) (passed []string) {
	from := identity.PeerID("publisher")
	note := func(ms []remoteMessage, now time.Duration) {
		for _, m := range ms {
			passed = append(passed, fmt.Sprintf("%d@%d", m.seq, now.Milliseconds()))
		}
	}
	step := func(until time.Duration) {
		for {
			_, next := o.expire(day.Add(-time.Hour), nil)
			if next.IsZero() || next.After(day.Add(until)) {
				return
			}
			out, _ := o.expire(next, nil)
			note(out, next.Sub(day))
		}
	}
	for _, a := range arrivals {
		step(a.at)
		note(o.add(remoteMessage{from: from, seq: a.seq, size: 100}, day.Add(a.at), nil), a.at)
	}
	step(time.Hour)
	return passed
}

func TestOrder(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name     string
		alert    bool
		arrivals []arrival
		want     []string
	}{
		{"in order", false, []arrival{{0, 1}, {1 * ms, 2}, {2 * ms, 3}}, []string{"1@0", "2@1", "3@2"}},
		{"gaps of other topics cost nothing", false, []arrival{{0, 1}, {1 * ms, 9}, {2 * ms, 30}}, []string{"1@0", "9@1", "30@2"}},
		{"the first late one is passed on, then gaps wait", false,
			[]arrival{{0, 1}, {1 * ms, 3}, {2 * ms, 2}, {3 * ms, 5}, {4 * ms, 4}}, []string{"1@0", "3@1", "2@2", "4@4", "5@4"}},
		{"a gap waits where paths change", true, []arrival{{0, 1}, {1 * ms, 3}, {200 * ms, 2}}, []string{"1@0", "2@200", "3@200"}},
		{"but not longer than the window", true, []arrival{{0, 1}, {1 * ms, 3}, {300 * ms, 2}}, []string{"1@0", "3@251", "2@300"}},
		{"what is before goes with it", true, []arrival{{0, 1}, {10 * ms, 9}, {20 * ms, 5}}, []string{"1@0", "5@260", "9@260"}},
		{"what comes behind those that wait, waits too", true, []arrival{{0, 1}, {900 * ms, 3}, {1050 * ms, 9}}, []string{"1@0", "3@1150", "9@1300"}},
		{"paths calm down", true, []arrival{{0, 1}, {1100 * ms, 3}}, []string{"1@0", "3@1100"}},
		{"numbers that are drawn", true, []arrival{{0, 1 << 60}, {1 * ms, 5}, {2 * ms, 1 << 40}, {3 * ms, 1 << 50}, {4 * ms, 7 << 33}, {5 * ms, 3 << 29}},
			[]string{"1152921504606846976@0", "5@1", "1099511627776@2", "1125899906842624@3", "60129542144@4", "1610612736@5"}},
		{"one key on two nodes", true, []arrival{{0, 1 << 40}, {1 * ms, 1 << 50}, {2 * ms, 1<<40 + 1}, {3 * ms, 1<<50 + 1}},
			[]string{"1099511627776@0", "1125899906842624@1", "1099511627777@2", "1125899906842625@3"}},
		{"numbers run over", true, []arrival{{0, 1<<64 - 1}, {1 * ms, 1}, {2 * ms, 0}}, []string{"18446744073709551615@0", "0@2", "1@2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrder()
			if c.alert {
				o.disturb(day)
			}
			if got := play(o, c.arrivals...); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if o.holds() {
				t.Error("still says that it holds something")
			}
		})
	}
}

// TestOrderWithinTheWindow: messages that come at most 250 ms after those behind
// them leave in order, whatever the shuffle, each once.
func TestOrderWithinTheWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "messages")
		arrivals := []arrival{{0, 1000}}
		for i := 1; i <= n; i++ {
			sent := time.Duration(i) * 5 * time.Millisecond
			late := time.Duration(rapid.IntRange(0, 249).Draw(t, "late")) * time.Millisecond
			arrivals = append(arrivals, arrival{sent + late, 1000 + uint64(i)})
		}
		slices.SortStableFunc(arrivals, func(a, b arrival) int { return int(a.at - b.at) })
		o := newOrder()
		o.alert = day.Add(time.Hour)
		got := play(o, arrivals...)
		if len(got) != n+1 {
			t.Fatalf("passed on %d of %d", len(got), n+1)
		}
		for i, text := range got {
			var seq, at int
			if _, err := fmt.Sscanf(text, "%d@%d", &seq, &at); err != nil || seq != 1000+i {
				t.Fatalf("place %d has %s of %v", i, text, got)
			}
		}
	})
}

func TestOrderIsBounded(t *testing.T) {
	o := newOrder()
	o.alert = day.Add(time.Hour)
	o.add(remoteMessage{from: "p", seq: 1}, day, nil)
	passed := 0
	for i := range 2 * orderHeld {
		passed += len(o.add(remoteMessage{from: "p", seq: uint64(3 + 2*i), size: 10}, day, nil))
	}
	if held := len(o.publishers["p"].sequences[0].held); held > orderHeld || held+passed != 2*orderHeld {
		t.Errorf("holds %d, passed on %d", held, passed)
	}
	for range 3 {
		o.add(remoteMessage{from: "p", seq: uint64(10 * orderHeld), size: orderHeldBytes}, day, nil)
	}
	if b := o.publishers["p"].sequences[0].bytes; b > orderHeldBytes {
		t.Errorf("holds %d bytes", b)
	}
	for i := range orderPublishers + 100 {
		o.add(remoteMessage{from: identity.PeerID(fmt.Sprint(i)), seq: 1}, day.Add(time.Duration(i)), nil)
	}
	if len(o.publishers) > orderPublishers {
		t.Errorf("follows %d publishers", len(o.publishers))
	}
	if _, there := o.publishers["p"]; !there {
		t.Error("forgot the publisher whose messages it holds")
	}
}

func TestAbuse34_ReplayOfOldMessages(t *testing.T) {
	o := newOrder()
	at := func(d time.Duration, seq uint64) int {
		return len(o.add(remoteMessage{from: "p", seq: seq}, day.Add(d), nil))
	}
	for i := range 40 { // one every 5 s, as the router lets them through
		if at(time.Duration(i)*5*time.Second, uint64(100+i)) != 1 {
			t.Fatalf("message %d was refused", i)
		}
	}
	now := 200 * time.Second
	for i := range 40 {
		age := now - time.Duration(i)*5*time.Second
		if age < 120*time.Second {
			break // the router still knows it
		}
		if at(now, uint64(100+i)) != 0 {
			t.Errorf("a message of %v ago was taken again", age)
		}
	}
	if at(now, 140) != 1 {
		t.Error("a new one was refused")
	}
	if at(now+time.Hour, 135) != 0 || at(now+time.Hour, 141) != 1 {
		t.Error("after a long silence old ones are taken, or new ones are not")
	}
	if o.replayed == 0 {
		t.Error("replays weren't counted")
	}
}
