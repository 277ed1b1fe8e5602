package parley

import (
	"context"
	"sync"
	"time"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/identity"
)

// pageSpaces is what one page's peer has joined, shared by its sessions: a
// channel.Node takes an agent once into a space, and lets it listen to a protocol
// once, and a person opens a page twice.
//
//	session ─ pageRoom ─┐
//	session ─ pageRoom ─┴ pageSpace ── channel.Member
type pageSpaces struct {
	node *Node
	key  identity.Key

	mu   sync.Mutex
	held map[string]*pageSpace
}

// pageSpace is a membership and how many rooms hold it.
type pageSpace struct {
	of   *pageSpaces
	name string
	made chan struct{} // closed when member or err is there

	// static once made is closed
	member channel.Member
	err    error

	// guarded by pageSpaces.mu
	holders   int
	listeners map[string]*sharedListener
}

// sharedListener is a listener and how many rooms hold it.
type sharedListener struct {
	channel.Listener
	holders int // guarded by pageSpaces.mu
}

func newPageSpaces(n *Node, key identity.Key) *pageSpaces {
	return &pageSpaces{node: n, key: key, held: make(map[string]*pageSpace)}
}

// join gives a session its room in a space.
func (s *pageSpaces) join(ctx context.Context, name string) (gateway.Room, error) {
	s.mu.Lock()
	p := s.held[name]
	mine := p == nil
	if mine {
		p = &pageSpace{of: s, name: name, made: make(chan struct{}), listeners: make(map[string]*sharedListener)}
		s.held[name] = p
	}
	p.holders++
	s.mu.Unlock()
	if mine {
		p.member, p.err = s.node.Space(name).Join(ctx, s.key)
		close(p.made)
	}
	r := &pageRoom{space: p}
	select {
	case <-p.made:
	case <-ctx.Done():
		r.Leave()
		return nil, ctx.Err()
	}
	if p.err != nil {
		r.Leave()
		return nil, p.err
	}
	return r, nil
}

// pageRoom is one session's hold on a membership. It implements gateway.Room.
type pageRoom struct{ space *pageSpace }

// Open implements gateway.Room.
func (r *pageRoom) Open(ctx context.Context, to identity.PeerID, protocol string, o gateway.OpenOptions) (gateway.Channel, error) {
	agent, err := identity.AgentOf(to)
	if err != nil {
		return nil, err
	}
	var opts []channel.OpenOption
	if o.DirectOnly {
		opts = append(opts, channel.DirectOnly())
	}
	if o.Via != "" {
		opts = append(opts, channel.Via(o.Via))
	}
	ch, err := r.space.member.Open(ctx, agent, protocol, opts...)
	if err != nil {
		return nil, err
	}
	return pageChannel{ch}, nil
}

// Listen implements gateway.Room.
func (r *pageRoom) Listen(protocol string) (gateway.Listener, error) {
	p := r.space
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	shared := p.listeners[protocol]
	if shared == nil {
		l, err := p.member.Listen(protocol)
		if err != nil {
			return nil, err
		}
		shared = &sharedListener{Listener: l}
		p.listeners[protocol] = shared
	}
	shared.holders++
	ctx, cancel := context.WithCancel(context.Background())
	return &pageListener{space: p, protocol: protocol, shared: shared, ctx: ctx, cancel: cancel}, nil
}

// Leave implements gateway.Room. The member leaves with the last room.
func (r *pageRoom) Leave() {
	p := r.space
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.holders--; p.holders > 0 {
		return
	}
	// Who joins next finds that the member has left. Whoever made the membership
	// held it, so it is made.
	delete(p.of.held, p.name)
	if p.err == nil {
		_ = p.member.Leave(context.Background()) // it has no system channels, for which alone it could wait
	}
}

// pageListener is one session's hold on a listener. It implements
// gateway.Listener.
type pageListener struct {
	space    *pageSpace
	protocol string
	shared   *sharedListener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
}

// Accept implements gateway.Listener. Each channel goes to one of the sessions
// that wait for it.
func (l *pageListener) Accept(ctx context.Context) (gateway.Channel, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	ch, err := l.shared.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return pageChannel{ch}, nil
}

// Close implements gateway.Listener. It is called once.
func (l *pageListener) Close() {
	l.cancel()
	p := l.space
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if l.shared.holders--; l.shared.holders == 0 {
		delete(p.listeners, l.protocol)
		_ = l.shared.Listener.Close() // it never fails
	}
}

// pageChannel is a channel in the words of pages. It implements gateway.Channel.
type pageChannel struct{ ch channel.Channel }

// Send implements gateway.Channel.
func (c pageChannel) Send(ctx context.Context, content []byte) error { return c.ch.Send(ctx, content) }

// Receive implements gateway.Channel.
func (c pageChannel) Receive(ctx context.Context) ([]byte, error) { return c.ch.Receive(ctx) }

// Close implements gateway.Channel.
func (c pageChannel) Close() { _ = c.ch.Close() } // it never fails

// CloseWithError implements gateway.Channel.
func (c pageChannel) CloseWithError(code identity.Code, text string) {
	_ = c.ch.CloseWithError(wireCode(code), text) // it never fails
}

// wireCode is a code that the other end is told.
func wireCode(code identity.Code) channel.ErrorCode {
	for _, c := range []channel.ErrorCode{channel.BadChannelID, channel.BadSpace, channel.BadTo, channel.BadFrom,
		channel.Limit, channel.RelayRefused, channel.RelayExpired} {
		if c.Identity() == code {
			return c
		}
	}
	return channel.Unknown
}

// Info implements gateway.Channel.
func (c pageChannel) Info() gateway.ChannelInfo {
	i := c.ch.Info()
	info := gateway.ChannelInfo{Protocol: i.Protocol, Verified: i.Verified, Path: i.Path, Relay: i.Relay,
		RTT: float64(i.RTT) / float64(time.Millisecond)}
	if id, err := i.Remote.PeerID(); err == nil {
		info.Remote = id
	}
	return info
}

// Done implements gateway.Channel.
func (c pageChannel) Done() <-chan struct{} { return c.ch.Done() }

// Err implements gateway.Channel.
func (c pageChannel) Err() error { return c.ch.Err() }
