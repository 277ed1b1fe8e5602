package star_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

const (
	addrA = "/ip4/1.1.1.1"
	addrB = "/ip4/2.2.2.2"
	addrC = "/ip4/3.3.3.3"
)

// S-1: nothing is left of finished dials: no table entry, no buffer, no heap.
func TestS_1_FinishedDialsLeaveNothing(t *testing.T) {
	w := newWorld(t, star.Options{OpenJoins: true, AnyMultiaddr: true, Drain: -1, Announce: star.AnnounceOff, Limits: star.Limits{Dials: -1, Events: -1, Joins: -1}})
	a, b := w.at(addrA), w.at(addrB)
	dial := func(i int) {
		id := fmt.Sprint("d", i)
		a.dial(addrA, addrB, id)
		a.chunk(id+".dialer", []byte("x"))
		b.chunk(id+".listener", []byte("y"))
		a.emit(proxy.Error+id+".dialer", "=true")
		b.emit(proxy.Error+id+".listener", "=true")
		a.wait(`["` + proxy.Error + id + ".listener")
		b.wait(`["` + proxy.Error + id + ".dialer")
		a.forgetEvents()
		b.forgetEvents()
	}
	dials := 2_000
	if os.Getenv("PARLEY_LONG") != "" {
		dials = 20_000
	}
	i := 0
	for ; i < dials; i++ {
		dial(i)
	}
	if kept := leastKept(int64(dials)*100, func() {
		for range dials {
			i++
			dial(i)
		}
	}); kept > int64(dials)*100 {
		t.Errorf("%d bytes kept for %d dials: %d each", kept, dials, kept/int64(dials))
	}
	// The ends have been passed on; that nothing is left of them shows a moment later.
	s := w.star.Stats().Streams
	for late := time.Now().Add(time.Minute); (s.Dials != 0 || s.Held != 0) && time.Now().Before(late); s = w.star.Stats().Streams {
		<-time.After(time.Millisecond)
	}
	if s.Dials != 0 || s.Held != 0 {
		t.Errorf("left: %+v", s)
	}
}

// leastKept is what f leaves on the heap, at best: what is kept is kept each time, while
// a buffer that a connection needs for the first time is not. It is over once that is
// no more than enough.
func leastKept(enough int64, f func()) int64 {
	least := int64(math.MaxInt64)
	for range 4 {
		before := heapInUse()
		f()
		if least = min(least, heapInUse()-before); least <= enough {
			break
		}
	}
	return least
}

// heapInUse is what is left after collection.
func heapInUse() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (p *peer) forgetEvents() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = p.events[:0]
	clear(p.data)
}

// S-3: a dial is answered always: in 15 s, or at once when the callee goes; a late
// answer changes nothing.
func TestS_3_UnansweredDial(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		b.accept = false
		start := time.Now()
		if got := a.call("ss-dial", addrA, addrB, "late"); got != `["Dial timed out"]` {
			t.Errorf("no answer: %s", got)
		}
		if took := time.Since(start); took < 14*time.Second || took > 17*time.Second {
			t.Errorf("timed out after %v", took)
		}
		if got := b.wait(`["` + proxy.Error); got != `["`+proxy.Error+`late.dialer","Dial timed out"]` {
			t.Errorf("the callee hears %s", got)
		}
		b.ack(0) // late
		answer := a.start("ss-dial", addrA, addrB, "gone")
		b.wait(`["ss-incomming","gone"`)
		b.stop()
		if got := <-answer; got != `["Peer disconnected"]` {
			t.Errorf("callee gone: %s", got)
		}
		synctest.Wait()
		if s := w.star.Stats().Streams; s.Dials != 0 {
			t.Errorf("left: %+v", s)
		}
	})
}

func TestDialAnswers(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		b.accept = false
		for i, c := range []struct{ say, want string }{
			{`no, thank you`, `["no, thank you"]`}, {`={}`, `["Dial refused"]`}, {`=true`, `["Dial refused"]`}, {`=1`, `["Dial refused"]`},
			{strings.Repeat("x", 256), `["` + strings.Repeat("x", 256) + `"]`}, {strings.Repeat("x", 257), `["Dial refused"]`},
			{`=null`, `[]`}, {``, `[]`}, {`=0`, `[]`}, {`=false`, `[]`},
		} {
			answer := a.start("ss-dial", addrA, addrB, fmt.Sprint(i))
			b.wait(fmt.Sprintf(`["ss-incomming","%d"`, i))
			b.ack(int64(i), c.say)
			if got := <-answer; got != c.want {
				t.Errorf("the callee says %.20s: %.40s, want %.40s", c.say, got, c.want)
			}
		}
		// A dialer that goes before the answer: the callee hears the end.
		answer := a.start("ss-dial", addrA, addrB, "end")
		b.wait(`["ss-incomming","end"`)
		a.stop()
		<-answer
		if got := b.wait(`["` + proxy.Error + "end"); got != `["`+proxy.Error+`end.dialer",true]` {
			t.Errorf("the callee hears %s", got)
		}
	})
}

