package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// What gateway.md §5.4 says of the frames between parley's peers, tried by a peer
// that writes them by hand.

// opened is a stream that the test writes by hand, and what comes back on it.
type opened struct {
	t      *testing.T
	stream network.Stream
	frames chan frame
	ended  chan error
}

func (a *attacked) opened(t *testing.T, first ...[]byte) *opened {
	t.Helper()
	o := &opened{t: t, stream: a.open(t, false), frames: make(chan frame, 10_000), ended: make(chan error, 1)}
	go func() {
		r := newFrameReader(o.stream, 8<<20)
		for {
			var f frame
			if err := r.next(&f); err != nil {
				close(o.frames)
				o.ended <- err
				return
			}
			o.frames <- f
		}
	}()
	o.write(first...)
	return o
}

func (o *opened) write(parts ...[]byte) {
	o.t.Helper()
	if _, err := o.stream.Write(cat(parts...)); err != nil && !errors.Is(err, peertest.ErrReset) {
		o.t.Fatal(err)
	}
}

// here gives what has come by now, in no virtual time.
func (o *opened) here() (list []frame) {
	synctest.Wait()
	for {
		select {
		case f, ok := <-o.frames:
			if !ok {
				return list
			}
			list = append(list, f)
		default:
			return list
		}
	}
}

// acks says which acks came by now, as "seq:level".
func (o *opened) acks() string {
	var list []string
	for _, f := range o.here() {
		if f.kind == kindAck {
			list = append(list, fmt.Sprintf("%d:%d", f.seq, f.level))
		}
	}
	return strings.Join(list, " ")
}

func helloOf(epoch byte, next, settled uint64) []byte {
	return appendHello(nil, [epochSize]byte{epoch}, next, settled)
}

func flagged(seq, flags uint64, payload string) []byte {
	return append(appendContentHead(nil, kindData, seq, network.JSON, flags, len(payload)), payload...)
}

// An epoch is kept for 10 minutes after its stream: until then what was taken is
// known, is told in the welcome, and is not taken again.
func TestEpochIsKeptForTenMinutes(t *testing.T) {
	for _, c := range []struct {
		after       time.Duration
		taken, base uint64
		came        string
	}{
		{time.Minute, 3, 0, "[1 2 3 4]"},
		{10*time.Minute - time.Millisecond, 3, 0, "[1 2 3 4]"},
		{15 * time.Minute, 3, 3, "[1 2 3 4]"}, // looked for each 5 minutes: now it is forgotten
	} {
		t.Run(c.after.String(), func(t *testing.T) {
			underAttack(t, Config{}, func(t *testing.T, a *attacked) {
				o := a.opened(t, helloOf(1, 1, 0), dataFrame(1, "1"), dataFrame(2, "2"), dataFrame(3, "3"))
				a.page.wait(t, 3)
				synctest.Wait()
				_ = o.stream.Reset()
				time.Sleep(c.after)
				o = a.opened(t, helloOf(1, 4, 0))
				got := o.here()
				if len(got) == 0 || got[0].kind != kindWelcome || got[0].seq != c.taken || got[0].base != c.base {
					t.Fatalf("welcome is %+v, want taken %d, base %d", got, c.taken, c.base)
				}
				if m := time.Duration(got[0].memory) * time.Millisecond; m != min(c.after, 10*time.Minute) {
					t.Errorf("remembers for %v", m)
				}
				o.write(dataFrame(2, "2"), dataFrame(3, "3"), dataFrame(4, "4"))
				synctest.Wait()
				if got := fmt.Sprint(a.page.texts()); got != c.came {
					t.Fatalf("came: %s", got)
				}
				if n := a.node.Stats().Duplicates; n != 2 {
					t.Errorf("%d duplicates counted", n)
				}
				_ = o.stream.Reset()
			})
		})
	}
}

