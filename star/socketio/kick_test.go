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

// giver answers "give" with large messages.
type giver struct {
	n    int
	left atomic.Int64 // receipts
	said chan struct{}
}

func (g *giver) Event(s *socketio.Socket, e *socketio.Event) error {
	if e.Name == "said" {
		close(g.said)
		return nil
	}
	for i := range g.n {
		data := make([]byte, 64<<10)
		data[0], data[1] = 4, byte(i)
		m := socketio.Msg{Text: []byte(`451-["chunk",{"_placeholder":true,"num":0}]`), Bin: data, Receipt: g, By: s.Flusher()}
		if err := s.Send(flow.Bulk, m); err != nil {
			return err
		}
	}
	return nil
}

func (g *giver) Sent(_, _ int, left bool) {
	if left {
		g.left.Add(1)
	}
}

func (g *giver) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return true }
func (g *giver) Disconnected(*socketio.Socket, error)                   {}

// A receive path writes itself what it has sent, as far as that goes, but never
// waits for a client that does not read; the rest follows in order, each message
// with one receipt.
func TestReceivePathWrites(t *testing.T) {
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
	w.write(c, ws.Text, `42["said"]`)
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

// pair has two sockets; what one says is told to the other, and itself.
type pair struct {
	release chan struct{}

	mu  sync.Mutex
	all []*socketio.Socket
}

func (p *pair) Event(s *socketio.Socket, e *socketio.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Name == "here" {
		p.all = append(p.all, s)
	}
	for _, to := range p.all {
		if err := to.Send(flow.Bulk, socketio.Msg{Text: []byte(`42["` + e.Name + `"]`), By: s.Flusher()}); err != nil {
			return err
		}
	}
	if e.Name == "wait" {
		s.Hold()
		<-p.release
		s.Release()
	}
	return nil
}

func (p *pair) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return true }
func (p *pair) Disconnected(*socketio.Socket, error)                   {}

// What is sent in a receive path leaves when that has handled what it has read: to
// other sockets, too, in order; and before it waits.
func TestSentInAReceivePath(t *testing.T) {
	for _, way := range []string{"pipe", "tcp"} { // only of the second it is seen what it takes at once
		t.Run(way, func(t *testing.T) {
			p := &pair{release: make(chan struct{})}
			w := newWorld(t, socketio.Options{Handler: p})
			if way == "tcp" {
				hs := httptest.NewServer(w.srv)
				t.Cleanup(func() { w.stop(); hs.Close() })
				w.base, _ = url.Parse(hs.URL)
				w.client = hs.Client()
			}
			sentInAReceivePath(t, w, p)
		})
	}
}

func sentInAReceivePath(t *testing.T, w *world, p *pair) {
	a, b := w.raw(""), w.raw("")
	w.write(a, ws.Text, `42["here"]`)
	w.expect(a, `42["here"]`)
	w.write(b, ws.Text, `42["here"]`)
	for _, c := range []*ws.Conn{a, b} {
		w.expect(c, `42["here"]`)
	}
	many := a.Batch()
	for range 100 {
		many.Add(ws.Text, []byte(`42["one"]`))
	}
	many.Add(ws.Text, []byte(`42["wait"]`))
	many.Add(ws.Text, []byte(`42["after"]`))
	if err := many.Flush(nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*ws.Conn{a, b} {
		for range 100 {
			w.expect(c, `42["one"]`)
		}
		w.expect(c, `42["wait"]`) // although the next event is not served
	}
	close(p.release)
	for _, c := range []*ws.Conn{a, b} {
		w.expect(c, `42["after"]`)
	}
	if status, body, _ := w.do("POST", "EIO=3&transport=polling&sid="+w.poller(""), "text/plain", `12:42["polled"]`); status != 200 {
		t.Fatalf("%d %q", status, body)
	}
	w.expect(a, `42["polled"]`)
	w.expect(b, `42["polled"]`)
}

// noisy says one word and then only hears.
type noisy struct {
	begin chan struct{}
	heard atomic.Int64
	left  chan int64 // how much was heard when the word left
}

func (n *noisy) Event(s *socketio.Socket, e *socketio.Event) error {
	if e.Name == "noise" {
		n.heard.Add(1)
		return nil
	}
	<-n.begin
	return s.Send(flow.Control, socketio.Msg{Text: []byte(`42["word"]`), Receipt: n, By: s.Flusher()})
}

func (n *noisy) Sent(int, int, bool)                                    { n.left <- n.heard.Load() }
func (n *noisy) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return true }
func (n *noisy) Disconnected(*socketio.Socket, error)                   {}

// Who sends so much that there is always something more to read does not hold up
// what was said in between.
func TestNoiseHoldsNothingUp(t *testing.T) {
	n := &noisy{begin: make(chan struct{}), left: make(chan int64, 1)}
	w := newWorld(t, socketio.Options{Handler: n})
	hs := httptest.NewServer(w.srv)
	t.Cleanup(func() { w.stop(); hs.Close() })
	w.base, _ = url.Parse(hs.URL)
	w.client = hs.Client()
	c := w.raw("")
	all := c.Batch()
	all.Add(ws.Text, []byte(`42["say"]`))
	for range 2000 { // some 30 KB: less than the system takes without a reader
		all.Add(ws.Text, []byte(`42["noise"]`))
	}
	if err := all.Flush(nil); err != nil {
		t.Fatal(err)
	}
	all.Done()
	close(n.begin)
	w.expect(c, `42["word"]`)
	if heard := <-n.left; heard > 100 {
		t.Errorf("the word left when %d others had been heard", heard)
	}
}
