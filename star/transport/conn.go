package transport

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Conn is one dial through a star, before the handshake: two one-way streams
// (star.md §5) as one stream of bytes. Close ends both directions in an orderly
// way, Reset at once. One goroutine may read while another writes; everything else
// may be called by any.
type Conn struct {
	// Static after construction.
	sess    *session
	id      string // of the dial, as the star and this side know it
	dialled bool   // by this side
	local   ma.Multiaddr
	remote  ma.Multiaddr
	claim   peer.ID // who the star says that the other side is

	in      inbound
	out     outbound
	used    atomic.Int64 // bytes both ways
	near    atomic.Bool  // told that the budget nears its end
	waiting deadlines
	reading sync.Mutex // one Read at a time
	writing sync.Mutex // one Write at a time

	mu     sync.Mutex // guards in and out
	gone   bool       // out of the session's tables
	linger *time.Timer
}

type deadlines struct{ read, write deadline }

var (
	_ manet.Conn       = (*Conn)(nil)
	_ network.ConnStat = (*Conn)(nil)
)

func newConn(s *session, id string, dialled bool, claim peer.ID) *Conn {
	c := &Conn{sess: s, id: id, dialled: dialled, local: s.star.addr, remote: s.star.addr, claim: claim}
	writes, reads := proxy.Listener, proxy.Dialer
	if dialled {
		writes, reads = reads, writes
	}
	c.in.init(c, reads)
	c.out.init(c, writes)
	return c
}

// event sends an event about one of the streams; arg is JSON, "" for none. Those
// that follow chunks are Bulk, so that they don't overtake them.
func (c *Conn) event(class flow.Class, verb string, kind proxy.Kind, arg string) {
	_ = c.sess.sock.Send(class, socketio.Msg{Text: proxy.EventText(verb, c.id, kind, arg)}) // an ended socket ends the Conn
}

// CloseWrite ends the own direction behind what was written; the other side reads
// io.EOF.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	if c.out.err == nil {
		c.out.err = errConnClosed
	}
	c.out.finished = true
	c.mu.Unlock()
	c.out.wake()
	c.out.flush()
	return nil
}

// Close ends both directions. What was written and is on its way has some seconds
// to leave; what came and was not read is dropped.
func (c *Conn) Close() error {
	c.mu.Lock()
	if !c.gone && c.linger == nil {
		c.linger = time.AfterFunc(c.sess.star.t.opts.Times.Linger, func() { c.fail(ErrStreamFailed, ErrStreamFailed.Text) })
	}
	c.mu.Unlock()
	c.in.stop("closed")
	_ = c.CloseWrite()
	c.checkDone()
	return nil
}

// Reset ends both directions at once; the other side reads an error.
func (c *Conn) Reset() error {
	c.fail(errConnClosed, ErrStreamFailed.Text)
	return nil
}

// fail ends both directions with an error. tell, if not empty, is what the other
// side hears.
func (c *Conn) fail(err error, tell string) {
	c.mu.Lock()
	said := c.out.said
	c.out.said = true
	if c.out.err == nil || errors.Is(c.out.err, errConnClosed) {
		c.out.err = err
	}
	c.out.drop()
	c.mu.Unlock()
	if tell != "" && !said {
		c.event(flow.Bulk, proxy.Error, c.out.kind, strconv.Quote(tell))
	}
	c.in.fail(err, tell)
	c.out.wake()
	c.forget()
}

// checkDone takes the Conn out of its session once both directions have ended.
func (c *Conn) checkDone() {
	c.mu.Lock()
	done := c.out.said && c.in.over
	c.mu.Unlock()
	if done {
		c.forget()
	}
}

func (c *Conn) forget() {
	c.mu.Lock()
	first := !c.gone
	c.gone = true
	if c.linger != nil {
		c.linger.Stop()
	}
	c.mu.Unlock()
	if first {
		c.sess.forget(c)
	}
}

// spend counts n bytes against the budgets, and waits where a rate says so. An
// error ends the Conn.
func (c *Conn) spend(n int, dl *deadline) error {
	star := c.sess.star
	used, most := c.used.Add(int64(n)), star.opts.Budget.Dial
	if least := c.sess.policy.Bytes; least > 0 && (most == 0 || least < most) {
		most = least
	}
	if most > 0 && used > most/5*4 && !c.near.Swap(true) {
		star.t.nearLimit(c.claim)
	}
	err := error(nil)
	switch {
	case star.opts.Budget.Dial > 0 && used > star.opts.Budget.Dial:
		err = errBudget
	case !star.budget.spend(int64(n), time.Now()):
		err = errDayBudget
	}
	if err != nil {
		c.fail(err, ErrByteLimit.Text)
		return err
	}
	return star.budget.pace(c.sess.sock.Context(), n, dl)
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds Reads, also one under way.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.waiting.read.set(t)
	c.in.wake()
	return nil
}

// SetWriteDeadline bounds Writes, also one under way.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.waiting.write.set(t)
	c.out.wake()
	return nil
}

// LocalAddr is the own star address as net.Addr.
func (c *Conn) LocalAddr() net.Addr { return netAddr(c.sess.star.own) }

// RemoteAddr is the other's star address as net.Addr.
func (c *Conn) RemoteAddr() net.Addr {
	return netAddr(c.sess.star.at.With(c.claim.String()).String())
}

// LocalMultiaddr is the star.
func (c *Conn) LocalMultiaddr() ma.Multiaddr { return c.local }

// RemoteMultiaddr is the star: the id is proven by the handshake alone.
func (c *Conn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// Stat marks the connection as limited where either side's policy limits bytes or
// time.
func (c *Conn) Stat() network.ConnStats {
	b, p := c.sess.star.opts.Budget, c.sess.policy
	return network.ConnStats{Stats: network.Stats{
		Limited: b.Dial > 0 || b.Day > 0 || p.Bytes > 0 || p.Seconds > 0,
		Extra:   map[any]any{claimKey{}: c.claim},
	}}
}

// claimKey is where a connection's statistics hold who the star said it is.
type claimKey struct{}

type netAddr string

func (netAddr) Network() string  { return protocolName }
func (a netAddr) String() string { return string(a) }

// endError reads the argument of an error event; nil is a clean end.
func endError(e *socketio.Event) error {
	if len(e.Args) == 0 || !wire.Truthy(e.Args[0]) {
		return ErrStreamFailed
	}
	if string(e.Args[0]) == "true" {
		return nil
	}
	return refusal(e.Args[0])
}
