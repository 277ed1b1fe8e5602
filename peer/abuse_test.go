package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// attacked is a page and a raw host that speaks to it by hand.
type attacked struct {
	w     *world
	node  *Node
	peer  *Peer
	page  *page
	evil  *peertest.Host
	other *Member // an honest page elsewhere
}

func underAttack(t *testing.T, cfg Config, run func(t *testing.T, a *attacked)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		a := &attacked{w: w, node: w.node(cfg), page: handling(), evil: w.cluster.Host(key(t, 66))}
		a.peer, _ = w.peer(a.node, 1, a.page, chat)
		_, a.other = w.peer(w.node(Config{}), 2, handling())
		run(t, a)
		// Whatever happened: honest messages arrive.
		if o := send(t, a.other, a.peer.ID(), "honest", network.Handled).wait(t); o.Err != nil {
			t.Fatalf("an honest message: %v", o.Err)
		}
	})
}

func (a *attacked) open(t *testing.T, plain bool) network.Stream {
	t.Helper()
	p := ownPrefix + chat
	if plain {
		p = chat
	}
	s, err := a.evil.Open(context.Background(), a.peer.ID(), p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// end reads until the stream ends and gives why.
func end(s network.Stream) error {
	_ = s.SetReadDeadline(time.Now().Add(time.Hour))
	_, err := io.Copy(io.Discard, s)
	return err
}

func hello(next uint64) []byte { return appendHello(nil, [epochSize]byte{1}, next, 0) }

func dataFrame(seq uint64, payload string) []byte {
	return append(appendContentHead(nil, kindData, seq, network.JSON, 0, len(payload)), payload...)
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// What a remote may send wrong: the stream is reset and it is counted.
func TestBadInputResetsTheStream(t *testing.T) {
	huge := binary.AppendUvarint(nil, 1<<62)
	cases := []struct {
		name  string
		plain bool
		bytes []byte
	}{
		{"length 0", false, []byte{0}},
		{"length over the limit", false, cat(hello(1), binary.AppendUvarint(nil, 9<<20))},
		{"length 2⁶²", false, cat(hello(1), huge)},
		{"broken length", false, bytes.Repeat([]byte{0xff}, 11)},
		{"length in a longer form", false, []byte{0x81, 0x00}},
		{"no hello", false, dataFrame(1, "x")},
		{"hello cut short", false, []byte{3, 0, 1, 2}},
		{"hello with next 0", false, hello(0)},
		{"settled before sent", false, appendHello(nil, [16]byte{}, 3, 3)},
		{"second hello", false, cat(hello(1), hello(1))},
		{"gap in the numbers", false, cat(hello(1), dataFrame(2, "x"))},
		{"unknown content type", false, cat(hello(1), appendContentHead(nil, kindData, 1, 9, 0, 0))},
		{"payload longer than its frame", false, cat(hello(1), []byte{6, 2, 1, 0, 0, 200, 1})},
		{"ack of what we never sent", false, cat(hello(1), appendAck(nil, 1, wireHandled))},
		{"welcome from an opener", false, cat(hello(1), appendWelcome(nil, 0, 1, 1, 0, 0))},
		{"settled what was not taken", false, cat(hello(1), appendSettled(nil, 7))},
		{"control frame too large", false, cat(hello(1), binary.AppendUvarint(nil, 5000), []byte{8, 1}, make([]byte, 4998))},
		{"plain: length 0", true, []byte{0, 0, 0, 0}},
		{"plain: length over the limit", true, []byte{0x7f, 0xff, 0xff, 0xff}},
		{"plain: not JSON", true, []byte{0, 0, 0, 1, 'x'}},
		{"plain: unknown type", true, plainFrame(`{"type":"hello","id":"1"}`)},
		{"plain: no id", true, plainFrame(`{"type":"data","data":"bnVsbA=="}`)},
		{"plain: id too long", true, plainFrame(`{"type":"ack","id":"` + strings.Repeat("x", 2000) + `"}`)},
		{"plain: data isn't base64", true, plainFrame(`{"type":"data","id":"1","data":"???"}`)},
		{"plain: two lengths, and text that fits neither", true, cat([]byte{0, 0, 0, 30, 0, 0, 0, 29}, []byte(`{"type":"ack","id":"probe-001"}`), make([]byte, 28))},
		{"plain: two lengths over the limit together", true, []byte{0, 0x7f, 0xff, 0xff, 0, 0x7f, 0xff, 0xff}},
		{"plain: the second length 0", true, []byte{0, 0, 0, 9, 0, 0, 0, 0}},
		{"plain: message isn't JSON", true, plainFrame(`{"type":"data","id":"1","data":"eA=="}`)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			underAttack(t, Config{}, func(t *testing.T, a *attacked) {
				s := a.open(t, c.plain)
				if _, err := s.Write(c.bytes); err != nil && !errors.Is(err, peertest.ErrReset) {
					t.Fatal(err)
				}
				if err := end(s); !errors.Is(err, peertest.ErrReset) {
					t.Fatalf("stream ended %v", err)
				}
				synctest.Wait()
				if n := a.node.Stats().BadFrames; n != 1 {
					t.Fatalf("%d bad frames counted", n)
				}
				if got := a.page.texts(); len(got) != 0 {
					t.Fatalf("the page got %q", got)
				}
			})
		})
	}
}

func plainFrame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// A receiver that answers nonsense: the sender's stream is reset and counted,
// its message fails or goes elsewhere, nothing is settled that wasn't.
func TestBadAnswersResetTheStream(t *testing.T) {
	welcome := appendWelcome(nil, 0, 1000, 1000, 0, 0)
	cases := map[string][]byte{
		"ack before the welcome":      appendAck(nil, 1, wireHandled),
		"ack of an unsent message":    cat(welcome, appendAck(nil, 2, wireHandled)),
		"unknown level":               cat(welcome, appendAck(nil, 1, 9)),
		"welcome twice":               cat(welcome, welcome),
		"welcome that takes unsent":   appendWelcome(nil, 5, 1000, 1000, 0, 0),
		"welcome with a base":         appendWelcome(nil, 0, 1000, 1000, 1, 0),
		"refusal of an unsent":        cat(welcome, appendRefuse(nil, 9, "refused", "no")),
		"data on the wrong side":      cat(welcome, dataFrame(1, "x")),
		"reply over the limit":        cat(welcome, binary.AppendUvarint(nil, 9<<20)),
		"bye with more than was sent": cat(welcome, appendBye(nil, byeLater, 7, "")),
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				n := w.node(Config{})
				_, m := w.peer(n, 1, handling())
				evil := w.cluster.Host(key(t, 66))
				remove := evil.Handle(ownPrefix+chat, func(_ context.Context, s network.Stream) {
					_, _ = s.Write(answer)
					_ = end(s)
				})
				r := send(t, m, evil.Local(), "x", network.Handled)
				synctest.Wait()
				remove()
				if n := n.Stats().BadFrames; n != 1 {
					t.Fatalf("%d bad frames counted", n)
				}
				if o := r.wait(t); o.Err == nil {
					t.Fatalf("settled as %+v", o)
				}
			})
		})
	}
}

