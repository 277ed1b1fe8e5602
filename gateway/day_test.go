package gateway_test

import (
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// visit is two pages, of both versions, that meet in a topic, exchange a message
// and go: in order, or cut off, or cut off and back before they go.
func visit(t *testing.T, s *gatewaytest.Server, number int) {
	tb := &gatewaytest.Visit{TB: t}
	defer tb.Over()
	old, now := gatewaytest.Join1(tb, s), gatewaytest.Join2(tb, s, v2.HelloFrame{})
	now.Call("start", map[string]any{"protocol": "/day"})
	old.Call("subscribe", `{"topic":"room"}`)
	now.Call("subscribe", map[string]any{"topic": "room"})
	old.Call("publish", `{"topic":"room","data":1}`)
	old.Request("send", `{"peer":"`+now.Welcome.Peer+`","protocol":"/day","data":"x","ack":-1}`)
	for {
		f, err := now.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == v2.KindMessage {
			break
		}
	}
	time.Sleep(3 * time.Second)
	switch number % 3 {
	case 0:
		_ = old.WS.Close(websocket.StatusGoingAway, "")
		_ = now.WS.Close(websocket.StatusGoingAway, "")
	case 1:
		cut(old.WS)
		cut(now.WS) // its session waits for 30 s, through three other visits
	case 2:
		cut(old.WS)
		cut(now.WS)
		again := now.Resume(s, now.Got)
		if !again.Welcome.Resumed {
			t.Error("not resumed")
		}
		_ = again.WS.Close(websocket.StatusGoingAway, "")
	}
}

// TestAbuse45_ADayOfVisits: pages come and go for a day, and afterwards there is as
// much as before. The day is a bubble's, so that every timer of a day runs: 10,000
// visits with PARLEY_LONG, else an hour with 60.
func TestAbuse45_ADayOfVisits(t *testing.T) {
	visits, day := 60, time.Hour
	if os.Getenv("PARLEY_LONG") != "" {
		visits, day = 10_000, 24*time.Hour
	}
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		used := func() (goroutines int, heap uint64) {
			time.Sleep(time.Minute) // sessions that were cut off end after half of it
			synctest.Wait()
			if p, n := s.Backend.Peers(), s.Gateway.Sessions(); p != 0 || n != 0 {
				t.Errorf("%d peers, %d sessions are left", p, n)
			}
			runtime.GC()
			runtime.GC() // what only a finalizer has let go
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return runtime.NumGoroutine(), m.HeapAlloc
		}
		for i := range 30 {
			visit(t, s, i)
		}
		goroutines, heap := used()
		began := time.Now()
		for i := range visits {
			visit(t, s, i)
			time.Sleep(time.Until(began.Add(day * time.Duration(i+1) / time.Duration(visits))))
		}
		goroutinesNow, heapNow := used()
		t.Logf("%d visits in %v: %d goroutines and %d bytes became %d and %d", visits, time.Since(began), goroutines, heap, goroutinesNow, heapNow)
		if goroutinesNow > goroutines+3 || heapNow > heap+2<<20 {
			t.Errorf("%d goroutines and %d bytes have become %d and %d", goroutines, heap, goroutinesNow, heapNow)
		}
	})
}
