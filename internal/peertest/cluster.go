package peertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Cluster is a network in memory: hosts that reach each other by pipes. All
// links are up until Cut or Block. It starts one goroutine a handled stream,
// which Host.Close and Cluster.Close wait for.
type Cluster struct {
	mu    sync.Mutex
	delay time.Duration
	hosts map[identity.PeerID]*Host
	links map[linkKey]*link
}

type linkKey struct{ low, high identity.PeerID }

// link is what lies between two hosts: its state and its streams. Guarded by
// the cluster's mu.
type link struct {
	cut     bool
	blocked bool
	changed chan struct{} // closed and replaced when the state changes
	streams map[*Stream]struct{}
}

// New makes an empty cluster.
func New() *Cluster {
	return &Cluster{hosts: make(map[identity.PeerID]*Host), links: make(map[linkKey]*link)}
}

// SetDelay lets every byte written from now on arrive d later. It is meant for
// synctest.
func (c *Cluster) SetDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = d
}

// Host adds a host. A host of the same key that is still there is closed first,
// so this is also how a host restarts.
func (c *Cluster) Host(key identity.Key) *Host {
	id := key.PeerID()
	c.mu.Lock()
	old := c.hosts[id]
	c.mu.Unlock()
	if old != nil {
		old.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Host{cluster: c, id: id, ctx: ctx, cancel: cancel,
		handlers: make(map[network.Protocol]*registration), streams: make(map[*Stream]struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[id] = h
	return h
}

// Cut takes the path between a and b away: streams are reset, bytes on the way
// are lost, Open fails at once with CodeUnreachable.
func (c *Cluster) Cut(a, b identity.PeerID) {
	c.change(a, b, func(l *link) { l.cut = true })
	c.Reset(a, b)
}

// Block lets nothing pass between a and b, without an error anywhere: writes
// fill the buffers, Open waits. It is a partition that nobody has noticed.
func (c *Cluster) Block(a, b identity.PeerID) {
	c.change(a, b, func(l *link) { l.blocked = true })
}

// Heal undoes Cut and Block. What a Block held back arrives.
func (c *Cluster) Heal(a, b identity.PeerID) {
	c.change(a, b, func(l *link) { l.cut, l.blocked = false, false })
}

// Reset resets every stream between a and b; bytes on the way are lost. The
// path stays. It returns how many there were.
func (c *Cluster) Reset(a, b identity.PeerID) int {
	c.mu.Lock()
	l := c.link(a, b)
	streams := make([]*Stream, 0, len(l.streams))
	for s := range l.streams {
		streams = append(streams, s)
	}
	c.mu.Unlock()
	for _, s := range streams {
		_ = s.Reset()
	}
	return len(streams) / 2 // both ends are listed
}

// Streams is how many streams are open between a and b.
func (c *Cluster) Streams(a, b identity.PeerID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return (len(c.link(a, b).streams) + 1) / 2
}

// Close closes every host.
func (c *Cluster) Close() {
	c.mu.Lock()
	hosts := make([]*Host, 0, len(c.hosts))
	for _, h := range c.hosts {
		hosts = append(hosts, h)
	}
	c.mu.Unlock()
	for _, h := range hosts {
		h.Close()
	}
}

// link gives the link between a and b. The caller holds mu.
func (c *Cluster) link(a, b identity.PeerID) *link {
	k := linkKey{a, b}
	if b < a {
		k = linkKey{b, a}
	}
	l := c.links[k]
	if l == nil {
		l = &link{changed: make(chan struct{}), streams: make(map[*Stream]struct{})}
		c.links[k] = l
	}
	return l
}

func (c *Cluster) change(a, b identity.PeerID, f func(*link)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.link(a, b)
	f(l)
	close(l.changed)
	l.changed = make(chan struct{})
	for s := range l.streams {
		s.in.setBlocked(l.blocked)
	}
}

// path waits until the link lets something through, and gives the far host.
func (c *Cluster) path(ctx context.Context, from, to identity.PeerID) (*Host, error) {
	for {
		c.mu.Lock()
		l, h := c.link(from, to), c.hosts[to]
		cut, blocked, changed := l.cut, l.blocked, l.changed
		c.mu.Unlock()
		switch {
		case cut:
			return nil, identity.Errorf(identity.CodeUnreachable, "the path is cut")
		case blocked:
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, identity.Errorf(identity.CodeUnreachable, "no answer in time")
			}
		case h == nil:
			return nil, identity.Errorf(identity.CodeUnreachable, "no address found")
		}
		return h, nil
	}
}

// join makes a stream pair between two hosts. It fails when one of them closed.
func (c *Cluster) join(from, to *Host, p network.Protocol) (near, far *Stream, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosts[from.id] != from || c.hosts[to.id] != to {
		return nil, nil, errHostClosed
	}
	l := c.link(from.id, to.id)
	there, back := newPipe(c.delay, l.blocked), newPipe(c.delay, l.blocked)
	near = &Stream{cluster: c, local: from, remote: to, protocol: p, in: back, out: there}
	far = &Stream{cluster: c, local: to, remote: from, protocol: p, in: there, out: back}
	near.other, far.other = far, near
	for _, s := range []*Stream{near, far} {
		l.streams[s] = struct{}{}
		s.local.streams[s] = struct{}{}
	}
	return near, far, nil
}

// forget takes a stream that ended out of the tables.
func (c *Cluster) forget(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.link(s.local.id, s.remote.id).streams, s)
	delete(s.local.streams, s)
}

var errHostClosed = identity.Errorf(identity.CodeClosed, "host closed")

// Host is one identity in a Cluster. It implements network.Network.
type Host struct {
	// Static.
	cluster *Cluster
	id      identity.PeerID
	ctx     context.Context
	cancel  context.CancelFunc

	// Guarded by the cluster's mu.
	handlers map[network.Protocol]*registration
	streams  map[*Stream]struct{}
	closed   bool

	serving sync.WaitGroup
}

type registration struct{ handler network.Handler }

var _ network.Network = (*Host)(nil)

// Local is the host's id.
func (h *Host) Local() identity.PeerID { return h.id }

// Open opens a stream; see network.Network.
func (h *Host) Open(ctx context.Context, to identity.PeerID, protocols ...network.Protocol) (network.Stream, error) {
	far, err := h.cluster.path(ctx, h.id, to)
	if err != nil {
		return nil, err
	}
	c := h.cluster
	c.mu.Lock()
	var reg *registration
	var chosen network.Protocol
	for _, p := range protocols {
		if reg = far.handlers[p]; reg != nil {
			chosen = p
			break
		}
	}
	gone := far.closed
	if reg != nil && !gone {
		far.serving.Add(1)
	}
	c.mu.Unlock()
	if gone {
		return nil, identity.Errorf(identity.CodeUnreachable, "host closed")
	}
	if reg == nil {
		return nil, identity.Errorf(identity.CodeNotStarted, "peer speaks none of the protocols")
	}
	s, other, err := c.join(h, far, chosen)
	if err != nil {
		far.serving.Done()
		return nil, identity.Errorf(identity.CodeUnreachable, "host closed: %w", err)
	}
	go func() {
		defer far.serving.Done()
		reg.handler(far.ctx, other)
		if !other.ended() {
			_ = other.Reset()
		}
	}()
	return s, nil
}

// Handle registers a handler; see network.Network.
func (h *Host) Handle(p network.Protocol, handler network.Handler) (remove func()) {
	reg := &registration{handler: handler}
	h.cluster.mu.Lock()
	defer h.cluster.mu.Unlock()
	h.handlers[p] = reg
	return func() {
		h.cluster.mu.Lock()
		defer h.cluster.mu.Unlock()
		if h.handlers[p] == reg {
			delete(h.handlers, p)
		}
	}
}

// Protocols lists what the host handles now.
func (h *Host) Protocols() []network.Protocol {
	h.cluster.mu.Lock()
	defer h.cluster.mu.Unlock()
	list := make([]network.Protocol, 0, len(h.handlers))
	for p := range h.handlers {
		list = append(list, p)
	}
	return list
}

// Close resets the host's streams, takes it off the network and waits for its
// handlers. It is idempotent.
func (h *Host) Close() {
	c := h.cluster
	c.mu.Lock()
	if c.hosts[h.id] == h {
		delete(c.hosts, h.id)
	}
	h.closed = true
	streams := make([]*Stream, 0, len(h.streams))
	for s := range h.streams {
		streams = append(streams, s)
	}
	c.mu.Unlock()
	h.cancel()
	for _, s := range streams {
		_ = s.Reset()
	}
	h.serving.Wait()
}

// ErrReset is what both sides of a reset stream see.
var ErrReset = errors.New("stream reset")