func TestDialOneself(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a := w.at(addrA)
		a.dial(addrA, addrA, "d")
		a.chunk("d.dialer", []byte("there"))
		a.chunk("d.listener", []byte("back"))
		if got := string(a.received("d.dialer", 5)) + string(a.received("d.listener", 4)); got != "thereback" {
			t.Errorf("received %q", got)
		}
		a.emit(proxy.Error+"d.dialer", "=true")
		a.emit(proxy.Error+"d.listener", "=true")
		a.wait(`["` + proxy.Error + "d.listener")
		synctest.Wait()
		if s := w.star.Stats().Streams; s.Dials != 0 {
			t.Errorf("left: %+v", s)
		}
	})
}

// S-11: dials are the dialer's: an id in use is refused, another dialer's same id
// gets a fresh name at the callee, and nobody else touches a stream.
func TestS_11_EqualDialIDs(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a, b, c := w.at(addrA), w.at(addrB), w.at(addrC)
		a.dial(addrA, addrC, "same")
		if got := a.call("ss-dial", addrA, addrC, "same"); got != `["Dial id in use"]` {
			t.Errorf("the same id again: %s", got)
		}
		b.dial(addrB, addrC, "same")
		c.wait(`["ss-incomming","same~1","` + addrB)
		b.chunk("same.dialer", []byte("from b"))
		a.chunk("same.dialer", []byte("from a"))
		c.chunk("same.listener", []byte("to a"))
		c.chunk("same~1.listener", []byte("to b"))
		for _, x := range []struct {
			p            *peer
			stream, want string
		}{{c, "same.dialer", "from a"}, {c, "same~1.dialer", "from b"}, {a, "same.listener", "to a"}, {b, "same.listener", "to b"}} {
			if got := string(x.p.received(x.stream, len(x.want))); got != x.want {
				t.Errorf("%s has %q, want %q", x.stream, got, x.want)
			}
		}
		stranger := w.at("/ip4/4.4.4.4")
		stranger.chunk("same.dialer", []byte("intruder"))
		stranger.emit(proxy.Error+"same.listener", "=true")
		stranger.emit(proxy.Error+"same.dialer", "=true")
		c.emit(proxy.Error+"same.dialer", "=true") // the reader can't end it
		a.chunk("same.dialer", []byte(" again"))
		if got := string(c.received("same.dialer", 12)); got != "from a again" {
			t.Errorf("after the intruder: %q", got)
		}
		b.emit(proxy.Error+"same.dialer", "bye")
		if got := c.wait(`["` + proxy.Error); got != `["`+proxy.Error+`same~1.dialer","bye"]` {
			t.Errorf("the end of the renamed stream: %s", got)
		}
	})
}

// S-14: a stream that did not end by itself ends with true for old clients when a
// peer vanished, with a string for sessions with extensions and for other causes.
func TestS_14_VanishedPeers(t *testing.T) {
	for _, strings := range []bool{false, true} {
		t.Run(fmt.Sprint("resetStrings=", strings), func(t *testing.T) {
			o := open
			o.ResetStrings = strings
			bubble(t, o, func(t *testing.T, w *world) {
				old, ext, gone := w.at(addrA), w.connect(extended), w.at(addrC)
				ext.join(addrB)
				old.dial(addrA, addrC, "1")
				ext.dial(addrB, addrC, "2")
				gone.dial(addrC, addrA, "3")
				gone.stop()
				want := "true"
				if strings {
					want = `"Peer disconnected"`
				}
				for _, name := range []string{"1.listener", "3.dialer"} {
					if got := old.wait(`["` + proxy.Error + name); got != `["`+proxy.Error+name+`",`+want+`]` {
						t.Errorf("the old client hears %s", got)
					}
				}
				if got := ext.wait(`["` + proxy.Error); got != `["`+proxy.Error+`2.listener","Peer disconnected"]` {
					t.Errorf("the extended client hears %s", got)
				}
				if got := ext.wait(`["parley.stop.`); got != `["parley.stop.2.dialer","Peer disconnected"]` {
					t.Errorf("the extended writer hears %s", got)
				}
			})
		})
	}
}

