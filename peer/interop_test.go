package peer

import (
	"fmt"
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
