package spaces_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
)

// TestAbuse46_ContentsWithoutCredit: a page that sends more than it may loses the
// channel, and nothing else.
func TestAbuse46_ContentsWithoutCredit(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(p *page)
		code identity.Code
	}{
		{"more than its window", func(p *page) {
			for range 40 { // bob takes 4, the channel 4, and then nothing is granted
				p.Content(1, make([]byte, 64<<10))
			}
		}, identity.CodeLimit},
		{"many that are empty", func(p *page) {
			var frames []byte
			for range 40_000 {
				frames = v2.AppendChannelContent(frames, 1, nil)
			}
			p.Write(frames)
		}, identity.CodeLimit},
		{"a content that is too large", func(p *page) { p.Content(1, make([]byte, 64<<10+1)) }, identity.CodeTooLarge},
		{"credit of 2^53", func(p *page) { p.Credit(1, v2.MaxID) }, identity.CodeLimit},
		{"credit above 16 MiB", func(p *page) { p.Credit(1, 16<<20) }, identity.CodeLimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, ann, bob := joined(t)
			tt.do(ann)
			if code, text := ann.WantEnd(1); code != tt.code {
				t.Errorf("ended with %s %q, want %s", code, text, tt.code)
			}
			if s.Backend.Channels() != 0 {
				t.Error("the other end is still open")
			}
			ann.Open("s", bob.Welcome.Peer, "p", 3) // the session goes on
		})
	}
}

// TestAbuse46_FramesOfUnknownChannels: ids that never were, that are being
// opened, and that are over.
func TestAbuse46_FramesOfUnknownChannels(t *testing.T) {
	gate := make(chan struct{}, 2)
	gate <- struct{}{}
	b := gatewaytest.NewBackend()
	b.OpenGate = gate
	_, ann, bob := joined(t, gatewaytest.WithBackend(b))
	ann.End(1, "", "")
	ann.WantEnd(1)
	opening := ann.Request("open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 5))
	for _, id := range []uint64{0, 1, 2, 3, 5, v2.MaxID} {
		ann.Content(id, []byte("?"))
		ann.Credit(id, 1<<20)
		if id != 5 {
			ann.End(id, "lost", "?")
			ann.End(id, "", "")
		}
	}
	ann.Call("status", map[string]any{})
	bob.WantEnd(2)
	gate <- struct{}{}
	if got := ann.Want(v2.KindResult); got[0] != opening {
		t.Fatalf("the open is answered with %v", got)
	}
	ann.Content(5, []byte("!"))
	if got := bob.Incoming(); string(bob.WantContent(got.ID)) != "!" {
		t.Error("what was sent before the channel was open came")
	}
}

// TestChannel_CancelledOpen: a page gives an open up, by cancel or by end, in time
// or too late.
func TestChannel_CancelledOpen(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.OpenGate = make(chan struct{})
	s, ann, bob := two(t, gatewaytest.WithBackend(b))
	params := gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 1)
	for _, name := range []string{"cancel", "end"} {
		id := ann.Request("open", params)
		if name == "cancel" {
			ann.Write(v2.AppendCount(nil, v2.KindCancel, id))
		} else {
			ann.End(1, "", "")
		}
		if got := ann.Want(v2.KindError); got[0] != id || got[1] != "cancelled" {
			t.Errorf("%s: %v", name, got)
		}
	}
	close(b.OpenGate)
	ann.Open("s", bob.Welcome.Peer, "p", 1)
	in := bob.Incoming()
	ann.Write(v2.AppendCount(nil, v2.KindCancel, 1))
	ann.End(1, "unknown", "changed my mind")
	if code, text := bob.WantEnd(in.ID); code != identity.CodeUnknown || text != "changed my mind" {
		t.Errorf("ended with %s %q", code, text)
	}
	ann.WantEnd(1)
	if n := s.Backend.Channels(); n != 0 {
		t.Errorf("%d channels are left", n)
	}
}

// TestAbuse46_FloodOfOpens: a page opens no more than it may, and one to which
// others open too many gets the rest when it has ended some.
func TestAbuse46_FloodOfOpens(t *testing.T) {
	s, ann, bob := two(t)
	eve := gatewaytest.Join2(t, s, v2.HelloFrame{})
	eve.JoinSpace("s")
	for i := range uint64(128) {
		ann.Open("s", bob.Welcome.Peer, "p", 2*i+1)
	}
	if code, text := ann.Fail("open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 999)); code != identity.CodeLimit {
		t.Errorf("one too many: %s %q", code, text)
	}
	for range 128 {
		bob.Incoming()
	}
	eve.Open("s", bob.Welcome.Peer, "p", 1) // it waits to be taken
	if got := bob.Call("status", map[string]any{}); got == nil {
		t.Error("no status")
	}
	bob.End(2, "", "")
	ended := false
	for came := 0; came < 2; came++ { // what takes the place may come before the end
		f := bob.Next()
		switch got := gatewaytest.Elements(t, f); {
		case f.Kind == v2.KindEnd && got[0] == uint64(2) && !ended:
			ended = true
		case f.Kind == v2.KindIncoming:
			if remote := got[4].(map[any]any)["remote"]; remote != eve.Welcome.Peer || got[3] != uint64(64<<10) {
				t.Errorf("then comes %v", got)
			}
		default:
			t.Fatalf("frame %d %v", f.Kind, got)
		}
	}
}

