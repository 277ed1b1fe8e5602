package parley

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPageWatch(t *testing.T) {
	type step struct {
		wait time.Duration
		do   func(*pageWatch)
	}
	pages := func(n int) func(*pageWatch) { return func(w *pageWatch) { w.set(n) } }
	came, left := pages(1), pages(0)
	tests := []struct {
		name  string
		leave time.Duration
		steps []step
		ends  time.Duration // after the start; 0 for never
	}{
		{"nobody was sent there", 5 * time.Second, nil, 0},
		{"a browser was opened and nobody came", 5 * time.Second, []step{{0, (*pageWatch).expect}}, time.Minute},
		{"the last page left", 5 * time.Second, []step{{0, (*pageWatch).expect}, {time.Second, came}, {time.Hour, left}}, time.Hour + 6*time.Second},
		{"a reload", 5 * time.Second, []step{{0, came}, {time.Minute, left}, {4 * time.Second, came}, {time.Minute, left}}, 2*time.Minute + 9*time.Second},
		{"one of two left", 5 * time.Second, []step{{0, came}, {0, pages(2)}, {0, came}}, 0},
		{"never", 0, []step{{0, (*pageWatch).expect}, {time.Second, came}, {time.Second, left}}, 0},
		{"lingers for the first page too", 0, []step{{0, (*pageWatch).expect}}, 0},
		{"came just in time", 5 * time.Second, []step{{0, (*pageWatch).expect}, {59 * time.Second, came}}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				w := newPageWatch(tt.leave)
				start := time.Now()
				go func() {
					for _, s := range tt.steps {
						<-time.After(s.wait)
						s.do(w)
					}
				}()
				ended := w.Run(ctx)
				if ended != (tt.ends > 0) || ended && time.Since(start) != tt.ends {
					t.Errorf("ended %v after %s, want %s", ended, time.Since(start), tt.ends)
				}
			})
		})
	}
}
