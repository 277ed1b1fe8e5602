// Package conn is one multiplexed connection: records, credit, turns and limits
// (docs/spec/channels.md §2 to §10 and §13). It knows channels by number; which
// agents and spaces they join is its Handler's business, package channel's.
//
//	Send ─▶ Stream's queue ─┐                        ┌─▶ Stream's queue ─▶ Receive
//	Send ─▶ Stream's queue ─┤ turns   ┌──────────┐   │
//	        windows, errors ┴────────▶│ carrier  │──▶┴─▶ Handler, window, error
//	                        write loop└──────────┘read loop
//
// A connection has two goroutines: Run reads in its caller's, and one writes.
package conn

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// Handler decides about the channels of a connection. Its methods are called by
// the read loop, one at a time, and must not wait.
type Handler interface {
	// Hello is called first: the other end said hello, or is document-only.
	Hello(c *Conn)
	// Create is asked about a channel that the peer creates. It calls Accept or
	// Refuse once before it returns. Slices in m hold until then.
	Create(c *Conn, m *mux.Message)
	// Accepted is told that the peer accepted s, and how it proved itself. An
	// error ends the channel.
	Accepted(s *Stream, proof []byte) *Error
	// Relay gets the relay messages, and an error about the whole connection.
	Relay(c *Conn, m *mux.Message)
}

// Sink takes what comes on a channel that a relay bridges, instead of the
// channel's own queues. The read loop calls it, except for Sent, which the write
// loop calls; neither may wait.
type Sink interface {
	// Content gets one content. Where record is not nil it is the content as an
	// unpacked record in a buffer that is the sink's now.
	Content(s *Stream, content, record []byte)
	Window(s *Stream, add uint32)
	// Ended is called once: the peer closed (nil), reported an error, or is lost.
	Ended(s *Stream, err *Error)
	// Sent tells that the oldest content given to Forward has left for the peer.
	Sent(s *Stream)
}

// Conn is one connection. New makes it, Run serves it.
type Conn struct {
	// static after New
	cfg     Config
	limits  Limits
	carrier io.ReadWriteCloser
	handler Handler
	errors  *flow.Bucket // channel errors the peer may cause
	creates *flow.Bucket // channels the peer may create
	pace    *flow.Bucket // channels this end creates
	wake    chan struct{}
	ready   chan struct{} // closed when peer is known
	done    chan struct{} // closed when the connection is over for its streams
	written chan struct{} // closed when the write loop has ended
	timing  sync.WaitGroup

	// owned by the read loop
	in      *wire.Reader
	msg     mux.Message
	scratch []byte
	lastID  uint32 // highest the peer created
	unknown time.Time

	// owned by the write loop
	out    []byte
	batch  []segment
	sent   []*Stream
	over   []*Stream // ended behind what was sent, with a sink that was not told yet
	vec    net.Buffers
	msgOut mux.Message
	half   bool // the own direction has ended, or is broken

	// guarded by mu
	mu         sync.Mutex
	peer       peer
	peerNonce  [32]byte
	streams    map[uint32]*Stream
	nextID     uint32
	opening    []*Stream // own creates, in the order of their ids
	readyQueue list      // streams that have contents or their end to send
	grants     []*Stream // streams that have credit to give
	control    []byte    // other records, encoded
	ended      endedIDs
	unread     int64 // cost received and not read, of all streams
	readStall  chan struct{}
	failed     []*Stream // ended with a sink that was not told yet
	violations int       // contents without credit
	tooMany    bool      // the peer caused more errors than it may
	err        *Error    // why it ended
	finish     bool      // the write loop ends once everything is written
	draining   bool      // the connection ends in order
	broken     *Error    // the carrier takes no more; what it has brought is still read
	finishBy   time.Time
	keep       keepalive
	timer      *time.Timer
	writing    time.Time // since when the write loop waits for the carrier; zero when it does not
	born       time.Time
	used       bool // a channel was created or opened
	emptySince time.Time
}

// New makes a connection over a carrier, which it closes. A Write of the
// connection always is a number of whole records.
func New(carrier io.ReadWriteCloser, cfg Config, h Handler) *Conn {
	l := cfg.Limits.WithDefaults()
	now := time.Now()
	c := &Conn{
		cfg: cfg, limits: l, carrier: carrier, handler: h,
		errors:  flow.NewBucket(l.ErrorRate, l.ErrorRate),
		creates: flow.NewBucket(l.CreateRate, l.CreateBurst),
		pace:    flow.NewBucket(0.9*l.CreateRate, 0.75*l.CreateBurst),
		wake:    make(chan struct{}, 1), ready: make(chan struct{}), done: make(chan struct{}), written: make(chan struct{}),
		in:      wire.NewReader(carrier, readBuffer),
		streams: make(map[uint32]*Stream), nextID: 2, born: now, emptySince: now,
	}
	if cfg.Dialer {
		c.nextID = 1
	}
	c.sendHello()
	return c
}

const (
	readBuffer = 32 << 10
	flushTime  = 750 * time.Millisecond // what is queued when a connection ends has this long to leave
)

// Run serves the connection until it breaks, the peer ends it, Close or Drain is
// called or ctx ends, which drains it, and returns the reason. Afterwards no goroutine of it is left.
func (c *Conn) Run(ctx context.Context) error {
	c.cfg.Metrics.Connections.Add(1)
	defer c.cfg.Metrics.Connections.Add(-1)
	c.startTimer()
	go c.writeLoop()
	stop := context.AfterFunc(ctx, c.Drain)
	c.end(lost(c.readLoop()))
	stop()
	<-c.written
	c.stopTimer()
	return c.Err()
}