// Repeated abuse gets a remote refused, for longer each time.
func TestG_S7_RepeatedAbuseIsRefused(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		offend := func() {
			for range 10 {
				s := a.open(t, false)
				_, _ = s.Write([]byte{0})
				_ = end(s)
			}
		}
		refused := func() bool {
			before := a.node.Stats().RefusedStreams
			s := a.open(t, true)
			_ = s.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = s.Read(make([]byte, 1))
			_ = s.Reset()
			synctest.Wait()
			return a.node.Stats().RefusedStreams > before
		}
		for _, lasts := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
			offend()
			if !refused() {
				t.Fatal("still let in after ten bad frames")
			}
			time.Sleep(lasts - 5*time.Second)
			if !refused() {
				t.Fatalf("let in before %v", lasts)
			}
			time.Sleep(5 * time.Second)
			if refused() {
				t.Fatalf("refused after %v", lasts)
			}
		}
		if n := a.node.Stats().RefusedRemotes; n != 6 {
			t.Fatalf("%d refusals counted", n)
		}
	})
}

// Who answers wrong is refused as who asks wrong is; bad input in both framings
// counts together, and only that of one remote.
func TestG_S7_AbuseOfEveryKindCountsTogether(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		m := a.peer.Join(handling())
		remove := a.evil.Handle(ownPrefix+chat, func(_ context.Context, s network.Stream) {
			_, _ = s.Write(appendAck(nil, 1, wireHandled)) // no welcome
			_ = end(s)
		})
		for i := range 3 {
			send(t, m, a.evil.Local(), "x", network.Handled)
			synctest.Wait()
			if n := a.node.Stats().BadFrames; n != uint64(i+1) {
				t.Fatalf("%d bad answers counted, want %d", n, i+1)
			}
			m.Leave()
			m = a.peer.Join(handling())
			synctest.Wait()
		}
		remove()
		for i := range 7 {
			if n := a.node.Stats().RefusedRemotes; n != 0 {
				t.Fatalf("refused after %d", 3+i)
			}
			s := a.open(t, i%2 == 0)
			_, _ = s.Write([]byte{0, 0, 0, 0})
			_ = end(s)
			synctest.Wait()
		}
		if s := a.node.Stats(); s.BadFrames != 10 || s.RefusedRemotes != 1 {
			t.Fatalf("stats: %+v", s)
		}
		for _, plain := range []bool{false, true} {
			if _, err := a.open(t, plain).Read(make([]byte, 1)); !errors.Is(err, peertest.ErrReset) {
				t.Fatalf("a stream is served: %v", err)
			}
		}
		m.Leave()
	})
}

