package peer

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// What gateway.md §5.2 and §5.3 say of the reference's framing, tried by a peer
// that writes and reads the bytes by hand.

// byHand is a stream of the reference's framing that the test writes and reads.
type byHand struct {
	t      *testing.T
	stream network.Stream
	mu     sync.Mutex
	frames []refFrame
	err    error
}

func newByHand(t *testing.T, s network.Stream) *byHand {
	h := &byHand{t: t, stream: s}
	go func() {
		r := newRefReader(s, 16<<20)
		for {
			f, err := r.read()
			h.mu.Lock()
			if h.err = err; err == nil {
				h.frames = append(h.frames, f)
			}
			h.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return h
}

// plain opens a stream to the attacked page.
func (a *attacked) plain(t *testing.T) *byHand { return newByHand(t, a.open(t, true)) }

func (h *byHand) write(parts ...[]byte) {
	h.t.Helper()
	if _, err := h.stream.Write(cat(parts...)); err != nil {
		h.t.Fatal(err)
	}
}

// came lists the frames until now, in no virtual time: "ack x" or "data".
func (h *byHand) came() (list []string) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.frames {
		if f.Type == refAck {
			list = append(list, "ack "+f.ID)
		} else {
			list = append(list, string(f.Data))
		}
	}
	return list
}

// id is the i-th frame's.
func (h *byHand) id(i int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.frames[i].ID
}

func (h *byHand) expect(what string, want ...string) {
	h.t.Helper()
	if got := h.came(); !slices.Equal(got, want) {
		h.t.Fatalf("%s: came %q, want %q", what, got, want)
	}
}

// answering lets evil take streams of the page, and gives each.
func (a *attacked) answering(t *testing.T) (streams chan *byHand, member *Member) {
	streams = make(chan *byHand, 10)
	a.evil.Handle(chat, func(ctx context.Context, s network.Stream) {
		streams <- newByHand(t, s)
		<-ctx.Done()
	})
	return streams, a.peer.Join(handling())
}

// The bytes of the spec: a message as a raw peer wrote it is taken and answered
// by the very ack; what parley writes is the reference's data frame.
func TestReferenceBytesOfTheSpec(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		s := a.open(t, true)
		data := append(unhex(t, "00000054"), `{"data":"eyJoZWxsbyI6WyJmcm9tIiwicmF3IiwibGlicDJwIl19","id":"probe-1","type":"data"}`...)
		if _, err := s.Write(data); err != nil {
			t.Fatal(err)
		}
		ack := make([]byte, 4+0x1d)
		if _, err := io.ReadFull(s, ack); err != nil {
			t.Fatal(err)
		}
		if want := "\x00\x00\x00\x1d" + `{"type":"ack","id":"probe-1"}`; string(ack) != want {
			t.Fatalf("answered %q, want %q", ack, want)
		}
		if got := a.page.texts(); !slices.Equal(got, []string{`{"hello":["from","raw","libp2p"]}`}) {
			t.Fatalf("the page got %q", got)
		}
		// The stream serves both ways: the answer comes on it.
		m := a.peer.Join(handling())
		r := send(t, m, a.evil.Local(), `{"reply":1}`, network.Delivered)
		h := newByHand(t, s)
		h.expect("the answer", `{"reply":1}`)
		id := h.id(0)
		h.write(append([]byte{0, 0, 0, byte(len(id) + 22)}, `{"type":"ack","id":"`+id+`"}`...))
		if o := r.wait(t); o.Err != nil || o.Level != network.Delivered {
			t.Fatalf("ended %+v", o)
		}
		m.Leave()
		_ = s.Reset()
	})
}

// pieces is a network whose streams note each write.
type pieces struct {
	network.Network
	mu     sync.Mutex
	writes []string
}

type pieceStream struct {
	network.Stream
	to *pieces
}

func (p *pieces) Open(ctx context.Context, to identity.PeerID, ps ...network.Protocol) (network.Stream, error) {
	s, err := p.Network.Open(ctx, to, ps...)
	if err != nil {
		return nil, err
	}
	return &pieceStream{s, p}, nil
}

func (p *pieces) Handle(id network.Protocol, h network.Handler) func() {
	return p.Network.Handle(id, func(ctx context.Context, s network.Stream) { h(ctx, &pieceStream{s, p}) })
}

func (s *pieceStream) Write(b []byte) (int, error) {
	s.to.mu.Lock()
	s.to.writes = append(s.to.writes, string(b))
	s.to.mu.Unlock()
	return s.Stream.Write(b)
}