// Close ends the connection and every channel at once: errors and closes that are
// queued are sent, contents are not. It does not wait for Run.
func (c *Conn) Close() { c.end(errorf(Closed, "the node closed the connection")) }

// lost turns an error of the carrier into the one that channels see.
func lost(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	text := "connection lost"
	if err != nil && !errors.Is(err, io.EOF) {
		text += ": " + err.Error()
	}
	return errorf(Lost, text)
}

// end ends every stream and lets the write loop finish. The first call decides.
func (c *Conn) end(why *Error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = why
	c.finish = true
	if !c.draining && c.broken == nil {
		c.finishBy = time.Now().Add(flushTime)
	}
	c.arm(max(time.Until(c.finishBy), 0))
	gone := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		gone = append(gone, s)
	}
	for _, s := range gone {
		c.endStream(s, errorf(Lost, why.Error()))
	}
	c.opening = nil
	if c.readStall != nil {
		close(c.readStall)
		c.readStall = nil
	}
	close(c.done)
	c.mu.Unlock()
	for _, s := range gone {
		if s.sink != nil {
			s.sink.Ended(s, errorf(Lost, why.Error()))
		}
	}
	c.signal()
}

// Done is closed when the connection is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection is over; nil before.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

// Config is what the connection was made with.
func (c *Conn) Config() *Config { return &c.cfg }

// Streams is the number of channels open now.
func (c *Conn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// Each calls f for every open channel, without the lock.
func (c *Conn) Each(f func(*Stream)) {
	c.mu.Lock()
	all := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		all = append(all, s)
	}
	c.mu.Unlock()
	for _, s := range all {
		f(s)
	}
}

// RTT is the last known round-trip time; 0 when not known.
func (c *Conn) RTT() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keep.rtt
}

// DocumentOnly reports whether the peer knows none of parley's additions. It is
// known after Hello.
func (c *Conn) DocumentOnly() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.documentOnly
}

// Features is what the peer's hello said; 0 for a document-only one.
func (c *Conn) Features() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.features
}

// Binding is the connection binding of docs/spec/channels.md §4. It reports false
// where there is none: no authenticated peer ids, or no hello.
func (c *Conn) Binding() ([32]byte, bool) {
	c.mu.Lock()
	nonce, known := c.peerNonce, !c.peer.documentOnly && c.known()
	c.mu.Unlock()
	if c.cfg.Local == "" || c.cfg.Remote == "" || c.cfg.Loopback || !known {
		return [32]byte{}, false
	}
	return Binding(string(c.cfg.Local), string(c.cfg.Remote), c.cfg.Nonce, nonce), true
}

// Binding computes a connection binding from two peer ids (multihash bytes) and
// the nonces their hellos carried.
func Binding(a, b string, nonceA, nonceB [32]byte) [32]byte {
	if b < a {
		a, b, nonceA, nonceB = b, a, nonceB, nonceA
	}
	buf := []byte("parley/binding/1")
	for _, id := range []string{a, b} {
		buf = append(wire.AppendSize(buf, len(id)), id...)
	}
	buf = append(append(buf, nonceA[:]...), nonceB[:]...)
	return blake2b.Sum256(buf)
}

// known reports whether the peer's hello was seen or waited for in vain.
func (c *Conn) known() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

func (c *Conn) sendHello() {
	m := mux.Message{Kind: mux.Hello, Hello: mux.Parameters{
		Nonce: c.cfg.Nonce[:], Features: c.cfg.Features,
		InitialWindow: uint32(c.limits.Window), MaxContent: uint32(c.limits.MaxContent), MaxChannels: uint32(c.limits.Channels),
	}}
	c.control = mux.AppendRecord(c.control, c.cfg.Encoding, &m)
}

// Send puts a record that is not about one channel's contents before all data.
// Past the bound of what may wait it is dropped.
func (c *Conn) Send(m *mux.Message) {
	c.mu.Lock()
	c.sendControl(m)
	c.mu.Unlock()
	c.signal()
}

// SendError puts an error about the whole connection before all data. It does not
// end the connection.
func (c *Conn) SendError(code Code, text string) {
	c.mu.Lock()
	c.sendError(mux.WholeConnection, code, text)
	c.mu.Unlock()
	c.signal()
}

func (c *Conn) sendControl(m *mux.Message) {
	if len(c.control) < controlQueue && !c.finish {
		c.control = mux.AppendRecord(c.control, c.cfg.Encoding, m)
	}
}

// sendError queues an error record. To a document-only peer the added codes go
// as unknown, named in the text.
func (c *Conn) sendError(id uint32, code Code, text string) {
	c.sendControl(c.errorRecord(id, code, text))
}

func (c *Conn) errorRecord(id uint32, code Code, text string) *mux.Message {
	w := code.wire()
	if c.peer.documentOnly && w > mux.BadFromID {
		text = w.String() + ": " + text
		w = mux.Unknown
	}
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	c.cfg.Metrics.ErrorsOut[w].Add(1)
	return &mux.Message{Kind: mux.Error, Channel: id, Code: w, Text: text}
}

// signal wakes the write loop.
func (c *Conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
