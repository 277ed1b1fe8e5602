package gatewaytest

import (
	"github.com/parley-p2p/parley/identity"

	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// This file is the channels of a page by hand.

// PageWindow is the credit that Open and Listen give.
const PageWindow = 256 << 10

// Opened is a channel as the page was told of it.
type Opened struct {
	ID     uint64
	Window uint64 // credit that the page has at first
	Space  string // of an incoming one
	Info   map[any]any
}

// JoinSpace joins a space.
func (p *Page2) JoinSpace(space string) {
	p.t.Helper()
	p.Call("join", map[string]any{"space": space})
}

// Listen takes channels of a protocol.
func (p *Page2) Listen(space, protocol string) {
	p.t.Helper()
	p.Call("listen", map[string]any{"space": space, "protocol": protocol, "window": PageWindow})
}

// OpenParams are those of an open.
func OpenParams(space, to, protocol string, id uint64) map[string]any {
	return map[string]any{"space": space, "peer": to, "protocol": protocol, "channel": id, "window": PageWindow}
}

// Open opens a channel. Other frames are dropped.
func (p *Page2) Open(space, to, protocol string, id uint64) Opened {
	p.t.Helper()
	got, ok := p.Call("open", OpenParams(space, to, protocol, id)).(map[any]any)
	if !ok {
		p.t.Fatalf("open gave %v", got)
	}
	return Opened{ID: id, Window: got["window"].(uint64), Info: got["info"].(map[any]any)}
}

// Incoming waits for a channel that somebody opens.
func (p *Page2) Incoming() Opened {
	p.t.Helper()
	got := p.Want(v2.KindIncoming)
	return Opened{ID: got[0].(uint64), Space: got[1].(string), Window: got[3].(uint64), Info: got[4].(map[any]any)}
}

// Content sends a content.
func (p *Page2) Content(id uint64, content []byte) {
	p.t.Helper()
	p.Write(v2.AppendChannelContent(nil, id, content))
}

// Credit gives a channel credit.
func (p *Page2) Credit(id, n uint64) {
	p.t.Helper()
	p.Write(v2.AppendCredit(nil, id, n))
}

// End ends a channel, in order where code is "".
func (p *Page2) End(id uint64, code identity.Code, text string) {
	p.t.Helper()
	p.Write(v2.AppendEnd(nil, id, string(code), text, false))
}

// WantContent waits for the next frame, a content of this channel; an end that
// says that contents are still to come may be before it. It confirms what came.
func (p *Page2) WantContent(id uint64) []byte {
	p.t.Helper()
	f := p.Next()
	if f.Kind == v2.KindEnd {
		if e, err := f.End(); err != nil || !e.More || e.Channel != id {
			p.t.Fatalf("end %+v, %v, want a content of channel %d", e, err, id)
		}
		f = p.Next()
	}
	got, content, err := f.ChannelContent()
	if f.Kind != v2.KindContent || err != nil || got != id {
		p.t.Fatalf("frame %d, %v, of channel %d, want a content of channel %d", f.Kind, err, got, id)
	}
	if p.Got%8 == 0 {
		p.Ack()
	}
	return content
}

// Ack confirms what came.
func (p *Page2) Ack() {
	p.t.Helper()
	p.Write(v2.AppendCount(nil, v2.KindReceived, p.Got))
}

// WantCredit waits for the next frame, a credit of this channel.
func (p *Page2) WantCredit(id uint64) uint64 {
	p.t.Helper()
	got := p.Want(v2.KindCredit)
	if got[0] != id {
		p.t.Fatalf("credit of channel %v, want %d", got[0], id)
	}
	return got[1].(uint64)
}

// WantEnd waits for the last end of a channel, and drops everything before it
// but contents.
func (p *Page2) WantEnd(id uint64) (code identity.Code, text string) {
	p.t.Helper()
	for {
		f := p.Next()
		if f.Kind == v2.KindContent {
			p.t.Fatalf("content, want the end of channel %d", id)
		}
		if f.Kind != v2.KindEnd {
			continue
		}
		e, err := f.End()
		if err != nil {
			p.t.Fatal(err)
		}
		if e.Channel == id && !e.More {
			return identity.Code(e.Code), e.Text
		}
	}
}
