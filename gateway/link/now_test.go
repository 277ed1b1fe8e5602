//go:build unix

package link_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/link"
)

// TestNow_KeepsTheOrderOfItsCaller has some write by themselves what they can,
// and push the rest.
func TestNow_KeepsTheOrderOfItsCaller(t *testing.T) {
	q := flow.NewQueue[string](1 << 20)
	writers, links := make(chan *link.Writer[string], 1), make(chan *link.Link, 1)
	ws := open(t, func(l *link.Link) {
		w := link.NewWriter(l, q, lines{l})
		writers <- w
		links <- l
		l.HangUp(l.Run(ignore(l), w.Run))
	})
	w, l := <-writers, <-links
	for !w.Now("lone") { // until the writer lives, and waits
		runtime.Gosched()
	}
	const callers, each = 3, 500
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range each {
				if item := fmt.Sprint(c, i); !w.Now(item) {
					if err := q.TryPush(flow.Bulk, item, 1); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	go func() {
		all.Wait()
		l.End(link.Stopping)
	}()
	got, code := drain(t, ws)
	if code != 1001 || len(got) != callers*each+2 {
		t.Fatalf("closed with %d after %d messages", code, len(got))
	}
	next := make([]int, callers)
	for _, text := range got[1 : callers*each+1] {
		var c, i int
		if _, err := fmt.Sscan(text, &c, &i); err != nil || next[c] != i {
			t.Fatalf("%q, want %d: %v", text, next[c], err)
		}
		next[c]++
	}
}

// TestNow_OnlyWhileTheWriterLives: before it comes the welcome, behind it the
// close frame.
func TestNow_OnlyWhileTheWriterLives(t *testing.T) {
	q := flow.NewQueue[string](1 << 20)
	ended := make(chan struct{})
	ws := open(t, func(l *link.Link) {
		w := link.NewWriter(l, q, lines{l})
		if w.Now("too early") {
			t.Error("written before the writer began")
		}
		why := l.Run(ignore(l), func() error {
			defer close(ended)
			return w.Run()
		})
		if w.Now("too late") {
			t.Error("written after the writer ended")
		}
		l.HangUp(why)
	})
	_ = ws.CloseNow()
	<-ended
}
