package conn

import (
	"time"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
	"github.com/parley-p2p/parley/wire/p2p"
)

// keepalive is what a connection knows about its peer's being alive. It is
// guarded by Conn.mu.
type keepalive struct {
	active     bool // something came since the last tick
	idle       time.Duration
	unanswered int
	pingMs     uint64 // the last ping's own time
	pingAt     time.Time
	rtt        time.Duration
}

// sample takes a measured round trip into account; the shortest of the time
// holds, since waiting can only make one longer.
func (k *keepalive) sample(d time.Duration) {
	if k.rtt == 0 || d < k.rtt {
		k.rtt = d
	}
}

// startTimer starts what watches over the connection's times.
func (c *Conn) startTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timing.Add(1)
	c.timer = time.AfterFunc(c.nextLook(), c.onTick)
}

// arm sets when to look next. It is called with the lock held.
func (c *Conn) arm(d time.Duration) {
	if c.timer != nil && !c.timer.Reset(d) {
		c.timing.Add(1)
	}
}

func (c *Conn) stopTimer() {
	c.mu.Lock()
	if c.timer.Stop() {
		c.timing.Done()
	}
	c.timer = nil
	c.mu.Unlock()
	c.timing.Wait()
}

// tick is the time between two looks. It divides the hello's and the ping's.
func (c *Conn) tick() time.Duration { return min(c.limits.Keepalive/3, helloWait) }

// nextLook is the time until the next look. It is called with the lock held.
func (c *Conn) nextLook() time.Duration {
	if c.draining || c.broken != nil {
		return max(time.Until(c.finishBy), 0)
	}
	return c.tick()
}

func (c *Conn) onTick() {
	defer c.timing.Done()
	now := time.Now()
	if err := c.watch(now); err != nil {
		c.end(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err == nil:
		c.arm(c.nextLook())
	case !now.Before(c.finishBy):
		c.carrier.Close() // both loops end
	}
}

// watch looks at the clocks. An error ends the connection.
func (c *Conn) watch(now time.Time) *Error {
	if !c.known() && now.Sub(c.born) >= helloWait {
		c.setPeer(peer{documentOnly: true, maxContent: defaultContent, maxChannels: 1 << 30}, [32]byte{})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil
	case c.broken != nil && !now.Before(c.finishBy):
		return c.broken
	case c.draining && !now.Before(c.finishBy):
		return errStops
	case !c.writing.IsZero() && now.Sub(c.writing) > c.limits.WriteTimeout:
		return errorf(Lost, "connection lost: the other end takes no bytes")
	case c.cfg.Loopback:
		return nil
	case len(c.streams) == 0 && !c.used && now.Sub(c.born) >= c.limits.OnlyHello:
		c.cfg.Metrics.Refused[RefusedHello].Add(1)
		return errorf(Closed, "nothing but hellos on the connection")
	case len(c.streams) == 0 && now.Sub(c.emptySince) >= c.limits.NoChannels:
		c.cfg.Metrics.Refused[RefusedUnused].Add(1)
		return errorf(Closed, "no channels on the connection")
	}
	if c.keep.active || c.readStall != nil { // a stall is this end's doing
		c.keep.active, c.keep.idle, c.keep.unanswered = false, 0, 0
		return nil
	}
	c.keep.idle += c.tick()
	if c.keep.idle < c.limits.Keepalive {
		return nil
	}
	c.keep.idle = 0
	return c.ping(now)
}

// ping sends a ping on any system channel. It is called with the lock held.
func (c *Conn) ping(now time.Time) *Error {
	for _, s := range c.streams {
		if !s.system || s.hops != 0 || s.sink != nil || s.state != open || s.closing {
			continue
		}
		if c.keep.unanswered == unansweredPings {
			return errorf(Lost, "connection lost: pings are not answered")
		}
		c.keep.unanswered++
		c.keep.pingAt, c.keep.pingMs = now, uint64(now.UnixMilli())
		c.sendSystem(s, &p2p.Ping{SentMs: c.keep.pingMs})
		return nil
	}
	return nil
}

// sendSystem sends a content of the connection's own where there is credit for
// it. It is called with the lock held.
func (c *Conn) sendSystem(s *Stream, m p2p.Message) {
	raw, err := p2p.Append(nil, m)
	if err != nil || s.credit < cost(len(raw)) || s.tx.bytes >= sendQueue {
		return
	}
	if c.cfg.Encoding == wire.Packed {
		raw = wire.Pack(nil, raw)
	}
	s.credit -= cost(len(raw))
	rec := mux.AppendRecord(nil, c.cfg.Encoding, &mux.Message{Kind: mux.Content, Channel: s.id, Content: raw})
	s.tx.push(c.cfg.Buffers, rec)
	s.countOut(len(raw))
	c.makeReady(s)
	c.signal()
}

// onPing answers a ping and takes a pong, and reports whether content was one.
// It is called with the lock held.
func (c *Conn) onPing(s *Stream, content []byte) bool {
	const longest = 64
	if len(content) > longest {
		return false
	}
	raw, err := p2p.Unpacked(c.cfg.Encoding, content, make([]byte, 0, longest))
	if err != nil {
		return false
	}
	any, err := p2p.Decode(raw)
	if err != nil {
		return false
	}
	switch m := any.(type) {
	case *p2p.Ping:
		c.sendSystem(s, &p2p.Pong{PingSentMs: m.SentMs, ReceivedMs: uint64(time.Now().UnixMilli())})
	case *p2p.Pong:
		if m.PingSentMs == c.keep.pingMs && !c.keep.pingAt.IsZero() {
			c.keep.rtt = time.Since(c.keep.pingAt)
			c.keep.pingAt = time.Time{}
		}
		c.keep.unanswered = 0
	default:
		return false
	}
	s.consumed(cost(len(content)))
	return true
}
