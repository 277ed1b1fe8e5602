package spaces_test

import (
	"bytes"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type page = gatewaytest.Page2

// two pages in the space "s", of which bob takes channels of "p".
func two(t *testing.T, opts ...gatewaytest.Option) (s *gatewaytest.Server, ann, bob *page) {
	t.Helper()
	s = gatewaytest.Start(t, opts...)
	ann, bob = gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join2(t, s, v2.HelloFrame{})
	for _, p := range []*page{ann, bob} {
		p.JoinSpace("s")
	}
	bob.Listen("s", "p")
	return s, ann, bob
}

// joined is two pages with a channel, number 1 of ann's and 2 of bob's.
func joined(t *testing.T, opts ...gatewaytest.Option) (s *gatewaytest.Server, ann, bob *page) {
	t.Helper()
	s, ann, bob = two(t, opts...)
	ann.Open("s", bob.Welcome.Peer, "p", 1)
	if in := bob.Incoming(); in.ID != 2 {
		t.Fatalf("the first channel that comes in is number %d", in.ID)
	}
	return s, ann, bob
}

func TestChannel_CarriesContentsBothWays(t *testing.T) {
	s, ann, bob := two(t)
	out := ann.Open("s", bob.Welcome.Peer, "p", 7)
	in := bob.Incoming()
	if out.Window != 256<<10 || in.Window != 256<<10 || in.Space != "s" {
		t.Errorf("opened %+v, came in as %+v", out, in)
	}
	if in.Info["remote"] != ann.Welcome.Peer || out.Info["remote"] != bob.Welcome.Peer || in.Info["verified"] != true ||
		in.Info["path"] != "local" || in.Info["relay"] != "" || in.Info["rtt"] != 0.25 {
		t.Errorf("info %v and %v", out.Info, in.Info)
	}
	if n := s.Gateway.Stats().Channels; n != 2 {
		t.Errorf("%d channels are counted", n)
	}
	for i := range 5 {
		ann.Content(7, fmt.Appendf(nil, "to bob %d", i))
	}
	bob.Content(in.ID, nil)
	for i := range 5 {
		if got := bob.WantContent(in.ID); string(got) != fmt.Sprintf("to bob %d", i) {
			t.Errorf("content %d is %q", i, got)
		}
	}
	if got := ann.WantContent(7); len(got) != 0 {
		t.Errorf("an empty content is %q", got)
	}
	ann.Content(7, []byte("last"))
	ann.End(7, "", "")
	if got := bob.WantContent(in.ID); string(got) != "last" {
		t.Errorf("what was sent before the end is %q", got)
	}
	for _, p := range []struct {
		*page
		id uint64
	}{{bob, in.ID}, {ann, 7}} {
		if code, text := p.WantEnd(p.id); code != "" || text != "" {
			t.Errorf("ended with %q %q", code, text)
		}
	}
	if n := s.Gateway.Stats().Channels; n != 0 || s.Backend.Channels() != 0 {
		t.Errorf("%d channels are counted, %d are open", n, s.Backend.Channels())
	}
}

// TestChannel_AFastPageWaits fills the window of a page whose other end reads
// nothing: no credit comes, and everything does once it reads.
func TestChannel_AFastPageWaits(t *testing.T) {
	_, ann, bob := joined(t)
	const size = 16 << 10
	// The channel itself takes 256 KiB, and bob's page another 256 KiB.
	sent, credit := 0, 256<<10
	write := func() {
		for credit >= size {
			ann.Content(1, bytes.Repeat([]byte{byte(sent / size)}, size))
			sent, credit = sent+size, credit-size
		}
	}
	write()
	for sent < 512<<10 {
		credit += int(ann.WantCredit(1))
		write()
	}
	for read := 0; read < 2<<20; read += size {
		got := bob.WantContent(2)
		if len(got) != size || got[0] != byte(read/size) || got[size-1] != byte(read/size) {
			t.Fatalf("content %d begins with %d and has %d bytes", read/size, got[0], len(got))
		}
		if read%(128<<10) == 0 {
			bob.Credit(2, 128<<10)
		}
		for sent < read+(512<<10) && sent < 2<<20 {
			if credit < size {
				credit += int(ann.WantCredit(1))
			}
			write()
		}
	}
}

// TestChannel_ASlowPageHoldsUpItsChannelAlone: a page that grants no more gets
// its window and not a byte more, while everything else goes on.
func TestChannel_ASlowPageHoldsUpItsChannelAlone(t *testing.T) {
	_, ann, bob := joined(t)
	ann.Open("s", bob.Welcome.Peer, "p", 3)
	bob.Incoming()
	bob.Call("start", map[string]any{"protocol": "chat"})
	chunk := make([]byte, 64<<10)
	for range 4 {
		ann.Content(1, chunk)
	}
	for range 4 {
		bob.WantContent(2)
	}
	ann.WantCredit(1)
	ann.Content(1, chunk) // stays in the node
	for i := range 100 {
		ann.Content(3, []byte("quick"))
		ann.Send(bob.Welcome.Peer, "chat", "hi", network.Queued, false)
		kinds := map[v2.Kind]int{bob.Next().Kind: 1}
		kinds[bob.Next().Kind]++
		if kinds[v2.KindContent] != 1 || kinds[v2.KindMessage] != 1 {
			t.Fatalf("round %d brought %v", i, kinds)
		}
	}
	bob.Credit(2, 64<<10)
	if got := bob.WantContent(2); len(got) != len(chunk) {
		t.Errorf("with credit again came %d bytes", len(got))
	}
}

// TestChannel_LeavesRoomForPublications: contents for a page that takes nothing
// don't push publications out.
func TestChannel_LeavesRoomForPublications(t *testing.T) {
	s, ann, bob := joined(t, gatewaytest.WithConfig(gateway.Config{SessionBuffer: 1 << 20}))
	bob.Call("subscribe", map[string]any{"topic": "room"})
	chunk := make([]byte, 64<<10)
	for id := uint64(3); id < 21; id += 2 {
		ann.Open("s", bob.Welcome.Peer, "p", id)
		for range 4 {
			ann.Content(id, chunk)
		}
	}
	for i := range 200 {
		ann.Call("publish", map[string]any{"topic": "room", "data": i})
	}
	seen := 0
	for seen < 200 {
		f := bob.Next()
		if f.Kind == v2.KindPublication {
			seen++
		}
		bob.Ack()
	}
	if n := s.Gateway.Stats().PublicationsLost; n != 0 {
		t.Errorf("%d publications were lost", n)
	}
}

func TestSpaces_JoinAndLeave(t *testing.T) {
	s, ann, bob := joined(t)
	refused := func(p *page, want identity.Code, method string, params map[string]any) {
		t.Helper()
		if code, text := p.Fail(method, params); code != want {
			t.Errorf("%s %v: %s %q, want %s", method, params, code, text, want)
		}
	}
	inSpace := func(space string) map[string]any { return map[string]any{"space": space} }
	refused(ann, identity.CodeAlreadyStarted, "join", inSpace("s"))
	refused(ann, identity.CodeBadSpaceHash, "join", inSpace(""))
	refused(ann, identity.CodeNotJoined, "leave", inSpace("other"))
	refused(ann, identity.CodeNotJoined, "open", gatewaytest.OpenParams("other", bob.Welcome.Peer, "p", 3))
	refused(ann, identity.CodeBadToID, "open", gatewaytest.OpenParams("s", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "p", 3))
	refused(ann, identity.CodeBadSpaceHash, "open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "q", 3))
	refused(ann, identity.CodeMalformed, "open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 1)) // in use
	refused(ann, identity.CodeMalformed, "open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 4)) // even
	tiny := gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 3)
	tiny["window"] = 1000
	refused(ann, identity.CodeMalformed, "open", tiny)
	refused(bob, identity.CodeAlreadyStarted, "listen", map[string]any{"space": "s", "protocol": "p", "window": 1 << 20})
	refused(ann, identity.CodeNotStarted, "unlisten", map[string]any{"space": "s", "protocol": "p"})
	refused(ann, identity.CodeNotFound, "info", map[string]any{"channel": 99})
	if got := ann.Call("info", map[string]any{"channel": 1}).(map[any]any); got["remote"] != bob.Welcome.Peer {
		t.Errorf("info is %v", got)
	}

	bob.Call("unlisten", map[string]any{"space": "s", "protocol": "p"})
	refused(ann, identity.CodeBadSpaceHash, "open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 3))
	ann.Content(1, []byte("still there"))
	if got := bob.WantContent(2); string(got) != "still there" {
		t.Errorf("a channel after unlisten carries %q", got)
	}
	bob.Call("leave", inSpace("s"))
	if code, _ := ann.WantEnd(1); code != "" {
		t.Errorf("the other one left: %q", code)
	}
	bob.JoinSpace("s")
	bob.Listen("s", "p")
	ann.Open("s", bob.Welcome.Peer, "p", 1) // the number is free again
	if n := s.Backend.Rooms(); n != 2 {
		t.Errorf("%d rooms are held", n)
	}
}

// TestChannel_ToOneself: an agent sends to itself, and its page has both ends.
func TestChannel_ToOneself(t *testing.T) {
	_, _, bob := two(t)
	id := bob.Request("open", gatewaytest.OpenParams("s", bob.Welcome.Peer, "p", 1))
	in := uint64(0)
	for range 2 { // either end may be told first
		f := bob.Next()
		switch got := gatewaytest.Elements(t, f); {
		case f.Kind == v2.KindResult && got[0] == id:
		case f.Kind == v2.KindIncoming && in == 0:
			in = got[0].(uint64)
		default:
			t.Fatalf("frame %d %v", f.Kind, got)
		}
	}
	bob.Content(1, []byte("me"))
	if got := bob.WantContent(in); string(got) != "me" {
		t.Errorf("got %q", got)
	}
}
