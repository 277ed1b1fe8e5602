package flow

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWindow(10)
		if !w.TryTake(4) || w.Credit() != 6 {
			t.Fatalf("credit %d", w.Credit())
		}
		order := make(chan int, 2)
		take := func(n int64, name int) {
			if err := w.Take(t.Context(), n); err == nil {
				order <- name
			}
		}
		go take(8, 1)
		synctest.Wait()
		go take(1, 2) // would fit, but waits its turn
		synctest.Wait()
		if w.TryTake(1) {
			t.Error("passed those who wait")
		}
		if !w.Give(2, 100) || <-order != 1 {
			t.Error("the first did not get its credit first")
		}
		if w.Give(100, 100) && w.Credit() > 100 {
			t.Error("credit above the limit")
		}
		if !w.Give(1, 100) || <-order != 2 {
			t.Error("the second did not get its credit")
		}
	})
}

func TestWindowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWindow(0)
		ctx, giveUp := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		go func() { errs <- w.Take(ctx, 5) }()
		synctest.Wait()
		go func() { errs <- w.Take(t.Context(), 1) }()
		synctest.Wait()
		if !w.Give(1, 10) {
			t.Fatal("Give")
		}
		giveUp() // the one behind it fits then
		for range 2 {
			if err := <-errs; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if w.Credit() != 0 {
			t.Errorf("credit %d", w.Credit())
		}
		go func() { errs <- w.Take(t.Context(), 1) }()
		synctest.Wait()
		w.Close(errTest)
		if err := <-errs; !errors.Is(err, errTest) {
			t.Error(err)
		}
		if err := w.Take(t.Context(), 0); !errors.Is(err, errTest) {
			t.Error(err)
		}
	})
}

// TestWindowIsKept: what was taken is never more than what was given.
func TestWindowIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 1000
		first := rapid.Int64Range(0, limit).Draw(t, "first")
		w, balance := NewWindow(first), first
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := rapid.Int64Range(0, limit).Draw(t, "n")
				if ok := w.TryTake(n); ok != (balance >= n) {
					t.Fatalf("TryTake(%d) of %d: %v", n, balance, ok)
				} else if ok {
					balance -= n
				}
			},
			"give": func(t *rapid.T) {
				n := rapid.Int64Range(-5, limit).Draw(t, "n")
				if ok := w.Give(n, limit); ok != (n >= 0 && balance+n <= limit) {
					t.Fatalf("Give(%d) on %d: %v", n, balance, ok)
				} else if ok {
					balance += n
				}
			},
			"": func(t *rapid.T) {
				if w.Credit() != balance {
					t.Fatalf("credit %d, want %d", w.Credit(), balance)
				}
			},
		})
	})
}

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	b := NewBucket(10, 5)
	for range 5 {
		if ok, _ := b.Allow(1, now); !ok {
			t.Fatal("refused within the burst")
		}
	}
	ok, retry := b.Allow(1, now)
	if ok || retry != 100*time.Millisecond {
		t.Errorf("over the burst: %v, again after %v", ok, retry)
	}
	if ok, _ := b.Allow(1, now.Add(retry)); !ok {
		t.Error("refused after the time it named")
	}
	if ok, retry := b.Allow(6, now.Add(time.Hour)); ok || retry != 0 {
		t.Errorf("more than the bucket ever holds: %v, %v", ok, retry)
	}
	if ok, _ := b.Allow(5, now.Add(time.Hour)); !ok {
		t.Error("an hour does not fill the bucket")
	}
	if ok, _ := b.Allow(1, now.Add(-time.Hour)); ok {
		t.Error("a clock that goes back must not fill the bucket")
	}
}

func TestBucketsAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	table := NewBuckets[int](1, 2, 3)
	for key := range 100 {
		table.Allow(key, 1, now)
	}
	if table.Len() != 3 {
		t.Errorf("%d keys", table.Len())
	}
	allowed := 0
	for key := 1000; key < 1100; key++ {
		if ok, _ := table.Allow(key, 1, now); ok {
			allowed++
		}
	}
	if allowed > 2 {
		t.Errorf("%d new keys got in though the table is full: they share one bucket", allowed)
	}
	if ok, _ := table.Allow(2000, 1, now.Add(time.Minute)); !ok || table.Len() > 3 {
		t.Errorf("full buckets were not forgotten: %v, %d keys", ok, table.Len())
	}
}
