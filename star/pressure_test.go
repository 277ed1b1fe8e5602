package star_test

import (
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// send puts n chunks of 64 KiB on their way, each beginning with its number.
func (p *peer) send(stream string, n int) {
	for i := range n {
		data := make([]byte, 64<<10)
		copy(data, fmt.Sprint(i))
		p.chunk(stream, data)
	}
}

// S-4: a reader that takes nothing costs at most 1 MiB, its sender is not read but
// lives, loses the stream after 20 s, and its other streams go on.
func TestS_4_ReaderThatTakesNothing(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		sender, mute, friend := w.at(addrA), w.at(addrB), w.at(addrC)
		sender.dial(addrA, addrB, "mute")
		sender.dial(addrA, addrC, "friend")
		synctest.Wait()
		mute.block = make(chan struct{})
		w.at("/ip4/4.4.4.4") // an announcement, which blocks the reader
		start := time.Now()
		sender.send("mute.dialer", 512) // 32 MiB
		sender.chunk("friend.dialer", []byte("hello"))
		synctest.Wait()
		for range 18 {
			time.Sleep(time.Second)
			s := w.star.Stats().Streams
			if s.Held > 1<<20 {
				t.Fatalf("%d bytes held", s.Held)
			}
			if s.Paused != 1 {
				t.Fatalf("%d senders paused", s.Paused)
			}
		}
		if got := sender.wait(`["` + proxy.Error + "mute.listener"); got != `["`+proxy.Error+`mute.listener","Stream stalled"]` {
			t.Errorf("the sender hears %s", got)
		}
		if took := time.Since(start); took < 19*time.Second || took > 23*time.Second {
			t.Errorf("stalled after %v", took)
		}
		friend.received("friend.dialer", 5)
		if took := time.Since(start); took > 23*time.Second {
			t.Errorf("the other stream was delayed by %v", took)
		}
		if sender.sock.Err() != nil {
			t.Error("the sender was closed")
		}
		if err := <-mute.ended; err == nil || time.Since(start) > 60*time.Second {
			t.Errorf("the mute one: %v after %v", err, time.Since(start))
		}
	})
}

// S-4: a reader that never accepts is held for up to the window, then 20 s.
func TestS_4_ReaderThatNeverAccepts(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		sender, reader := w.at(addrA), w.at(addrB)
		reader.accept = false
		answer := sender.start("ss-dial", addrA, addrB, "d")
		reader.wait(`["ss-incomming"`)
		reader.ack(0)
		<-answer
		sender.send("d.dialer", 64)
		synctest.Wait()
		if s := w.star.Stats().Streams; s.Held > 256<<10+128<<10 || s.Paused != 1 {
			t.Errorf("held %d, paused %d", s.Held, s.Paused)
		}
		if got := reader.wait(`["` + proxy.Error); got != `["`+proxy.Error+`d.dialer","Stream stalled"]` {
			t.Errorf("the reader hears %s", got)
		}
		if len(reader.seen(proxy.Queue+"d.dialer")) != 0 {
			t.Error("chunks before accept")
		}
		synctest.Wait()
		if s := w.star.Stats().Streams; s.Held != 0 || s.Dials != 0 || s.Paused != 0 {
			t.Errorf("left: %+v", s)
		}
	})
}

// a sender held back for a minute by a reader that takes one chunk each 10 s
// stays connected and loses no byte.
func TestA_12_SlowReader(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		sender, slow := w.at(addrA), w.at(addrB)
		sender.dial(addrA, addrB, "d")
		synctest.Wait()
		taken := 0
		var first []string
		slow.onData = func(_ string, data []byte) {
			slow.sock.Hold()
			defer slow.sock.Release()
			select {
			case <-time.After(10 * time.Second): // virtual
			case <-slow.sock.Context().Done():
				return
			}
			if want := fmt.Sprint(taken); string(data[:len(want)]) != want {
				t.Errorf("chunk %d begins %q", taken, data[:5])
			}
			taken++
			first = append(first, string(data[:3]))
		}
		sender.send("d.dialer", 24)
		time.Sleep(5 * time.Minute)
		if sender.sock.Err() != nil || slow.sock.Err() != nil {
			t.Fatalf("ended: %v, %v", sender.sock.Err(), slow.sock.Err())
		}
		if taken != 24 {
			t.Errorf("%d of 24 chunks came: %q", taken, first)
		}
	})
}