// What was settled and not yet told is told again on the epoch's next stream.
func TestAnswersOutliveTheirStream(t *testing.T) {
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		a.page.on = nil
		o := a.opened(t, helloOf(1, 1, 0), dataFrame(1, "1"), flagged(2, flagReply, "2"), dataFrame(3, "3"))
		a.page.wait(t, 3)
		_ = o.stream.Reset()
		synctest.Wait()
		a.page.wait(t, 1).Handled()
		a.page.wait(t, 2).Reply(network.Content{Type: network.JSON, Data: []byte("two")})
		a.page.wait(t, 3).Refuse(fmt.Errorf("not three"))
		for range 2 { // not confirmed: told each time
			o = a.opened(t, helloOf(1, 4, 0))
			var got []string
			for _, f := range o.here()[1:] {
				got = append(got, fmt.Sprint(f.kind, " ", f.seq, " ", string(f.content.Data), f.text))
			}
			if want := []string{"7 2 two", "4 3 not three", "3 3 "}; !slices.Equal(got, want) {
				t.Fatalf("told %q, want %q", got, want)
			}
			_ = o.stream.Reset()
			synctest.Wait()
		}
		o = a.opened(t, helloOf(1, 4, 3))
		if got := o.here(); len(got) != 1 {
			t.Fatalf("told again: %+v", got)
		}
		_ = o.stream.Reset()
		a.page.on = func(d network.Delivery) { d.Handled() }
	})
}

// An ack is sent after 16 messages or 2 ms, at once where one is alone, and after
// 50 ms that a message was taken where nobody waits for that.
func TestWhenAcksAreSent(t *testing.T) {
	const soon, later = 2 * time.Millisecond, 50 * time.Millisecond
	// script writes what follows a hello; the page takes messages one by one, as
	// it is let.
	script := func(t *testing.T, on func(network.Delivery), run func(t *testing.T, o *opened, let func(n int))) {
		underAttack(t, Config{}, func(st *testing.T, a *attacked) {
			a.page.on, a.page.room = on, make(chan struct{})
			o := a.opened(st, helloOf(1, 1, 0))
			o.here() // the welcome
			run(st, o, func(n int) {
				for range n {
					a.page.room <- struct{}{}
				}
			})
			close(a.page.room)
			synctest.Wait()
			a.page.on = func(d network.Delivery) { d.Handled() }
		})
	}
	expect := func(t *testing.T, o *opened, what, want string) {
		t.Helper()
		if got := o.acks(); got != want {
			t.Fatalf("%s: acks %q, want %q", what, got, want)
		}
	}
	burst := func(from, to uint64, flags uint64) (frames []byte) {
		for seq := from; seq <= to; seq++ {
			frames = append(frames, flagged(seq, flags, "x")...)
		}
		return frames
	}
	handle := func(d network.Delivery) { d.Handled() }

	t.Run("sixteen", func(t *testing.T) {
		script(t, handle, func(t *testing.T, o *opened, let func(int)) {
			o.write(burst(1, 40, 0))
			let(15)
			expect(t, o, "15 handled", "")
			let(1)
			expect(t, o, "the 16th", "16:2")
			let(15)
			expect(t, o, "31 handled", "")
			let(1)
			expect(t, o, "the 32nd", "32:2")
			let(8) // the last is alone: but the one before it was told just now
			time.Sleep(soon)
			expect(t, o, "the rest", "40:2")
		})
	})
	t.Run("two milliseconds", func(t *testing.T) {
		script(t, handle, func(t *testing.T, o *opened, let func(int)) {
			o.write(burst(1, 10, 0))
			let(3)
			time.Sleep(soon - time.Microsecond)
			expect(t, o, "before", "")
			time.Sleep(time.Microsecond)
			expect(t, o, "after", "3:2")
			let(7)
		})
	})
	t.Run("alone", func(t *testing.T) {
		script(t, handle, func(t *testing.T, o *opened, let func(int)) {
			for seq := range uint64(3) {
				o.write(burst(seq+1, seq+1, 0))
				let(1)
				expect(t, o, "at once", fmt.Sprint(seq+1, ":2"))
				time.Sleep(soon)
			}
		})
	})
	t.Run("taken and not handled", func(t *testing.T) {
		script(t, nil, func(t *testing.T, o *opened, let func(int)) {
			o.write(burst(1, 2, 0))
			let(2)
			time.Sleep(later - time.Microsecond)
			expect(t, o, "before", "")
			time.Sleep(time.Microsecond)
			expect(t, o, "after", "2:1")
		})
	})
	t.Run("taken, and waited for", func(t *testing.T) {
		script(t, nil, func(t *testing.T, o *opened, let func(int)) {
			o.write(burst(1, 1, flagDelivered))
			let(1)
			expect(t, o, "at once", "1:1")
		})
	})
	t.Run("taken, and nobody waits for anything", func(t *testing.T) {
		script(t, nil, func(t *testing.T, o *opened, let func(int)) {
			o.write(burst(1, 1, flagNoAck))
			let(1)
			expect(t, o, "at once", "")
			time.Sleep(soon)
			expect(t, o, "after 2 ms", "1:1")
		})
	})
}