// S-14: the limit of a chunk is a setting; above it the connection is closed, and
// the other end's streams end as with any peer that vanishes.
func TestS_14_ChunkLimit(t *testing.T) {
	o := open
	o.Sockets.Message = 4 << 20
	for _, c := range []struct {
		o    star.Options
		pass int
	}{{open, 1_000_000 - 1}, {o, 4<<20 - 1}} {
		bubble(t, c.o, func(t *testing.T, w *world) {
			a, b := w.at(addrA), w.connect(socketio.DialOptions{Limits: socketio.Limits{Message: 8 << 20}})
			b.join(addrB)
			a.dial(addrA, addrB, "d")
			a.chunk("d.dialer", make([]byte, c.pass))
			if got := b.received("d.dialer", c.pass); len(got) != c.pass {
				t.Errorf("%d of %d bytes", len(got), c.pass)
			}
			a.chunk("d.dialer", make([]byte, c.pass+1))
			if got := b.wait(`["` + proxy.Error); got != `["`+proxy.Error+`d.dialer",true]` {
				t.Errorf("after a chunk above the limit: %s", got)
			}
			synctest.Wait()
			if n, _ := w.star.Metric(`parley_star_limit_hits_total{limit="message"}`); n != 1 {
				t.Errorf("counted %v times", n)
			}
		})
	}
}

// What ends a stream is passed on; what is not truthy, missing or too long is an
// error.
func TestEndArguments(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		for i, c := range []struct{ say, want string }{
			{"=true", "true"}, {"oops", `"oops"`}, {"={}", "{}"}, {`={"a":[1]}`, `{"a":[1]}`}, {"=1", "1"},
			{"=false", `"Stream failed"`}, {"=null", `"Stream failed"`}, {"", `"Stream failed"`}, {strings.Repeat("x", 2000), `"Stream failed"`},
		} {
			id := fmt.Sprint(i)
			a.dial(addrA, addrB, id)
			if c.say == "" {
				a.emit(proxy.Error + id + ".dialer")
			} else {
				a.emit(proxy.Error+id+".dialer", c.say)
			}
			a.emit(proxy.Error+id+".dialer", "second") // ignored
			if got := b.wait(`["` + proxy.Error + id + "."); got != `["`+proxy.Error+id+`.dialer",`+c.want+`]` {
				t.Errorf("%.20s ends as %s", c.say, got)
			}
		}
	})
}

// What may stand for a chunk: a buffer, also an empty one, a string, an array of
// numbers; the rest is dropped. Nothing reaches a reader before its accept.
func TestChunksOfAllForms(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		b.accept = false
		answer := a.start("ss-dial", addrA, addrB, "d")
		b.wait(`["ss-incomming"`)
		name := proxy.Queue + "d.dialer"
		a.chunk("d.dialer", []byte("buffer "))
		a.chunk("d.dialer", nil)
		a.emit(name, "string é ")
		a.emit(name, "=[0,255,65]")
		for _, bad := range []string{"=[256]", "=[-1]", "=[1.5]", `=["a"]`, "={}", "=null", "=7", "=[[1]]"} {
			a.emit(name, bad)
		}
		a.emit(name)
		a.emit(name, strings.Repeat("s", 200_000))
		synctest.Wait()
		if got := b.seen(name); len(got) != 0 {
			t.Errorf("before accept the reader has %q", got)
		}
		b.ack(0)
		<-answer
		b.emit(proxy.Accept + "d.dialer")
		want := "buffer string é \x00\xffA" + strings.Repeat("s", 200_000)
		if got := b.received("d.dialer", len(want)); string(got) != want {
			t.Errorf("received %d bytes beginning %q", len(got), got[:30])
		}
		if got := b.seen(name); got[1] != `["`+name+`",0]` {
			t.Errorf("the empty chunk is %s", got[1])
		}
	})
}

// A-1, S-17: 1 MiB both ways and half-close, over every kind of connection, in
// chunks of all sizes.
func TestEchoOverEveryWay(t *testing.T) {
	ways := map[string]socketio.DialOptions{"websocket": {}, "base64": {NoBinary: true}, "polling": {Transport: socketio.Polling},
		"upgraded": {Transport: socketio.Polling, Upgrade: true}, "extended": extended}
	for name, left := range ways {
		for other, right := range ways {
			t.Run(name+" and "+other, func(t *testing.T) {
				bubble(t, open, func(t *testing.T, w *world) {
					a, b := w.connect(left), w.connect(right)
					a.join(addrA)
					b.join(addrB)
					b.credit = other == "extended"
					a.dial(addrA, addrB, "d")
					var sent []byte
					total := 1 << 20
					if name == "extended" {
						total = proxy.Window // what may go without credit
					}
					for n := 1; len(sent) < total; n = n*3 + 1 {
						data := bytes.Repeat([]byte{byte(n)}, min(n, 60_000, total-len(sent)))
						sent = append(sent, data...)
						a.chunk("d.dialer", data)
					}
					a.emit(proxy.Error+"d.dialer", "=true")
					if got := b.received("d.dialer", len(sent)); !bytes.Equal(got, sent) {
						t.Fatal("the bytes differ")
					}
					b.wait(`["` + proxy.Error + "d.dialer")
					b.chunk("d.listener", []byte("after the half-close"))
					a.received("d.listener", 20)
					b.emit(proxy.Error+"d.listener", "=true")
					a.wait(`["` + proxy.Error + "d.listener")
				})
			})
		}
	}
}