// Row 10 and G-S4: an announced length allocates nothing.
func TestG_S4_AllocatesByBytesReceived(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) {
			underAttack(t, Config{}, func(t *testing.T, a *attacked) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range 20 {
					s := a.open(t, plain)
					claim := cat(hello(1), binary.AppendUvarint(nil, 8<<20), []byte{2, 1})
					if plain {
						claim = []byte{0, 0x7f, 0xff, 0xff, '{'}
					}
					if _, err := s.Write(claim); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					_ = s.Reset()
				}
				runtime.ReadMemStats(&after)
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 10<<20 {
					t.Fatalf("20 claims of 8 MiB allocated %d bytes", grown)
				}
			})
		})
	}
}

func TestAbuse27_PeerOpensAMillionStreams(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		for i := range 10_000 { // at once: the burst is 200, 64 of them live
			s := a.open(t, i%2 == 0)
			if i%2 == 1 {
				_, _ = s.Write(appendHello(nil, [epochSize]byte{byte(i), byte(i >> 8)}, 1, 0))
			}
		}
		synctest.Wait()
		s := a.node.Stats()
		if s.Streams > a.node.cfg.MaxRemoteStreams || s.Remembered > a.node.cfg.MaxRemoteInboxes {
			t.Fatalf("stats: %+v", s)
		}
		if s.RefusedStreams < 9_000 {
			t.Fatalf("only %d streams were refused", s.RefusedStreams)
		}
	})
}

// A remote page that never reads: its window closes, the outbox is bounded.
func TestAbuse28_NeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		n := w.node(Config{Outbox: 2 << 20})
		_, m := w.peer(n, 1, handling())
		evil := w.cluster.Host(key(t, 66))
		evil.Handle(ownPrefix+chat, func(ctx context.Context, s network.Stream) {
			_, _ = s.Write(appendWelcome(nil, 0, 1<<40, 8<<20, 0, 0)) // a window without bounds
			<-ctx.Done()
		})
		text := strings.Repeat("x", 10_000)
		var results []result
		for {
			out, r := outgoing(evil.Local(), text, network.Handled)
			if _, err := m.Send(out); err != nil {
				wantCode(t, err, identity.CodeQueueFull, "send queue full: "+evil.Local().String()+" /chat/1")
				break
			}
			results = append(results, r)
		}
		if len(results) != 209 {
			t.Fatalf("%d messages of 10 KB were taken into 2 MiB", len(results))
		}
		for _, r := range results {
			if o := r.wait(t); identity.CodeOf(o.Err) != identity.CodeTimeout {
				t.Fatalf("ended %+v", o)
			}
		}
		synctest.Wait()
		if s := n.Stats(); s.QueuedBytes != 0 {
			t.Fatalf("stats: %+v", s)
		}
	})
}

// A remote sender that never reads what we answer: what is kept for it is
// bounded, and its stream ends.
func TestAbuse28_NeverReadsAnswers(t *testing.T) {
	underAttack(t, Config{Outbox: 64 << 10}, func(t *testing.T, a *attacked) {
		a.page.on = func(d network.Delivery) {
			if d.WantsReply() {
				d.Reply(network.Content{Type: network.Bytes, Data: make([]byte, 10_000)})
				return
			}
			d.Handled()
		}
		s := a.open(t, false)
		_, _ = s.Write(hello(1))
		var err error
		for seq := uint64(1); seq < 100_000 && err == nil; seq++ {
			_, err = s.Write(append(appendContentHead(nil, kindData, seq, network.JSON, flagReply, 1), '1'))
		}
		if err == nil {
			t.Fatal("100,000 requests without reading a reply were taken")
		}
		a.peer.mu.Lock()
		kept := 0
		for _, in := range a.peer.inboxes {
			kept += in.kept
		}
		a.peer.mu.Unlock()
		if kept > 3*a.node.cfg.Outbox {
			t.Fatalf("%d bytes of answers are kept", kept)
		}
		synctest.Wait()
		if n := a.node.Stats().BadFrames; n != 1 {
			t.Fatalf("%d bad frames counted", n)
		}
	})
}