// S-4: a sender with extensions gets no credit, and is never held back for one
// stream that is not read.
func TestS_4_CreditInsteadOfHolding(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		sender, reader := w.connect(extended), w.connect(extended)
		sender.join(addrA)
		reader.join(addrB)
		sender.dial(addrA, addrB, "slow")
		sender.dial(addrA, addrB, "fast")
		for range 4 {
			sender.chunk("slow.dialer", make([]byte, 64<<10))
		}
		reader.received("slow.dialer", 256<<10) // the reader's first window
		synctest.Wait()
		if got := sender.wait(`["` + proxy.Credit + "slow"); got != `["`+proxy.Credit+`slow.dialer",65536]` {
			t.Errorf("the sender hears %s", got)
		}
		for range 4 {
			sender.chunk("slow.dialer", make([]byte, 64<<10)) // credit of the server, none of the reader
		}
		synctest.Wait()
		if s := w.star.Stats().Streams; s.Held < 256<<10 || s.Held > 257<<10 || s.Paused != 0 {
			t.Errorf("held %d, paused %d", s.Held, s.Paused)
		}
		sender.chunk("fast.dialer", []byte("here"))
		reader.received("fast.dialer", 4)
		reader.emit(proxy.Credit+"slow.dialer", "=262144")
		reader.received("slow.dialer", 512<<10)
		// More than was given is a fault of that stream alone.
		for range 6 {
			sender.chunk("slow.dialer", make([]byte, 64<<10))
		}
		if got := reader.wait(`["` + proxy.Error); got != `["`+proxy.Error+`slow.dialer","Stream failed"]` {
			t.Errorf("beyond the credit: %s", got)
		}
		sender.chunk("fast.dialer", []byte(" still"))
		reader.received("fast.dialer", 10)
		// The reader stops the stream: the writer hears it.
		reader.emit(proxy.Stop+"fast.dialer", "enough")
		if got := sender.wait(`["` + proxy.Stop + "fast"); got != `["`+proxy.Stop+`fast.dialer","enough"]` {
			t.Errorf("the writer hears %s", got)
		}
		for _, bad := range []string{"=0", "=-5", "=1e9", "=99999999999999999999", `="x"`} {
			id := "credit" + bad
			sender.dial(addrA, addrB, id)
			reader.emit(proxy.Credit+id+".dialer", bad)
			if got := reader.wait(`["` + proxy.Error + id[:6]); got == "" {
				t.Errorf("credit %s is taken", bad)
			}
			reader.forgetEvents()
		}
	})
}

// S-4: when the server holds too much in all, the longest stalled streams go.
func TestS_4_ServerMemory(t *testing.T) {
	o := open
	o.Streams.Server, o.Streams.Stall = 300<<10, time.Hour
	bubble(t, o, func(t *testing.T, w *world) {
		sender := w.connect(extended)
		sender.join(addrA)
		for i, addr := range []string{addrB, addrC} {
			r := w.connect(extended)
			r.join(addr)
			id := fmt.Sprint(i)
			sender.dial(addrA, addr, id)
			for range 4 {
				sender.chunk(id+".dialer", make([]byte, 64<<10))
			}
			r.received(id+".dialer", 256<<10)
			synctest.Wait()
			for range 4 {
				sender.chunk(id+".dialer", make([]byte, 64<<10))
			}
			time.Sleep(1500 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if s := w.star.Stats().Streams; s.Held > 300<<10 || s.Dials != 1 {
			t.Errorf("held %d in %d dials", s.Held, s.Dials)
		}
		if got := sender.wait(`["` + proxy.Error); got != `["`+proxy.Error+`0.listener","Stream stalled"]` {
			t.Errorf("which went: %s", got)
		}
	})
}

// A rate slows its sender, and nothing is lost.
func TestS_7_Rates(t *testing.T) {
	o := open
	o.Policy = star.PolicyPublic
	o.Limits.SessionRate, o.Limits.IPRate = 1e6, 2e6
	bubble(t, o, func(t *testing.T, w *world) {
		a, b := w.connect(extended), w.at(addrB)
		a.join(addrA)
		if ext := string(a.client.Extension()); ext != `{"policy":{"bytes":134217728,"rate":1000000,"seconds":3600},"v":1,"window":262144}` {
			t.Errorf("the client is told %s", ext)
		}
		b.dial(addrB, addrA, "d")
		a.credit = true
		start := time.Now()
		b.send("d.dialer", 160) // 10 MiB: 10.5 s, less the first second's burst
		a.received("d.dialer", 160*64<<10)
		if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10 MiB at 1 MB/s took %v", took)
		}
	})
}

func TestExtensionsAreNotForOthers(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.connect(socketio.DialOptions{Query: url.Values{"parley": {"0"}}})
		b.join(addrB)
		if a.client.Extension() != nil || b.client.Extension() != nil {
			t.Error("told of extensions")
		}
		a.dial(addrA, addrB, "d")
		a.emit(proxy.Stop + "d.listener")
		a.emit(proxy.Credit+"d.listener", "=-1")
		b.chunk("d.listener", make([]byte, 200_000))
		a.received("d.listener", 200_000)
		a.chunk("d.dialer", make([]byte, 900_000))
		b.received("d.dialer", 900_000)
		for _, p := range []*peer{a, b} {
			for _, name := range []string{"parley.peers", proxy.Credit + "d.dialer", proxy.Credit + "d.listener", "parley.lost"} {
				if got := p.seen(name); len(got) > 0 {
					t.Errorf("an old client hears %q", got)
				}
			}
		}
	})
}
