package gatewaytest

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Room is a session's part in a space of the fake network. Channels have flow
// control: each direction holds ChannelBuffer bytes that were not received.
type Room struct {
	h     *Hold
	space string

	// guarded by the Backend's mu
	left      bool
	listeners map[string]*Listener
	channels  map[*Channel]bool
}

const (
	// ChannelBuffer is how much a direction of a Channel holds.
	ChannelBuffer = 256 << 10
	backlog       = 128
)

// JoinSpace implements gateway.Peer.
func (h *Hold) JoinSpace(_ context.Context, name string) (gateway.Room, error) {
	if len(name) == 0 || len(name) > 255 {
		return nil, &identity.Error{Code: identity.CodeBadSpaceHash, Text: "a space's name is 1 to 255 bytes"}
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	r := &Room{h: h, space: name, listeners: map[string]*Listener{}, channels: map[*Channel]bool{}}
	h.b.rooms = append(h.b.rooms, r)
	return r, nil
}

// Rooms counts the memberships that sessions hold.
func (b *Backend) Rooms() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.rooms)
}

// Channels counts the ends of channels that have not ended.
func (b *Backend) Channels() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rooms {
		n += len(r.channels)
	}
	return n
}

// Open implements gateway.Room.
func (r *Room) Open(ctx context.Context, to identity.PeerID, protocol string, o gateway.OpenOptions) (gateway.Channel, error) {
	if gate := r.h.b.OpenGate; gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b := r.h.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.left {
		return nil, &identity.Error{Code: identity.CodeNotJoined, Text: "left"}
	}
	known := false
	for _, other := range b.rooms {
		if other.h.id != to || other.space != r.space {
			continue
		}
		known = true
		l := other.listeners[protocol]
		if l == nil {
			continue
		}
		near, far := pipe(r, other, protocol, o.Via)
		select {
		case l.queue <- far:
			r.channels[near], other.channels[far] = true, true
			return near, nil
		default:
			return nil, &identity.Error{Code: identity.CodeLimit, Text: "backlog"}
		}
	}
	if known {
		return nil, &identity.Error{Code: identity.CodeBadSpaceHash, Text: "nobody listens"}
	}
	return nil, &identity.Error{Code: identity.CodeBadToID, Text: "no such agent"}
}

// Listen implements gateway.Room.
func (r *Room) Listen(protocol string) (gateway.Listener, error) {
	r.h.b.mu.Lock()
	defer r.h.b.mu.Unlock()
	switch {
	case r.left:
		return nil, &identity.Error{Code: identity.CodeNotJoined, Text: "left"}
	case r.listeners[protocol] != nil:
		return nil, &identity.Error{Code: identity.CodeAlreadyStarted, Text: "listening"}
	}
	l := &Listener{r: r, protocol: protocol, queue: make(chan *Channel, backlog), done: make(chan struct{})}
	r.listeners[protocol] = l
	return l, nil
}

// Leave implements gateway.Room.
func (r *Room) Leave() {
	b := r.h.b
	b.mu.Lock()
	if r.left {
		b.mu.Unlock()
		return
	}
	r.left = true
	b.rooms = slices.DeleteFunc(b.rooms, func(o *Room) bool { return o == r })
	listeners, channels := r.listeners, r.channels
	r.listeners, r.channels = nil, nil
	b.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	for c := range channels {
		c.Close()
	}
}

// Listener takes channels.
type Listener struct {
	r        *Room
	protocol string
	queue    chan *Channel
	done     chan struct{}
	once     sync.Once
}

// Accept implements gateway.Listener.
func (l *Listener) Accept(ctx context.Context) (gateway.Channel, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &identity.Error{Code: identity.CodeClosed, Text: "not listening"}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close implements gateway.Listener.
func (l *Listener) Close() {
	l.once.Do(func() {
		l.r.h.b.mu.Lock()
		if l.r.listeners[l.protocol] == l {
			delete(l.r.listeners, l.protocol)
		}
		l.r.h.b.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.CloseWithError(identity.CodeBadSpaceHash, "nobody listens any more")
			default:
				return
			}
		}
	})
}

// Channel is one end of a channel.
type Channel struct {
	r        *Room
	other    *Channel
	in       *flow.Queue[[]byte] // what came and was not received
	done     chan struct{}
	protocol string
	relay    identity.PeerID

	mu    sync.Mutex
	ended bool
	err   error
}

func pipe(a, b *Room, protocol string, relay identity.PeerID) (near, far *Channel) {
	end := func(r *Room) *Channel {
		return &Channel{r: r, in: flow.NewQueue[[]byte](ChannelBuffer), done: make(chan struct{}), protocol: protocol, relay: relay}
	}
	near, far = end(a), end(b)
	near.other, far.other = far, near
	return near, far
}

// Unread is what came and was not received.
func (c *Channel) Unread() int { return c.in.Bytes() }

// Send implements gateway.Channel.
func (c *Channel) Send(ctx context.Context, content []byte) error {
	if len(content) > 64<<10 {
		return &identity.Error{Code: identity.CodeTooLarge, Text: "too large"}
	}
	return c.other.in.Push(ctx, flow.Bulk, append([]byte{}, content...), max(len(content), 32))
}

// Receive implements gateway.Channel.
func (c *Channel) Receive(ctx context.Context) ([]byte, error) {
	got, err := c.in.Pop(ctx, 1, nil)
	if len(got) > 0 {
		return got[0], nil
	}
	return nil, err
}

// Close implements gateway.Channel.
func (c *Channel) Close() { c.end(nil, nil) }

// CloseWithError implements gateway.Channel.
func (c *Channel) CloseWithError(code identity.Code, text string) {
	err := &identity.Error{Code: code, Text: text}
	c.end(err, err)
}

// Lose ends both ends as a broken connection does.
func (c *Channel) Lose() {
	err := &identity.Error{Code: identity.CodeLost, Text: "connection lost"}
	c.end(err, err)
}

func (c *Channel) end(here, there error) {
	eof := there
	if eof == nil {
		eof = io.EOF
	}
	own := here
	if own == nil {
		own = &identity.Error{Code: identity.CodeClosed, Text: "closed"}
	}
	b := c.r.h.b
	b.mu.Lock() // who hears of the end finds neither
	delete(c.r.channels, c)
	delete(c.other.r.channels, c.other)
	b.mu.Unlock()
	c.finish(here, own)
	c.other.finish(there, eof)
}

func (c *Channel) finish(err, reading error) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended, c.err = true, err
	close(c.done)
	c.mu.Unlock()
	c.in.Close(reading)
}

// Info implements gateway.Channel.
func (c *Channel) Info() gateway.ChannelInfo {
	path := network.PathLocal
	if c.relay != "" {
		path = network.PathRelay
	}
	return gateway.ChannelInfo{Protocol: c.protocol, Remote: c.other.r.h.id, Verified: true, Path: path, Relay: c.relay, RTT: 0.25}
}

// Done implements gateway.Channel.
func (c *Channel) Done() <-chan struct{} { return c.done }

// Err implements gateway.Channel.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