func TestAbuse29_SendsOversizeMessage(t *testing.T) {
	underAttack(t, Config{MaxMessage: 1 << 20}, func(t *testing.T, a *attacked) {
		s := a.open(t, false)
		_, _ = s.Write(cat(hello(1), binary.AppendUvarint(nil, 1<<20+100), []byte{2}))
		if err := end(s); !errors.Is(err, peertest.ErrReset) {
			t.Fatalf("stream ended %v", err)
		}
		p := a.open(t, true)
		_, _ = p.Write([]byte{0, 0x20, 0, 0})
		if err := end(p); !errors.Is(err, peertest.ErrReset) {
			t.Fatalf("plain stream ended %v", err)
		}
		synctest.Wait()
		if n := a.node.Stats().BadFrames; n != 2 {
			t.Fatalf("%d bad frames counted", n)
		}
	})
}

// A sender that doesn't keep to the window is cut off.
func TestAbuse29_SendsBeyondTheWindow(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		a.page.on = nil // nothing is settled, so nothing is given back
		s := a.open(t, false)
		_, _ = s.Write(hello(1))
		var err error
		for seq := uint64(1); seq < 100 && err == nil; seq++ {
			_, err = s.Write(dataFrame(seq, strings.Repeat("x", 10_000)))
		}
		if err == nil {
			err = end(s)
		}
		if !errors.Is(err, peertest.ErrReset) {
			t.Fatalf("stream ended %v", err)
		}
		if n := len(a.page.texts()); n > firstWindow/10_000 {
			t.Fatalf("the page got %d messages", n)
		}
		synctest.Wait()
		if n := a.node.Stats().BadFrames; n != 1 {
			t.Fatalf("%d bad frames counted", n)
		}
		a.page.mu.Lock()
		for _, d := range a.page.got {
			d.Handled()
		}
		a.page.on = func(d network.Delivery) { d.Handled() }
		a.page.mu.Unlock()
	})
}

// A stream of a version that isn't spoken ends with a reason, and so does the
// other way round.
func TestAbuse30_WrongProtocolVersion(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		s := a.open(t, false)
		body := append([]byte{byte(kindHello)}, make([]byte, epochSize)...)
		body = appendUvarints(body, 1, 7, 0)
		_, _ = s.Write(appendBody(nil, body))
		r := newFrameReader(s, 1000)
		var f frame
		if err := r.next(&f); err != nil {
			t.Fatal(err)
		}
		if f.kind != kindBye || f.reason != byeUnsupported || f.text != "this peer speaks version 1" {
			t.Fatalf("answer is %+v", f)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		_, m := w.peer(w.node(Config{}), 1, handling())
		old := w.cluster.Host(key(t, 66))
		old.Handle(ownPrefix+chat, func(_ context.Context, s network.Stream) {
			_, _ = s.Write(appendBye(nil, byeUnsupported, 0, "this peer speaks version 9"))
			_ = s.Close()
		})
		o := send(t, m, old.Local(), "x", network.Handled).wait(t)
		wantCode(t, o.Err, identity.CodeUnreachable,
			"peer unreachable: "+old.Local().String()+": no common version: this peer speaks version 9")
	})
}

// A hello and then silence holds a stream, and no more; without a hello not even
// that.
func TestSilentStreams(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		a.open(t, false)
		synctest.Wait()
		if n := a.node.Stats().Streams; n != 1 {
			t.Fatalf("%d streams", n)
		}
		time.Sleep(helloWithin + time.Second)
		synctest.Wait()
		if n := a.node.Stats().Streams; n != 0 {
			t.Fatalf("%d streams after the time for a hello", n)
		}
		if n := a.node.Stats().BadFrames; n != 0 {
			t.Fatalf("%d bad frames counted: a network may be that slow", n)
		}
	})
}
