package flow

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

var errTest = errors.New("closed by the test")

func TestQueueOrder(t *testing.T) {
	q := NewQueue[string](100)
	push := func(c Class, item string) {
		if err := q.TryPush(c, item, 1); err != nil {
			t.Fatal(err)
		}
	}
	push(Bulk, "b1")
	push(Control, "c1")
	push(Bulk, "b2")
	push(Control, "c2")
	got, err := q.TryPop(100, nil)
	if want := []string{"c1", "c2", "b1", "b2"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("popped %v, %v; want %v", got, err, want)
	}
}

func TestQueuePolicies(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, q *Queue[int])
	}{
		{"full refuses", func(t *testing.T, q *Queue[int]) {
			if err := q.TryPush(Bulk, 4, 1); !errors.Is(err, ErrFull) {
				t.Errorf("TryPush: %v", err)
			}
		}},
		{"answers always get in", func(t *testing.T, q *Queue[int]) {
			if err := q.PushAlways(Control, 4, 5); err != nil || q.Bytes() != 15 {
				t.Errorf("%v, %d bytes", err, q.Bytes())
			}
		}},
		{"the oldest droppable goes", func(t *testing.T, q *Queue[int]) {
			dropped, err := q.PushDroppable(4, 1)
			if err != nil || !slices.Equal(dropped, []int{2}) {
				t.Errorf("dropped %v, %v", dropped, err)
			}
			if rest, _ := q.TryPop(100, nil); !slices.Equal(rest, []int{1, 3, 4}) {
				t.Errorf("left %v", rest)
			}
		}},
		{"the new one goes when nothing else may", func(t *testing.T, q *Queue[int]) {
			dropped, err := q.PushDroppable(4, 9)
			if err != nil || !slices.Equal(dropped, []int{2, 3, 4}) {
				t.Errorf("dropped %v, %v", dropped, err)
			}
			if q.Len() != 1 || q.Bytes() != 4 {
				t.Errorf("%d items of %d bytes are left", q.Len(), q.Bytes())
			}
		}},
		{"a batch ends at its bytes", func(t *testing.T, q *Queue[int]) {
			if got, _ := q.TryPop(5, nil); !slices.Equal(got, []int{1, 2}) {
				t.Errorf("popped %v", got)
			}
		}},
		{"closed lets the rest out", func(t *testing.T, q *Queue[int]) {
			q.Close(errTest)
			q.Close(errors.New("the second doesn't count"))
			if err := q.PushAlways(Bulk, 4, 1); !errors.Is(err, errTest) {
				t.Errorf("push: %v", err)
			}
			got, err := q.Pop(t.Context(), 100, nil)
			if err != nil || !slices.Equal(got, []int{1, 2, 3}) {
				t.Errorf("popped %v, %v", got, err)
			}
			if _, err := q.Pop(t.Context(), 100, nil); !errors.Is(err, errTest) {
				t.Errorf("empty and closed: %v", err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := NewQueue[int](10) // 4 that stay, 2 times 3 that may be dropped
			_ = q.TryPush(Bulk, 1, 4)
			_, _ = q.PushDroppable(2, 3)
			_, _ = q.PushDroppable(3, 3)
			tt.do(t, q)
		})
	}
}

func TestQueueTakesWhatIsLargerThanItself(t *testing.T) {
	q := NewQueue[int](10)
	if err := q.TryPush(Bulk, 1, 1000); err != nil {
		t.Fatal(err)
	}
	if err := q.TryPush(Bulk, 2, 1); !errors.Is(err, ErrFull) {
		t.Errorf("behind it: %v", err)
	}
}

func TestQueueWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[int](2)
		_ = q.TryPush(Bulk, 0, 2)
		ctx, giveUp := context.WithCancel(t.Context())
		errs := make(chan error, 3)
		push := func(ctx context.Context, n int) { errs <- q.Push(ctx, Bulk, n, 2) }
		go push(t.Context(), 1)
		synctest.Wait()
		go push(ctx, 2)
		synctest.Wait()
		go push(t.Context(), 3)
		synctest.Wait()
		if err := q.TryPush(Control, 9, 0); !errors.Is(err, ErrFull) {
			t.Errorf("nobody passes those who wait: %v", err)
		}
		giveUp()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
		var got []int
		for len(got) < 3 {
			got, _ = q.Pop(t.Context(), 1, got)
		}
		if !slices.Equal(got, []int{0, 1, 3}) {
			t.Errorf("popped %v", got)
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		_ = q.TryPush(Bulk, 4, 2)
		go push(t.Context(), 5)
		synctest.Wait()
		q.Close(errTest)
		if err := <-errs; !errors.Is(err, errTest) {
			t.Errorf("who waited for a closed queue got %v", err)
		}
	})
}

// TestQueueModel holds the queue to a plain list: order in each class, the
// bound, what is dropped, and the counts.
func TestQueueModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 20
		type item struct {
			n, size   int
			droppable bool
		}
		q := NewQueue[int](limit)
		var control, bulk []item
		bytes := func() (sum int) {
			for _, i := range slices.Concat(control, bulk) {
				sum += i.size
			}
			return sum
		}
		next := 0
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				next++
				i := item{n: next, size: rapid.IntRange(0, 12).Draw(t, "size")}
				class := Class(rapid.IntRange(0, 1).Draw(t, "class"))
				fits := bytes() == 0 || bytes()+i.size <= limit
				if err := q.TryPush(class, i.n, i.size); (err == nil) != fits {
					t.Fatalf("TryPush of %d bytes on %d: %v", i.size, bytes(), err)
				}
				if fits && class == Control {
					control = append(control, i)
				} else if fits {
					bulk = append(bulk, i)
				}
			},
			"push droppable": func(t *rapid.T) {
				next++
				i := item{n: next, size: rapid.IntRange(0, 12).Draw(t, "size"), droppable: true}
				var want []int
				placed := true
				for bytes() != 0 && bytes()+i.size > limit {
					oldest := slices.IndexFunc(bulk, func(b item) bool { return b.droppable })
					if oldest < 0 {
						want, placed = append(want, i.n), false
						break
					}
					want = append(want, bulk[oldest].n)
					bulk = slices.Delete(bulk, oldest, oldest+1)
				}
				if placed {
					bulk = append(bulk, i)
				}
				got, err := q.PushDroppable(i.n, i.size)
				if err != nil || !slices.Equal(got, want) {
					t.Fatalf("dropped %v, %v; want %v", got, err, want)
				}
			},
			"pop": func(t *rapid.T) {
				most := rapid.IntRange(1, 30).Draw(t, "bytes")
				got, err := q.TryPop(most, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range got {
					from := &control
					if len(control) == 0 {
						from = &bulk
					}
					if len(*from) == 0 || (*from)[0].n != n {
						t.Fatalf("popped %v out of turn", got)
					}
					*from = (*from)[1:]
				}
				if len(got) == 0 && len(control)+len(bulk) > 0 {
					t.Fatal("popped nothing though something was there")
				}
			},
			"": func(t *rapid.T) {
				if q.Len() != len(control)+len(bulk) || q.Bytes() != bytes() {
					t.Fatalf("holds %d items, %d bytes; want %d, %d", q.Len(), q.Bytes(), len(control)+len(bulk), bytes())
				}
				items, size := q.Waiting(Control)
				others, rest := q.Waiting(Bulk)
				if items != len(control) || others != len(bulk) || size+rest != bytes() {
					t.Fatalf("%d and %d items wait, %d and %d bytes", items, others, size, rest)
				}
			},
		})
	})
}