// TestChannel_CloseRaces: whoever ends a channel, and when, both pages are told
// once, nothing is left, and what was sent before an end in order arrives.
func TestChannel_CloseRaces(t *testing.T) {
	s, ann, bob := two(t)
	id := uint64(1)
	rapid.Check(t, func(rt *rapid.T) {
		ann.Open("s", bob.Welcome.Peer, "p", id)
		in := bob.Incoming()
		codes := []identity.Code{"", "", identity.CodeUnknown}
		type side struct {
			*page
			id   uint64
			sent int
			code identity.Code
			ends bool
		}
		sides := []*side{{page: ann, id: id}, {page: bob, id: in.ID}}
		for i, p := range sides {
			p.sent = rapid.IntRange(0, 5).Draw(rt, "contents")
			p.ends = i == 0 || rapid.Bool().Draw(rt, "ends too")
			p.code = rapid.SampledFrom(codes).Draw(rt, "code")
		}
		for _, p := range sides {
			for range p.sent {
				p.Content(p.id, []byte("x"))
			}
			if p.ends {
				p.End(p.id, p.code, "")
			}
		}
		for i, p := range sides {
			got, ended := 0, false
			for !ended {
				f := p.Next()
				switch f.Kind {
				case v2.KindContent:
					got++
				case v2.KindEnd:
					e, err := f.End()
					if err != nil || e.Channel != p.id {
						rt.Fatalf("end %+v, %v of channel %d", e, err, p.id)
					}
					ended = !e.More
				}
			}
			if other := sides[1-i]; !p.ends && other.code == "" && got != other.sent {
				rt.Fatalf("%d of %d contents came before the end", got, other.sent)
			}
			p.Ack()
		}
		if n := s.Backend.Channels(); n != 0 {
			rt.Fatalf("%d channels are left", n)
		}
		id += 2
	})
}

// TestChannel_PageGone: the other end of a page's channels is told, whether the
// page says goodbye or its grace is over.
func TestChannel_PageGone(t *testing.T) {
	s, ann, bob := joined(t)
	bob.Content(2, []byte("unread"))
	ann.Open("s", bob.Welcome.Peer, "p", 3)
	bob.Incoming()
	_ = ann.WS.Close(1000, "")
	ends := map[uint64]bool{}
	for range 2 {
		f := bob.Next()
		for ; f.Kind != v2.KindEnd; f = bob.Next() {
		}
		e, err := f.End()
		if err != nil || e.Code != "unknown" || e.Text != "the page is gone" {
			t.Errorf("ended with %+v, %v", e, err)
		}
		ends[e.Channel] = true
	}
	if !ends[2] || !ends[4] {
		t.Errorf("the ends are of %v", ends)
	}
	gatewaytest.WaitFor(t, "the page to be out of its space", func() bool { return s.Backend.Rooms() == 1 })
}

// TestChannel_EndsWithAnErrorBehindWhatCame: what came before is still read, with
// credit, then the error; what the page sends meanwhile is known to go nowhere.
func TestChannel_EndsWithAnErrorBehindWhatCame(t *testing.T) {
	_, ann, bob := joined(t)
	for i := range 8 {
		ann.Content(1, make([]byte, 60<<10))
		if i == 3 || i == 6 {
			ann.WantCredit(1)
		}
	}
	for range 4 {
		bob.WantContent(2)
	}
	ann.End(1, "relay-expired", "over")
	for {
		if e, err := bob.Next().End(); err == nil {
			if !e.More || e.Code != "relay-expired" || e.Text != "over" {
				t.Fatalf("first told: %+v", e)
			}
			break
		}
	}
	bob.Content(2, []byte("nowhere"))
	bob.Credit(2, 256<<10)
	got := 4
	for ; ; got++ {
		f := bob.Next()
		if f.Kind == v2.KindContent {
			continue
		}
		if e, err := f.End(); err != nil || e.More || e.Code != "relay-expired" {
			t.Fatalf("last told: %+v, %v", e, err)
		}
		break
	}
	if got < 5 || got > 8 {
		t.Errorf("%d contents came", got)
	}
}