// Each write has whole frames, whatever their sizes: length and body leave
// together, and the reference never reads one without the other.
func TestReferenceFramesLeaveWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		net := &pieces{Network: w.cluster.Host(key(t, 1))}
		alice, err := w.node(Config{}).Add(net)
		if err != nil {
			t.Fatal(err)
		}
		m := alice.Join(handling())
		if err := m.Start(chat); err != nil {
			t.Fatal(err)
		}
		bob, other := w.peer(w.node(Config{plainOnly: true}), 2, handling(), chat)
		var results []result
		for i, size := range []int{0, 1, 100, 4000, 40_000, 70_000, 200_000, 0, 0, 0} {
			text := `"` + strings.Repeat("x", size) + `"`
			results = append(results, send(t, m, bob.ID(), text, network.Delivered),
				send(t, other, alice.ID(), fmt.Sprint(i), network.Delivered))
		}
		for _, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		frames := 0
		for i, write := range net.writes {
			r := newRefReader(strings.NewReader(write), 16<<20)
			for {
				if _, err := r.read(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("write %d of %d bytes: %v", i, len(write), err)
				}
				frames++
			}
		}
		if frames != 20 {
			t.Fatalf("%d frames were written, want 10 messages and 10 acks", frames)
		}
	})
}

// No more than 32 messages are on the way without an ack; with each ack another
// follows.
func TestReferenceThirtyTwoWithoutAck(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		streams, m := a.answering(t)
		var results []result
		var all []string
		for i := range 40 {
			results = append(results, send(t, m, a.evil.Local(), fmt.Sprint(i), network.Delivered))
			all = append(all, fmt.Sprint(i))
		}
		h := <-streams
		h.expect("without an ack", all[:32]...)
		h.write(appendRefAck(nil, h.id(0)))
		h.expect("with one", all[:33]...)
		if o := results[0].wait(t); o.Err != nil {
			t.Fatal(o.Err)
		}
		h.write(appendRefAck(nil, h.id(20)), appendRefAck(nil, h.id(20)), appendRefAck(nil, "never sent"))
		h.expect("one from the middle", all[:33]...) // the 2nd is still the oldest of 32
		if len(results[20]) != 1 || len(results[19])+len(results[21]) != 0 {
			t.Fatal("not that one was settled")
		}
		for i := 1; i < 40; i++ {
			synctest.Wait()
			h.write(appendRefAck(nil, h.id(i)))
		}
		for i, r := range results[1:] {
			if o := r.wait(t); o.Err != nil || o.Level != network.Delivered {
				t.Fatalf("message %d ended %+v", i, o)
			}
		}
		m.Leave()
		_ = h.stream.Reset()
	})
}

// Of several streams the newest is written to, whoever opened it, and all are
// read to their end.
func TestReferenceNewestStreamIsUsed(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		streams, m := a.answering(t)
		sent := func(text string) { send(t, m, a.evil.Local(), text, network.Queued) }
		sent("1")
		one := <-streams // opened by the page: there was none
		one.expect("the page's own", "1")
		one.write(appendRefAck(nil, one.id(0)))
		two := a.plain(t)
		synctest.Wait()
		sent("2")
		two.expect("the newer one", "2")
		two.write(appendRefAck(nil, two.id(0)))
		three := a.plain(t)
		synctest.Wait()
		sent("3")
		three.expect("the newest", "3")
		three.write(appendRefAck(nil, three.id(0)))
		for i, h := range []*byHand{one, two, three, one, two} {
			h.write(appendRefData(nil, fmt.Sprint("id", i), fmt.Appendf(nil, `"%d"`, i)))
			synctest.Wait()
		}
		if got := fmt.Sprint(a.page.texts()); got != `["0" "1" "2" "3" "4"]` {
			t.Fatalf("came: %s", got)
		}
		one.expect("acks come on the stream of their message", "1", "ack id0", "ack id3")
		_ = three.stream.Close()
		synctest.Wait()
		sent("4")
		two.expect("the newest that is left", "2", "ack id1", "ack id4", "4")
		two.write(appendRefAck(nil, two.id(3)))
		if n := a.node.Stats().Streamed; n != 1 {
			t.Fatalf("%d streams were opened", n)
		}
		m.Leave()
		for _, h := range []*byHand{one, two} {
			_ = h.stream.Reset()
		}
	})
}

