package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// paced has small buffers: 64 KiB of answers hold a page up, and 224 KiB would be too
// many for it to stay.
var paced = gateway.Config{SessionBuffer: 64 << 10, MaxMessage: 96 << 10, Requests: 64}

// TestFlood_AnswersHoldUpWhoDoesNotTakeThem: a page of v1 that asks without end and
// takes no answer is read no more, and nobody lets go of it; when it reads at last
// every request has its answer, in order.
func TestFlood_AnswersHoldUpWhoDoesNotTakeThem(t *testing.T) {
	inBubble(t, paced, func(t *testing.T, s *gatewaytest.Server) {
		const asked = 5000
		p := gatewaytest.Join1(t, s)
		wrote := make(chan int, asked)
		go func() {
			for i := range asked {
				err := p.WS.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil,
					`{"requestid":%d,"method":%q,"params":{},"isresponse":false}`, 100+i, strings.Repeat("m", 200)))
				if err != nil {
					t.Error(err)
					return
				}
				wrote <- i
			}
		}()
		synctest.Wait()
		if n := len(wrote); n < 100 || n > 1000 {
			t.Errorf("%d requests were read of a page that takes no answer", n)
		}
		for i := range asked {
			if f := p.Next(); f.Error == nil || int(f.RequestID) != 100+i {
				t.Fatalf("answer %d is %+v", i, f)
			}
		}
		if n := s.Gateway.Stats().Flooded; n != 0 {
			t.Errorf("%d pages were let go", n)
		}
	})
}

// TestFlood_BeyondTheRequestsOfV2: a page of v2 that has more unanswered than it may
// is read no more either, though it may be that the node waits to hear what has
// arrived there. Half a minute later it is told to come again.
func TestFlood_BeyondTheRequestsOfV2(t *testing.T) {
	inBubble(t, paced, func(t *testing.T, s *gatewaytest.Server) {
		p := gatewaytest.Join2(t, s, v2.HelloFrame{})
		p.Patience = time.Minute
		asked := make(chan struct{}, 100_000)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := uint64(100); p.WS.Write(context.Background(), websocket.MessageBinary,
				v2.AppendRequest(nil, i, strings.Repeat("m", 200), v2.AppendMap(nil, 0))) == nil; i++ {
				asked <- struct{}{}
			}
		}()
		synctest.Wait()
		if n := len(asked); n < 100 || n > 2000 {
			t.Errorf("%d requests were read of a page that takes no answer", n)
		}
		if code, _ := p.Closed(); code != websocket.StatusTryAgainLater {
			t.Errorf("closed with %d", code)
		}
		<-ended
		if n := s.Gateway.Stats().Flooded; n != 0 {
			t.Errorf("%d pages had too much", n)
		}
	})
}

// TestTakeNoMore_FewRequestsAreAnswered: of what a page asks when the node takes no
// more, no more than 256 requests are answered. What others sent before, and wait
// for, is settled all the same.
func TestTakeNoMore_FewRequestsAreAnswered(t *testing.T) {
	const last = 256
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		from, p, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
		p.Call("start", map[string]any{"protocol": "chat"})
		id := from.Send(p.Welcome.Peer, "chat", "hi", network.Handled, false)
		m := p.Want(v2.KindMessage)
		s.Gateway.TakeNoMore()
		p.Write(v2.AppendCount(nil, v2.KindHandled, m[0].(uint64)))
		if r := from.Want(v2.KindResult); r[0] != id || r[1] != uint64(network.Handled) {
			t.Errorf("result %v", r)
		}
		go func() {
			for i := uint64(100); p.WS.Write(context.Background(), websocket.MessageBinary, v2.AppendRequest(nil, i, "status", v2.AppendMap(nil, 0))) == nil; i++ {
			}
		}()
		go func() {
			for i := 100; old.WS.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, `{"requestid":%d,"method":"listpeers","params":{"topic":"x"},"isresponse":false}`, i)) == nil; i++ {
			}
		}()
		for range last {
			p.Want(v2.KindResult)
			if f := old.Next(); !f.IsResponse || f.Error != nil {
				t.Fatalf("v1: %+v", f)
			}
		}
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- s.Gateway.Shutdown(context.Background()) }()
		if bye := p.Want(v2.KindBye); bye[1] != "the node stops" {
			t.Errorf("bye %v", bye)
		}
		for name, closed := range map[string]func() (websocket.StatusCode, string){"v2": p.Closed, "from": from.Closed} {
			if code, why := closed(); code != websocket.StatusGoingAway {
				t.Errorf("%s closed with %d %s", name, code, why)
			}
		}
		if f, err := old.Read(); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("v1: %+v, %v", f, err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
