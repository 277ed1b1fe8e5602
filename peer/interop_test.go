package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Both framings, in every pairing, with every kind of content.
func TestFramingsInterop(t *testing.T) {
	contents := []struct {
		name  string
		sent  network.Content
		own   network.Content // as it arrives over our framing
		plain network.Content // … and over the reference's
	}{
		{"json", jsonOf(`{"b":1, "a":12345678901234567890}`), jsonOf(`{"b":1, "a":12345678901234567890}`), jsonOf(`{"b":1, "a":12345678901234567890}`)},
		{"null", jsonOf(`null`), jsonOf(`null`), jsonOf(`null`)},
		{"bytes", network.Content{Type: network.Bytes, Data: []byte{0, 255, 1}}, network.Content{Type: network.Bytes, Data: []byte{0, 255, 1}},
			network.Content{Type: network.CBOR, Data: []byte{0x43, 0, 255, 1}}},
		{"cbor", network.Content{Type: network.CBOR, Data: []byte{0x83, 1, 2, 3}}, network.Content{Type: network.CBOR, Data: []byte{0x83, 1, 2, 3}},
			jsonOf(`[1,2,3]`)},
	}
	for _, p := range []struct {
		name         string
		plain, other bool
	}{{"both parley", false, false}, {"sender knows the reference's alone", true, false}, {"receiver knows the reference's alone", false, true}, {"both plain", true, true}} {
		for _, c := range contents {
			t.Run(p.name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					defer w.close()
					to := handling()
					_, m := w.peer(w.node(Config{plainOnly: p.plain}), 1, handling())
					bob, _ := w.peer(w.node(Config{plainOnly: p.other}), 2, to, chat)
					r := make(result, 2)
					_, err := m.Send(network.Outgoing{To: bob.ID(), Protocol: chat, Level: network.Handled,
						Content: c.sent, Done: func(o network.Outcome) { r <- o }})
					if err != nil {
						t.Fatal(err)
					}
					o := r.wait(t)
					want, level := c.own, network.Handled
					if p.plain || p.other {
						want, level = c.plain, network.Delivered
					}
					if o.Err != nil || o.Level != level {
						t.Fatalf("ended %+v, want level %v", o, level)
					}
					got := to.wait(t, 1).Content()
					if got.Type != want.Type || string(got.Data) != string(want.Data) {
						t.Fatalf("came type %d %q, want type %d %q", got.Type, got.Data, want.Type, want.Data)
					}
				})
			})
		}
	}
}

func jsonOf(text string) network.Content {
	return network.Content{Type: network.JSON, Data: []byte(text)}
}

func TestContentThatHasNoJSONForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		_, m := w.peer(w.node(Config{}), 1, handling())
		to := handling()
		bob, _ := w.peer(w.node(Config{plainOnly: true}), 2, to, chat)
		r := make(result, 2)
		_, err := m.Send(network.Outgoing{To: bob.ID(), Protocol: chat, Level: network.Handled,
			Content: network.Content{Type: network.CBOR, Data: []byte{0xf9, 0x7e, 0x00}}, // NaN
			Done:    func(o network.Outcome) { r <- o }})
		if err != nil {
			t.Fatal(err)
		}
		after := send(t, m, bob.ID(), `"next"`, network.Handled)
		if o := r.wait(t); identity.CodeOf(o.Err) != identity.CodeMalformed {
			t.Fatalf("ended %+v", o)
		}
		if o := after.wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
	})
}

// refWorld is a parley page and a peer of the reference.
func refWorld(t *testing.T, run func(t *testing.T, w *world, m *Member, to *page, d *double)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.cluster.SetDelay(5 * time.Millisecond)
		to := handling()
		_, m := w.peer(w.node(Config{}), 1, to, chat)
		d := newDouble(t, w.cluster.Host(key(t, 2)))
		defer d.close()
		run(t, w, m, to, d)
	})
}

func TestReferenceBothWays(t *testing.T) {
	refWorld(t, func(t *testing.T, w *world, m *Member, to *page, d *double) {
		for i := range 20 {
			if o := send(t, m, d.net.Local(), fmt.Sprint(i), network.Handled).wait(t); o.Err != nil || o.Level != network.Delivered {
				t.Fatalf("message %d ended %+v", i, o)
			}
			d.send(m.Peer().ID(), fmt.Sprint(i))
		}
		to.wait(t, 20)
		want := fmt.Sprint(numbers(20))
		if got := fmt.Sprint(to.texts()); got != want {
			t.Fatalf("page got %s", got)
		}
		if got := fmt.Sprint(d.texts()); got != want {
			t.Fatalf("reference got %s", got)
		}
		if n := w.cluster.Streams(m.Peer().ID(), d.net.Local()); n != 1 {
			t.Fatalf("%d streams, want one for both ways", n)
		}
	})
}