// TestChannel_ResumesInTheMiddle moves 2 MiB each way while the sockets are lost
// again and again: nothing is lost, nothing doubled, nothing out of order.
func TestChannel_ResumesInTheMiddle(t *testing.T) {
	for _, cut := range [][]int{{1}, {40}, {7, 1, 13}, {2, 30, 5, 9}} {
		t.Run(fmt.Sprint("after frames ", cut), func(t *testing.T) {
			s, ann, bob := joined(t)
			a, b := &transfer{page: ann, t: t, id: 1, credit: 256 << 10}, &transfer{page: bob, t: t, id: 2, credit: 256 << 10}
			a.other, b.other = b, a
			for round := 0; a.got < transferSize || b.got < transferSize; round++ {
				if round > 2000 {
					t.Fatalf("stuck at %d and %d bytes", a.got, b.got)
				}
				for i, x := range []*transfer{a, b} {
					x.write()
					for range cut[(round+i)%len(cut)] {
						if x.mayRead() {
							x.read()
						}
					}
					if round < 30 {
						x.lose(s)
					}
				}
			}
		})
	}
}

const (
	transferSize  = 2 << 20
	transferChunk = 32 << 10
)

// transfer is one page that sends and reads transferSize bytes.
type transfer struct {
	*page
	t                         *testing.T
	other                     *transfer
	id                        uint64
	sent, got, credit, unread int
	granted                   int // credit that came
	log                       [][]byte
	confirmed                 int
}

// number writes a numbered frame and keeps it until the node has it.
func (x *transfer) number(frame []byte) {
	x.log = append(x.log, frame)
	x.Write(frame)
}

func (x *transfer) write() {
	for ; x.credit >= transferChunk && x.sent < transferSize; x.credit -= transferChunk {
		x.number(v2.AppendChannelContent(nil, x.id, bytes.Repeat([]byte{byte(x.sent / transferChunk)}, transferChunk)))
		x.sent += transferChunk
	}
}

// mayRead reports whether something is sure to come: contents that the other page
// has sent, or credit for what the channel takes though the other page reads
// nothing, a window of its own and one of that page.
func (x *transfer) mayRead() bool {
	const window, worth = 256 << 10, 128 << 10
	taken := min(x.sent, window+window+x.other.got-x.other.unread)
	return x.got < x.other.sent || x.granted < taken/worth*worth
}

func (x *transfer) read() {
	f := x.Next()
	switch f.Kind {
	case v2.KindContent:
		_, content, err := f.ChannelContent()
		if err != nil || len(content) != transferChunk || content[0] != byte(x.got/transferChunk) {
			x.t.Fatalf("at %d came %d bytes that begin with %d", x.got, len(content), content[0])
		}
		x.got += len(content)
		if x.unread += len(content); x.unread >= 128<<10 {
			x.number(v2.AppendCredit(nil, x.id, uint64(x.unread)))
			x.unread = 0
		}
	case v2.KindCredit:
		_, n, _ := f.Credit()
		x.credit, x.granted = x.credit+int(n), x.granted+int(n)
	default:
		x.t.Fatalf("frame %d", f.Kind)
	}
	x.Ack()
}

// lose cuts the socket and goes on with another.
func (x *transfer) lose(s *gatewaytest.Server) {
	_ = x.WS.CloseNow()
	again := x.Resume(s, x.Got)
	// What the node has of those that were written: all before are confirmed.
	taken := int(again.Welcome.Received) - x.confirmed - 2 // join, and open or listen
	x.page = again
	for _, frame := range x.log[taken:] {
		x.Write(frame)
	}
	x.log, x.confirmed = x.log[taken:], x.confirmed+taken
}

// TestAbuse46_MemoryOfAHostilePage: a page that opens all it may and fills every
// window costs what docs/limits.md says and not more.
func TestAbuse46_MemoryOfAHostilePage(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 40 MiB")
	}
	_, ann, bob := two(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	chunk := make([]byte, 64<<10)
	sum := uint64(0)
	for i := range uint64(128) {
		o := ann.Open("s", bob.Welcome.Peer, "p", 2*i+1)
		sum += o.Window
		for range o.Window / uint64(len(chunk)) {
			ann.Content(o.ID, chunk)
		}
	}
	ann.Call("status", map[string]any{})
	if sum > 16<<20 {
		t.Errorf("windows of %d bytes", sum)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The windows, and what the fake's channels, bob's queue and the sockets hold.
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > int64(sum)+16<<20+24<<20 {
		t.Errorf("%d MiB are held for windows of %d", held>>20, sum>>20)
	}
}