func TestAbuse39_HundredThousandDials(t *testing.T) {
	o := open
	o.Limits.Dials = -1
	bubble(t, o, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		b.accept = false
		answers := map[string]int{}
		var pending []<-chan string
		for i := range 100_000 {
			pending = append(pending, a.start("ss-dial", addrA, addrB, fmt.Sprint(i)))
		}
		for _, p := range pending {
			answers[<-p]++
		}
		if answers[`["Dial timed out"]`] != 128 || answers[`["Too many dials"]`] != 100_000-128 {
			t.Errorf("answers: %v", answers)
		}
		synctest.Wait()
		if s := w.star.Stats().Streams; s.Dials != 0 {
			t.Errorf("left: %+v", s)
		}
	})
}

// S-7: the limits of dials and rates, each with its answer.
func TestS_7_Limits(t *testing.T) {
	o := open
	o.Limits = star.Limits{Dials: 1, DialBurst: 3, Joins: 1, JoinBurst: 4, AddressesPerIP: 3, NewSessionBurst: 3, NewSessionsPerIP: 1}
	o.Streams.DialsOfCallee, o.Streams.DialBytes, o.Streams.DialLife = 2, 1000, time.Minute
	bubble(t, o, func(t *testing.T, w *world) {
		a, b := w.at(addrA), w.at(addrB)
		a.dial(addrA, addrB, "1")
		a.dial(addrA, addrB, "2")
		if got := a.call("ss-dial", addrA, addrB, "3"); got != `["Too many dials"]` {
			t.Errorf("a third dial to one callee: %s", got)
		}
		if got := a.call("ss-dial", addrA, addrB, "4"); got != `["Rate limit reached"]` {
			t.Errorf("a fourth dial in a second: %s", got)
		}
		a.join(addrC)
		if got := a.call("ss-join", "/ip4/4.4.4.4", ""); got != `["Too many addresses"]` {
			t.Errorf("a fourth address of an IP: %s", got)
		}
		a.call("ss-join", addrC, "")
		if got := a.call("ss-join", addrC, ""); got != `["Rate limit reached"]` {
			t.Errorf("a fifth join in a second: %s", got)
		}
		a.chunk("1.dialer", make([]byte, 1000))
		b.received("1.dialer", 1000)
		a.chunk("1.dialer", make([]byte, 1))
		if got := b.wait(`["` + proxy.Error); got != `["`+proxy.Error+`1.dialer","Byte limit reached"]` {
			t.Errorf("after the bytes: %s", got)
		}
		a.wait(`["` + proxy.Error + `1.listener","Byte limit reached"`)
		time.Sleep(62 * time.Second)
		if got := b.wait(`["` + proxy.Error + "2"); got != `["`+proxy.Error+`2.dialer","Time limit reached"]` {
			t.Errorf("after the time: %s", got)
		}
		w.connect(socketio.DialOptions{})
		w.connect(socketio.DialOptions{})
		w.connect(socketio.DialOptions{})
		resp, err := w.client.Get(w.base.String() + "/socket.io/?EIO=3&transport=polling")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("a session too many: %d, retry after %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	})
}

// A session with neither address nor stream is closed after 120 s.
func TestS_7_IdleSessions(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		idle, joined, streaming := w.connect(socketio.DialOptions{}), w.at(addrA), w.at(addrB)
		streaming.dial(addrB, addrA, "d")
		streaming.emit("ss-leave", addrB)
		start := time.Now()
		if err := <-idle.ended; err == nil {
			t.Error("no reason")
		}
		if took := time.Since(start); took < 119*time.Second || took > 123*time.Second {
			t.Errorf("closed after %v", took)
		}
		time.Sleep(3 * time.Minute)
		if joined.sock.Err() != nil || streaming.sock.Err() != nil {
			t.Error("one that is not idle was closed")
		}
	})
}