// The stream is lost with messages on it: they go again, and the reference gets
// some twice; each is settled once.
func TestReferenceAtLeastOnce(t *testing.T) {
	refWorld(t, func(t *testing.T, w *world, m *Member, to *page, d *double) {
		var results []result
		for i := range 100 {
			results = append(results, send(t, m, d.net.Local(), fmt.Sprint(i), network.Handled))
			if i%25 == 24 {
				time.Sleep(7 * time.Millisecond)
				w.cluster.Reset(m.Peer().ID(), d.net.Local())
			}
		}
		for i, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
		seen := make(map[string]bool)
		next := 0
		for _, text := range d.texts() {
			if seen[text] {
				continue
			}
			if text != fmt.Sprint(next) {
				t.Fatalf("first copies are out of order: %s after %d", text, next-1)
			}
			seen[text] = true
			next++
		}
		if next != 100 {
			t.Fatalf("%d of 100 came", next)
		}
	})
}

// A raw peer sends the same id again, on the same and on another stream.
func TestReferenceDuplicateIDsAreTakenOnce(t *testing.T) {
	refWorld(t, func(t *testing.T, w *world, m *Member, to *page, d *double) {
		for range 2 {
			s, err := d.net.Open(d.ctx, m.Peer().ID(), chat)
			if err != nil {
				t.Fatal(err)
			}
			frame := appendRefData(nil, "same", []byte(`"x"`))
			for range 3 {
				if _, err := s.Write(frame); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Write(appendRefData(nil, "end", []byte(`"y"`))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			_ = s.Reset()
		}
		if got := fmt.Sprint(to.texts()); got != `["x" "y"]` {
			t.Fatalf("came: %s", got)
		}
	})
}

func TestReferenceIdleStreamIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		a, b := w.node(Config{plainOnly: true}), w.node(Config{plainOnly: true})
		alice, m := w.peer(a, 1, handling(), chat)
		bob, other := w.peer(b, 2, handling(), chat)
		send(t, m, bob.ID(), "1", network.Handled).wait(t)
		time.Sleep(100 * time.Second)
		send(t, other, alice.ID(), "2", network.Handled).wait(t)
		time.Sleep(100 * time.Second)
		if n := w.cluster.Streams(alice.ID(), bob.ID()); n != 1 {
			t.Fatalf("%d streams after traffic", n)
		}
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if n := w.cluster.Streams(alice.ID(), bob.ID()); n != 0 {
			t.Fatalf("%d streams after two quiet minutes", n)
		}
		if len(bob.references)+len(alice.references) != 0 {
			t.Fatal("a lane is left")
		}
	})
}

func numbers(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// double behaves as the reference does (gateway.md §5.2), faults included: one
// stream for both ways, one that arrives replaces and closes the old; acks
// before anybody has the message; ignores acks; knows no duplicates.
type double struct {
	t   testing.TB
	net network.Network
	ctx context.Context
	end context.CancelFunc

	mu     sync.Mutex
	stream network.Stream
	got    []string
	sent   int
	wg     sync.WaitGroup
}

func newDouble(t testing.TB, net network.Network) *double {
	ctx, end := context.WithCancel(context.Background())
	d := &double{t: t, net: net, ctx: ctx, end: end}
	net.Handle(chat, func(_ context.Context, s network.Stream) {
		d.mu.Lock()
		if d.stream != nil {
			_ = d.stream.Close()
		}
		d.stream = s
		d.mu.Unlock()
		d.read(s)
	})
	return d
}

func (d *double) close() {
	d.end()
	d.mu.Lock()
	if d.stream != nil {
		_ = d.stream.Reset()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

func (d *double) read(s network.Stream) {
	r := newRefReader(s, 1<<20)
	for {
		_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
		f, err := r.read()
		if err != nil {
			_ = s.Close()
			d.mu.Lock()
			if d.stream == s {
				d.stream = nil
			}
			d.mu.Unlock()
			return
		}
		if f.Type == refAck {
			continue
		}
		_, _ = s.Write(appendRefAck(nil, f.ID))
		d.mu.Lock()
		d.got = append(d.got, string(f.Data))
		d.mu.Unlock()
	}
}

// send sends a JSON text as the reference does: three attempts, and it never
// learns what became of it.
func (d *double) send(to identity.PeerID, text string) {
	d.t.Helper()
	d.mu.Lock()
	d.sent++
	id := fmt.Sprintf("%d-%d", time.Now().UnixNano(), d.sent)
	d.mu.Unlock()
	body, err := json.Marshal(map[string]any{"type": "data", "id": id, "data": []byte(text)})
	if err != nil {
		d.t.Error(err)
	}
	head := []byte{byte(len(body) >> 24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}
	for attempt := range 3 {
		s, err := d.open(to)
		if err == nil {
			if _, err = s.Write(head); err == nil { // two writes, as the reference
				_, err = s.Write(body)
			}
		}
		if err == nil {
			break
		}
		time.Sleep(time.Duration(2*attempt+2) * time.Second)
	}
	time.Sleep(10 * time.Millisecond)
}

// open gives the one stream, or opens it.
func (d *double) open(to identity.PeerID) (network.Stream, error) {
	d.mu.Lock()
	s := d.stream
	d.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := d.net.Open(d.ctx, to, chat)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.stream = s
	d.mu.Unlock()
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		d.read(s)
	}()
	return s, nil
}

func (d *double) texts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.got...)
}