// The ack is written when the session took the message, and not before.
func TestReferenceAckMeansTaken(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		a.page.room = make(chan struct{})
		h := a.plain(t)
		h.write(appendRefData(nil, "1", []byte("1")))
		time.Sleep(time.Minute)
		h.expect("while the page is full")
		a.page.room <- struct{}{}
		h.expect("taken", "ack 1")
		close(a.page.room)
		_ = h.stream.Reset()
	})
}

// An id is dropped and acknowledged again for 10 minutes after it was taken,
// also on another stream; then it is a new message.
func TestReferenceIDsAreKnownForTenMinutes(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		frame := appendRefData(nil, "same", []byte(`"x"`))
		for i, c := range []struct {
			wait time.Duration
			came int
		}{{0, 1}, {0, 1}, {10*time.Minute - time.Millisecond, 1}, {time.Millisecond, 2}, {10*time.Minute - time.Millisecond, 2}, {time.Millisecond, 3}} {
			time.Sleep(c.wait)
			h := a.plain(t)
			h.write(frame)
			h.expect(fmt.Sprint("try ", i), "ack same")
			if n := len(a.page.texts()); n != c.came {
				t.Fatalf("try %d: the page has it %d times, want %d", i, n, c.came)
			}
			_ = h.stream.Close()
		}
		if n := a.node.Stats().Duplicates; n != 3 {
			t.Fatalf("%d duplicates counted", n)
		}
	})
}

// The last 4,096 ids of a remote are known, each remote's for itself, and of 64
// remotes.
func TestReferenceIDsAreBounded(t *testing.T) {
	var s seen
	now := time.Unix(1e9, 0)
	s.add("other", "first", now)
	s.add("bob", "first", now)
	for i := range seenIDs - 1 {
		s.add("bob", fmt.Sprint(i), now)
	}
	if !s.has("bob", "first", now) {
		t.Error("an id was forgotten with 4,095 after it")
	}
	s.add("bob", "one more", now)
	if s.has("bob", "first", now) || !s.has("bob", "0", now) || !s.has("other", "first", now) {
		t.Error("with 4,096 after it not that one was forgotten")
	}
	if r := s.remotes["bob"]; len(r.when) != seenIDs || r.order.len() != seenIDs {
		t.Errorf("keeps %d ids, %d in order", len(r.when), r.order.len())
	}
	// An old one that is taken again is new, and outlives those before it.
	later := now.Add(seenFor)
	s.add("bob", "0", later)
	for i := range seenIDs - 1 {
		s.add("bob", fmt.Sprint("later ", i), later)
	}
	if !s.has("bob", "0", later) {
		t.Error("an id that was taken again was forgotten too soon")
	}
	for i := range seenRemotes {
		s.add(key(t, i).PeerID(), "x", later.Add(time.Duration(i)))
	}
	if len(s.remotes) != seenRemotes || s.has("other", "first", later) {
		t.Errorf("knows %d remotes", len(s.remotes))
	}
}

// A stream that breaks the framing is reset, and what has no ack goes again on
// another, in order and with its ids.
func TestReferenceUnackedGoAgainAfterABadFrame(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		streams, m := a.answering(t)
		var results []result
		for i := range 5 {
			results = append(results, send(t, m, a.evil.Local(), fmt.Sprint(i), network.Delivered))
		}
		one := <-streams
		one.expect("first", "0", "1", "2", "3", "4")
		one.write(appendRefAck(nil, one.id(1)), []byte{0, 0, 0, 0})
		two := <-streams
		two.expect("again", "0", "2", "3", "4")
		for i, was := range []int{0, 2, 3, 4} {
			if two.id(i) != one.id(was) {
				t.Fatalf("message %d goes again as %q, was %q", was, two.id(i), one.id(was))
			}
			two.write(appendRefAck(nil, two.id(i)))
		}
		for i, r := range results {
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
		if s := a.node.Stats(); s.BadFrames != 1 || s.Resent != 4 {
			t.Fatalf("stats: %+v", s)
		}
		m.Leave()
		_ = two.stream.Reset()
	})
}

