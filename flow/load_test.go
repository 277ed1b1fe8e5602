package flow

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDroppedLeaveNoMemory: a reader that never pops costs what the bound says,
// however much is dropped for it.
func TestDroppedLeaveNoMemory(t *testing.T) {
	for _, kept := range []int{0, 1, 50} {
		q := NewQueue[int](100)
		for i := range kept {
			if err := q.TryPush(Bulk, -1-i, 1); err != nil {
				t.Fatal(err)
			}
		}
		const flood = 10_000
		for i := range flood {
			if _, err := q.PushDroppable(i, 1); err != nil {
				t.Fatal(err)
			}
		}
		r := &q.classes[Bulk]
		if len(r.buf) > 4*100 || cap(r.droppable) > 8*100 {
			t.Errorf("with %d kept: %d slots and %d positions for 100 items", kept, len(r.buf), cap(r.droppable))
		}
		got, err := q.TryPop(1000, nil)
		if err != nil || len(got) != 100 {
			t.Fatalf("popped %d, %v", len(got), err)
		}
		for i, n := range got {
			if want := flood - 100 + i; i < kept && n != -1-i || i >= kept && n != want {
				t.Errorf("with %d kept: place %d has %d", kept, i, n)
				break
			}
		}
	}
}

// TestBucketRate: never more is allowed than burst and rate give, and what was
// refused is allowed after the time that was named.
func TestBucketRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.1, 1e6).Draw(t, "rate")
		burst := rapid.Float64Range(1, 1e6).Draw(t, "burst")
		b, start := NewBucket(rate, burst), time.Unix(1000, 0)
		now, spent := start, 0.0
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "pause")))
			n := rapid.Float64Range(0, burst).Draw(t, "n")
			ok, retry := b.Allow(n, now)
			for tries := 0; !ok; tries++ { // rounding may ask for another nanosecond
				if retry <= 0 || tries > 3 {
					t.Fatalf("try %d of %v: again after %v", tries, n, retry)
				}
				now = now.Add(retry)
				ok, retry = b.Allow(n, now)
			}
			spent += n
			if most := burst + rate*now.Sub(start).Seconds(); spent > most*(1+1e-9) {
				t.Fatalf("allowed %v of %v", spent, most)
			}
		}
	})
}

// TestQueueUnderLoad: with many who push and some who give up, what was taken
// comes out once, each pusher's in its order, and nobody is forgotten.
func TestQueueUnderLoad(t *testing.T) {
	const pushers, each, limit = 8, 300, 50
	type item struct{ from, n int }
	q := NewQueue[item](limit)
	var all sync.WaitGroup
	taken := make([][]int, pushers)
	for from := range pushers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(from)))
			for n := range each {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(3) == 0 {
					go cancel() // now, or while it waits
				}
				if q.Push(ctx, Class(from%2), item{from, n}, 1+random.IntN(20)) == nil {
					taken[from] = append(taken[from], n)
				}
				cancel()
			}
		})
	}
	popped := make([][]int, pushers)
	var popping sync.WaitGroup
	popping.Go(func() {
		var batch []item
		var err error
		for {
			if bytes := q.Bytes(); bytes > limit {
				t.Errorf("holds %d bytes", bytes)
			}
			if batch, err = q.Pop(t.Context(), 30, batch[:0]); err != nil {
				return
			}
			for _, i := range batch {
				popped[i.from] = append(popped[i.from], i.n)
			}
		}
	})
	all.Wait()
	q.Close(errTest)
	popping.Wait()
	for from := range pushers {
		if !slices.Equal(taken[from], popped[from]) {
			t.Errorf("pusher %d: %d were taken, %d came out, or in another order", from, len(taken[from]), len(popped[from]))
		}
	}
}

// TestWindowUnderLoad: credit is neither lost nor made where takers give up, and
// whoever waits gets its turn.
func TestWindowUnderLoad(t *testing.T) {
	const takers, each, credit = 8, 300, 10
	w := NewWindow(credit)
	var all sync.WaitGroup
	for from := range takers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(from)))
			for range each {
				n := int64(1 + random.IntN(credit))
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(3) == 0 {
					go cancel()
				}
				if w.Take(ctx, n) == nil && !w.Give(n, credit) {
					t.Errorf("%d taken can't be given back", n)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if got := w.Credit(); got != credit {
		t.Errorf("credit is %d, was %d", got, credit)
	}
}
