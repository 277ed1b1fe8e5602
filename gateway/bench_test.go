package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// BenchmarkV2_Handled is a message's whole way through the gateway, without a
// network behind it: page, socket, gateway, socket, page, and the answer back.
// Messages have 100 bytes; pages, gateway and sockets share the cores.
func BenchmarkV2_Handled(b *testing.B) {
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprint(inFlight, " in flight"), func(b *testing.B) { benchmarkHandled(b, inFlight) })
	}
}

func benchmarkHandled(b *testing.B, inFlight int) {
	s := gatewaytest.Start(b)
	from, to := gatewaytest.Join2(b, s, v2.HelloFrame{}), gatewaytest.Join2(b, s, v2.HelloFrame{})
	to.Call("start", map[string]any{"protocol": "chat"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- handleAll(ctx, to.WS, to.Got) }()

	pair := v2.AppendPair(nil, to.Welcome.Peer, "chat")
	data := network.Content{Type: network.Bytes, Data: make([]byte, 100)}
	buf := make([]byte, 0, 64<<10)
	sent, settled, told := 0, 0, from.Got
	got := from.Got
	b.ReportAllocs()
	b.ResetTimer()
	for settled < b.N {
		buf = buf[:0]
		for ; sent < b.N && sent-settled < inFlight; sent++ {
			buf = v2.AppendSend(buf, uint64(sent+1), pair, data, network.Handled, false)
		}
		if got-told >= 32 {
			buf, told = v2.AppendCount(buf, v2.KindReceived, got), got
		}
		if len(buf) > 0 {
			if err := from.WS.Write(ctx, websocket.MessageBinary, buf); err != nil {
				b.Fatal(err)
			}
		}
		_, msg, err := from.WS.Read(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for len(msg) > 0 {
			f, rest, err := v2.Next(msg)
			if err != nil {
				b.Fatal(err)
			}
			msg = rest
			switch f.Kind {
			case v2.KindResult:
				settled++
				got++
			case v2.KindError:
				b.Fatal(f.Fault())
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	cancel()
	<-done
}

// BenchmarkV1_Acked is the same for v1: send until ack and response.
func BenchmarkV1_Acked(b *testing.B) {
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprint(inFlight, " in flight"), func(b *testing.B) {
			s := gatewaytest.Start(b)
			from, to := gatewaytest.Join1(b, s), gatewaytest.Join1(b, s)
			to.Call("start", `{"protocol":"chat"}`)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					if _, _, err := to.WS.Read(ctx); err != nil {
						return
					}
				}
			}()
			data := strings.Repeat("x", 98)
			b.ReportAllocs()
			b.ResetTimer()
			for sent, settled := 0, 0; settled < b.N; {
				for ; sent < b.N && sent-settled < inFlight; sent++ {
					text := fmt.Appendf(nil, `{"requestid":%d,"method":"send","params":{"peer":"%s","protocol":"chat","data":"%s","ack":%d},"isresponse":false}`, sent, to.ID, data, sent)
					if err := from.WS.Write(ctx, websocket.MessageText, text); err != nil {
						b.Fatal(err)
					}
				}
				_, msg, err := from.WS.Read(ctx)
				if err != nil {
					b.Fatal(err)
				}
				if bytes.HasSuffix(msg, []byte("true}")) {
					settled++
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			cancel()
			<-done
		})
	}
}

// handleAll is a page whose handler returns at once.
func handleAll(ctx context.Context, ws *websocket.Conn, got uint64) error {
	told := got
	var buf []byte
	for {
		_, msg, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		buf = buf[:0]
		for len(msg) > 0 {
			f, rest, err := v2.Next(msg)
			if err != nil {
				return err
			}
			msg = rest
			if f.Kind == v2.KindMessage {
				m, err := f.Message()
				if err != nil {
					return err
				}
				got++
				buf = v2.AppendCount(buf, v2.KindHandled, m.Delivery)
			}
		}
		if got-told >= 32 {
			buf, told = v2.AppendCount(buf, v2.KindReceived, got), got
		}
		if len(buf) > 0 {
			if err := ws.Write(ctx, websocket.MessageBinary, buf); err != nil {
				return err
			}
		}
	}
}
