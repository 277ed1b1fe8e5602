package socketio_test

import (
	"context"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// giver answers each event with large messages that are sent at once.
type giver struct {
	n    int
	left atomic.Int64 // receipts
	said chan struct{}
}

func (g *giver) Event(s *socketio.Socket, _ *socketio.Event) error {
	for i := range g.n {
		data := make([]byte, 64<<10)
		data[0], data[1] = 4, byte(i)
		m := socketio.Msg{Text: []byte(`451-["chunk",{"_placeholder":true,"num":0}]`), Bin: data, Receipt: g, Held: true}
		if err := s.Send(flow.Bulk, m); err != nil {
			return err
		}
		s.Kick()
	}
	close(g.said) // no call has waited
	return nil
}

func (g *giver) Sent(_, _ int, left bool) {
	if left {
		g.left.Add(1)
	}
}

func (g *giver) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return true }
func (g *giver) Disconnected(*socketio.Socket, error)                   {}

// Kick sends at once what goes, never waits for a client that does not read, and
// the rest follows in order, each message with one receipt.
func TestKick(t *testing.T) {
	const n = 256 // 16 MiB: more than a connection takes
	g := &giver{n: n, said: make(chan struct{})}
	srv := socketio.NewServer(socketio.Options{Handler: g})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Run(ctx) })
	hs := httptest.NewServer(srv)
	base, err := url.Parse(hs.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, client: hs.Client(), base: base}
	c := w.raw("")
	w.write(c, ws.Text, `42["give"]`)
	<-g.said
	if left := g.left.Load(); left == n {
		t.Errorf("all of %d messages have left, though nobody read", left)
	}
	for i := range n {
		w.expect(c, `451-["chunk"`)
		m, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Data) != 64<<10 || m.Data[1] != byte(i) {
			t.Fatalf("chunk %d is another: %d bytes, number %d", i, len(m.Data), m.Data[1])
		}
		m.Buf.Free()
	}
	c.NetConn().Close()
	cancel()
	wg.Wait()
	hs.Close()
	if left := g.left.Load(); left != n {
		t.Errorf("%d of %d receipts", left, n)
	}
	if used := srv.Memory().Used(); used != 0 {
		t.Errorf("%d bytes are still lent", used)
	}
}