// The reference locks nothing between a frame's length and its body: where it
// sends and acknowledges at once, two frames may come mixed. Both count.
func TestReferenceFramesMayComeMixed(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		streams, m := a.answering(t)
		h := (*byHand)(nil)
		for i := range 20 {
			r := send(t, m, a.evil.Local(), fmt.Sprint(i), network.Delivered)
			if h == nil {
				h = <-streams
			}
			id := h.id(slices.Index(h.came(), fmt.Sprint(i)))
			data := appendRefData(nil, fmt.Sprint("id", i), fmt.Appendf(nil, `"%s"`, strings.Repeat("x", i)))
			ack := appendRefAck(nil, id)
			switch i % 4 {
			case 0: // the ack within the message
				h.write(data[:4], ack, data[4:])
			case 1: // the message within the ack
				h.write(ack[:4], data, ack[4:])
			case 2: // both lengths, then both bodies
				h.write(data[:4], ack[:4], data[4:], ack[4:])
			case 3: // in pieces that take their time
				for _, part := range [][]byte{ack[:4], data[:2], data[2:4], ack[4:20], ack[20:], data[4:9], data[9:]} {
					h.write(part)
					time.Sleep(time.Millisecond)
				}
			}
			if o := r.wait(t); o.Err != nil {
				t.Fatalf("message %d: %v", i, o.Err)
			}
		}
		a.page.wait(t, 20)
		if n := a.node.Stats().BadFrames; n != 0 {
			t.Fatalf("%d bad frames counted", n)
		}
		m.Leave()
		_ = h.stream.Reset()
	})
}

// A reference's reader that ends closes whatever stream is its peer's newest, and
// each new stream closes the one before. What is lost with one goes on another.
func TestReferenceClosesTheWrongStream(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		streams, m := a.answering(t)
		got := make(map[string]bool)
		note := func(h *byHand) (list []string) {
			list = h.came()
			for i, text := range list {
				if !strings.HasPrefix(text, "ack") && !got[text] {
					got[text] = true
					h.write(appendRefAck(nil, h.id(i)))
				}
			}
			return list
		}
		for round := range 10 {
			r := send(t, m, a.evil.Local(), fmt.Sprint(round), network.Delivered)
			h := <-streams
			note(h)
			newer := a.plain(t) // the reference opens its own,
			_ = h.stream.Close()
			newer.write(appendRefData(nil, fmt.Sprint("r", round), fmt.Appendf(nil, `"r%d"`, round)))
			lost := send(t, m, a.evil.Local(), fmt.Sprintf(`"lost %d"`, round), network.Delivered)
			synctest.Wait()
			_ = newer.stream.Close() // which the old one's reader closes
			again := <-streams
			note(again)
			for _, r := range []result{r, lost} {
				if o := r.wait(t); o.Err != nil {
					t.Fatalf("round %d: %v", round, o.Err)
				}
			}
			_ = again.stream.Reset()
			synctest.Wait()
		}
		if len(got) != 20 || len(a.page.texts()) != 10 {
			t.Fatalf("%d of 20 and %d of 10 came", len(got), len(a.page.texts()))
		}
		m.Leave()
	})
}

// The reference closes a stream that is idle for 30 s: no error, and the next
// message opens another.
func TestReferenceClosesWhatIsIdle(t *testing.T) {
	refWorld(t, func(t *testing.T, w *world, m *Member, to *page, d *double) {
		for i := range 5 {
			if o := send(t, m, d.net.Local(), fmt.Sprint(i), network.Delivered).wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
			time.Sleep(31 * time.Second)
			if n := w.cluster.Streams(m.Peer().ID(), d.net.Local()); n != 0 {
				t.Fatalf("%d streams are left", n)
			}
		}
		s := m.Peer().node.Stats()
		if s.BadFrames != 0 || s.Resent != 0 || s.Streamed != 5 || len(d.texts()) != 5 {
			t.Fatalf("stats: %+v", s)
		}
	})
}

// A message of just the limit goes both ways; a frame over 4/3 of it and 1 KiB is
// refused by its length alone.
func TestReferenceLengthLimit(t *testing.T) {
	const limit = 30_000
	underAttack(t, Config{MaxMessage: limit}, func(t *testing.T, a *attacked) {
		text := `"` + strings.Repeat("x", limit-2) + `"`
		h := a.plain(t)
		h.write(appendRefData(nil, strings.Repeat("i", 900), []byte(text)))
		h.expect("just the limit", "ack "+strings.Repeat("i", 900))
		m := a.peer.Join(handling())
		send(t, m, a.evil.Local(), text, network.Queued)
		h.expect("the other way", "ack "+strings.Repeat("i", 900), text)
		h.write(appendRefAck(nil, h.id(1)))
		synctest.Wait()
		over := limit/3*4 + 1<<10 + 1
		s := a.open(t, true)
		_, _ = s.Write(unhex(t, hex.EncodeToString([]byte{0, byte(over >> 16), byte(over >> 8), byte(over)})))
		if err := end(s); err == nil || a.node.Stats().BadFrames != 1 {
			t.Fatalf("one byte more: %v", err)
		}
		m.Leave()
		_ = h.stream.Reset()
	})
}
