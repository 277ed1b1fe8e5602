package conn

import (
	"context"
	"errors"
	"time"

	"github.com/parley-p2p/parley/wire/mux"
)

// OpenTimeout is how long the other end has to accept a channel.
const OpenTimeout = 10 * time.Second

// Opening says which channel to create.
type Opening struct {
	SpaceHash, To, From []byte
	// Prove makes the fromProof once the id is known; nil sends none. Its error
	// ends the attempt.
	Prove  func(id uint32) ([]byte, error)
	System bool
	Hops   uint8
	Window int // first credit of the acceptor; 0 = as the hello said
	Sink   Sink
	User   any
	Proof  []byte // sent as it is where Prove is nil
}

// Accepting says how a channel is accepted.
type Accepting struct {
	Proof  []byte // toProof
	System bool
	Window int  // grows the creator's first credit to this, where that is more
	Hold   bool // the first window, which accepts, comes later by Grant
	Sink   Sink
	User   any
}

// Open creates a channel. It waits until the peer is known and until a channel
// may be created by rate, not until it is accepted.
func (c *Conn) Open(ctx context.Context, o Opening) (*Stream, error) {
	if err := c.waitReady(ctx); err != nil {
		return nil, err
	}
	if err := c.waitPace(ctx); err != nil {
		return nil, err
	}
	s, err := c.register(&o)
	if err != nil {
		return nil, err
	}
	proof := o.Proof
	if o.Prove != nil {
		if proof, err = o.Prove(s.id); err != nil {
			c.mu.Lock()
			c.endStream(s, lost(err)) // the id is skipped
			c.mu.Unlock()
			c.signal()
			return nil, err
		}
	}
	c.mu.Lock()
	s.create = &mux.Message{
		Kind: mux.Create, Channel: s.id, SpaceHash: o.SpaceHash, To: o.To, From: o.From,
		Proof: proof, Window: uint32(o.Window), Hops: o.Hops,
	}
	c.mu.Unlock()
	c.signal()
	return s, nil
}

func (c *Conn) waitReady(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	default:
	}
	select {
	case <-c.ready:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitPace keeps to what a peer with the same limits accepts.
func (c *Conn) waitPace(ctx context.Context) error {
	for {
		ok, retry := c.pace.Allow(1, time.Now())
		if ok {
			return nil
		}
		t := time.NewTimer(max(retry, time.Millisecond))
		select {
		case <-t.C:
		case <-c.done:
			t.Stop()
			return c.Err()
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// register gives the next id. Creates leave in the order of their ids.
func (c *Conn) register(o *Opening) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.draining {
		return nil, errStops
	}
	if len(c.streams) >= c.peer.maxChannels && !c.peer.documentOnly {
		return nil, errorf(Limit, "the other end takes no more channels on this connection")
	}
	if c.nextID >= reservedID-2 {
		return nil, errorf(Limit, "the connection has used up its channel ids")
	}
	s := c.newStream(c.nextID, o.System, o.Hops)
	c.nextID += 2
	s.own, s.sink, s.user = true, o.Sink, o.User
	if o.Window > 0 && !o.System && o.Hops == 0 {
		s.window, s.peerCredit = int64(o.Window), int64(o.Window)
	}
	c.opening = append(c.opening, s)
	return s, nil
}

// newStream makes a stream with the first credits of its kind and registers it.
func (c *Conn) newStream(id uint32, system bool, hops uint8) *Stream {
	s := &Stream{c: c, id: id, system: system, hops: hops, started: time.Now()}
	switch {
	case hops > 0:
		s.credit, s.window, s.maxContent = relayWindow, relayWindow, RelayContent
	case system:
		s.credit, s.window, s.maxContent = systemWindow, systemWindow, systemContent
	default:
		s.credit, s.window = c.peer.window, int64(c.limits.Window)
		s.maxContent = min(c.peer.maxContent, int(c.peer.window/2))
	}
	if c.peer.documentOnly {
		s.credit, s.maxContent = 1<<62, defaultContent
		if system {
			s.maxContent = systemContent
		}
	}
	s.peerCredit = s.window
	c.streams[id] = s
	c.used = true
	c.cfg.Metrics.Channels.Add(1)
	c.cfg.Metrics.Opened.Add(1)
	return s
}

// WaitAccepted waits until the peer accepted the channel. After OpenTimeout it
// closes the channel and reports Timeout.
func (s *Stream) WaitAccepted(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, OpenTimeout, errorf(Timeout, "the other end did not answer in time"))
	defer cancel()
	c := s.c
	c.mu.Lock()
	for s.state == opening {
		if err := s.wait(ctx, &s.writers); err != nil {
			c.mu.Unlock()
			s.Close()
			if errors.Is(err, context.DeadlineExceeded) {
				return context.Cause(ctx)
			}
			return err
		}
	}
	defer c.mu.Unlock()
	if s.state == ended {
		return s.sendErr()
	}
	return nil
}

// Accept takes the channel of a create, inside Handler.Create.
func (c *Conn) Accept(m *mux.Message, a Accepting) *Stream {
	c.mu.Lock()
	s := c.newStream(m.Channel, a.System, m.Hops)
	s.state, s.sink, s.user = open, a.Sink, a.User
	if m.Window > 0 && !a.System && m.Hops == 0 {
		s.credit = min(int64(m.Window), MaxCredit)
		s.maxContent = min(c.peer.maxContent, int(s.credit/2))
	}
	if !c.peer.documentOnly {
		s.proof = a.Proof
		extra := int64(0)
		if want := min(int64(a.Window), MaxCredit); want > s.window && m.Hops == 0 {
			extra = want - s.window
			s.window, s.peerCredit = want, want
		}
		if !a.Hold {
			c.queueGrant(s, extra)
		}
	}
	if c.draining {
		c.endBehind(s, errorf(Unknown, textStops))
	}
	c.mu.Unlock()
	c.signal()
	return s
}

// Refuse answers a create with an error, inside Handler.Create.
func (c *Conn) Refuse(m *mux.Message, code Code, text string) {
	c.mu.Lock()
	c.refuse(m.Channel, code, text)
	c.mu.Unlock()
	c.signal()
}