// The window is 256 KiB at first and doubles to 4 MiB for a page that keeps up,
// never beyond; for one that takes half a second for each window it stays.
func TestWindowGrows(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			underAttack(t, Config{}, func(t *testing.T, a *attacked) {
				o := a.opened(t, helloOf(1, 1, 0))
				welcome := o.here()
				if len(welcome) != 1 || welcome[0].window != 256<<10 || welcome[0].max != 8<<20 {
					t.Fatalf("welcome is %+v", welcome)
				}
				var grown []uint64
				payload := strings.Repeat("x", 64<<10-messageCost)
				for seq := uint64(1); seq <= 16<<20/(64<<10); seq++ {
					o.write(dataFrame(seq, payload))
					if slow && seq%4 == 1 {
						time.Sleep(600 * time.Millisecond)
					}
					for _, f := range o.here() {
						if f.kind == kindWindow {
							grown = append(grown, f.window)
						}
					}
				}
				want := []uint64{512 << 10, 1 << 20, 2 << 20, 4 << 20}
				if slow {
					want = nil
				}
				if !slices.Equal(grown, want) {
					t.Fatalf("window grew to %v, want %v", grown, want)
				}
				_ = o.stream.Reset()
			})
		})
	}
}

// One message may always be on the way, however large; with it nothing else is.
func TestOneMessageMayAlwaysBeOnTheWay(t *testing.T) {
	pairs(t, func(t *testing.T, w *world, a, b *Node) {
		to := newPage(true)
		_, m := w.peer(a, 1, handling())
		bob, _ := w.peer(b, 2, to, chat)
		large := send(t, m, bob.ID(), strings.Repeat("x", 5<<20), network.Handled)
		small := send(t, m, bob.ID(), "small", network.Handled)
		d := to.wait(t, 1)
		synctest.Wait()
		if n := len(to.texts()); n != 1 {
			t.Fatalf("%d messages are with the page", n)
		}
		d.Handled()
		to.wait(t, 2).Handled()
		for _, r := range []result{large, small} {
			if o := r.wait(t); o.Err != nil {
				t.Fatal(o.Err)
			}
		}
	})
}

// Kinds of later versions are skipped on both sides of a stream.
func TestUnknownKindsAreSkippedOnAStream(t *testing.T) {
	unknown := appendBody(nil, []byte{99, 1, 2, 3})
	underAttack(t, Config{}, func(t *testing.T, a *attacked) {
		o := a.opened(t, helloOf(1, 1, 0), unknown, dataFrame(1, "1"), unknown, dataFrame(2, "2"))
		a.page.wait(t, 2)
		time.Sleep(time.Millisecond)
		_ = o.stream.Reset()
		synctest.Wait()

		m := a.peer.Join(handling())
		s := make(chan network.Stream, 1)
		a.evil.Handle(ownPrefix+chat, func(ctx context.Context, st network.Stream) {
			s <- st
			_, _ = st.Write(cat(appendWelcome(nil, 0, firstWindow, 1<<20, 0, 0), unknown))
			<-ctx.Done()
		})
		r := send(t, m, a.evil.Local(), "x", network.Handled)
		st := <-s
		synctest.Wait()
		_, _ = st.Write(cat(unknown, appendAck(nil, 1, wireHandled)))
		if o := r.wait(t); o.Err != nil || o.Level != network.Handled {
			t.Fatalf("ended %+v", o)
		}
		if n := a.node.Stats().BadFrames; n != 0 {
			t.Fatalf("%d bad frames counted", n)
		}
		m.Leave()
		_ = st.Reset()
	})
}
