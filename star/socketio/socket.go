package socketio

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Transport says how a socket is connected now.
type Transport string

// The transports.
const (
	Polling   Transport = "polling"
	WebSocket Transport = "websocket"
)

// Handler is told what happens on sockets. The calls for one socket never
// overlap; one that waits must return when the socket's context ends.
type Handler interface {
	// Event is given each event. While it has not returned, nothing more is read
	// from the socket. An error closes the socket as a protocol error (1002).
	Event(s *Socket, e *Event) error

	// Binary is offered each event with one attachment before it is parsed; true
	// means that it was taken. text is the message with its leading 4, data the
	// attachment with its leading 0x04; both are valid until Binary returns.
	// Where buf is not nil data lies in it, and a taker may keep buf, and must
	// then set *buf to nil and free it later.
	Binary(s *Socket, text, data []byte, buf **ws.Buf) bool

	// Disconnected is called once, when no more events will come. reason says why.
	Disconnected(s *Socket, reason error)
}

// Reasons that Disconnected is given, beside protocol errors and those of the
// connection.
var (
	ErrGoodbye = &identity.Error{Code: identity.CodeClosed, Text: "the other side said goodbye"}
	ErrSilent  = &identity.Error{Code: identity.CodeTimeout, Text: "nothing came from the other side in time"}
	ErrStuck   = &identity.Error{Code: identity.CodeTimeout, Text: "the other side takes nothing"}
	ErrEnded   = &identity.Error{Code: identity.CodeClosed, Text: "the connection has ended"}
)

// Socket is one connection of Socket.IO, at either end.
type Socket struct {
	// Static after construction.
	core    *core
	client  bool // this end pings
	counted bool // the session began by polling and counts in running by itself
	id      string
	handler Handler
	remote  netip.Addr
	out     *flow.Queue[*item]
	done    chan struct{} // closed when the socket begins to end

	// User belongs to the Handler. It is set before the first event.
	User any

	// Owned by the receive path, which turn keeps to one goroutine at a time.
	turn    chan struct{}
	half    halfEvent
	flusher Flusher
	goodbye bool // 41 has come: events are over

	// Owned by the writer, of which there is one at a time.
	saidClose bool

	// Guarded by mu.
	mu       sync.Mutex
	err      error // why it ends
	acks     map[int64]func(Answer)
	nextAck  int64
	conn     *ws.Conn   // nil while polling
	poll     *pollState // nil once on WebSocket
	leftOnce bool       // Disconnected was called
	code     uint16     // the close code to send

	// For everyone.
	noBinary atomic.Bool                   // b64=1: attachments go as base64
	writing  atomic.Bool                   // a writer is running
	awake    atomic.Bool                   // its reader does not rest
	flushed  atomic.Pointer[Flusher]       // which Flusher will see to what waits
	lastSeen atomic.Int64                  // coarse time of the last packet
	progress atomic.Int64                  // coarse time of the last byte taken, or since when some wait
	taking   atomic.Int64                  // when a sweep last found something waiting
	held     atomic.Int64                  // since when the Handler holds the reader back; 0: it does not
	noopAt   atomic.Int64                  // when a held socket last got a noop
	waiting  atomic.Int64                  // messages that wait to be sent
	control  atomic.Int64                  // bytes of those of class Control
	goodAt   atomic.Int64                  // when goodbye came; 0: not yet
	watch    atomic.Pointer[chan struct{}] // closed at the next packet; nil: nobody asks
	relieved atomic.Pointer[chan struct{}] // signalled when answers have left, where the receive path waits for that
	writers  sync.WaitGroup
}

// core is what the sockets of one Server, or the one of a client, share.
type core struct {
	mem     *ws.Memory
	limits  Limits
	times   Times
	clock   atomic.Int64 // coarse time, Unix nanoseconds
	items   sync.Pool
	pens    sync.Pool // of *pen
	running sync.WaitGroup
	hit     func(limit string) // tells of a limit that was met; may be nil
	forget  func(*Socket)      // takes an ended socket out of the table; may be nil
}

// Times are the waits of both ends. Zero values are the defaults.
type Times struct {
	PingInterval time.Duration // 25 s
	PingTimeout  time.Duration // 20 s
	Upgrade      time.Duration // from the second connection to the end of the upgrade; 10 s
	Stuck        time.Duration // a socket that takes nothing; 45 s
	Linger       time.Duration // for the last words of a socket that ends; 5 s
}

func (t Times) withDefaults() Times {
	return Times{PingInterval: or(t.PingInterval, 25*time.Second), PingTimeout: or(t.PingTimeout, 20*time.Second),
		Upgrade: or(t.Upgrade, 10*time.Second), Stuck: or(t.Stuck, 45*time.Second), Linger: or(t.Linger, 5*time.Second)}
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// queueBound is not reached: every push is bounded elsewhere, by receipts or by
// the requests it answers.
const queueBound = 1 << 30

func newSocket(c *core, id string, h Handler) *Socket {
	s := &Socket{core: c, id: id, handler: h, out: flow.NewQueue[*item](queueBound), done: make(chan struct{}),
		turn: make(chan struct{}, 1), code: ws.CodeNormal}
	now := c.clock.Load()
	s.lastSeen.Store(now)
	s.progress.Store(now)
	return s
}

// ID is the session id. It is a secret: show it only by Tag.
func (s *Socket) ID() string { return s.id }

// Tag is a short form of the id, for logs.
func (s *Socket) Tag() string { return s.id[:min(6, len(s.id))] + "…" }

// Remote is the address of the other end; zero where it isn't known.
func (s *Socket) Remote() netip.Addr { return s.remote }

// Transport says how the socket is connected now.
func (s *Socket) Transport() Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return WebSocket
	}
	return Polling
}

// Context ends when the socket begins to end. It carries no values.
func (s *Socket) Context() context.Context { return socketContext{s} }

// socketContext is a context without memory of its own.
type socketContext struct{ s *Socket }

func (c socketContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c socketContext) Done() <-chan struct{}       { return c.s.done }
func (c socketContext) Value(any) any               { return nil }
func (c socketContext) Err() error {
	if c.s.ending() {
		return context.Canceled
	}
	return nil
}

// Hold tells that the Handler, in the receive path, is going to wait, and Release
// that it no longer does. Meanwhile the silence of the other side is not held
// against it, and a server keeps its heartbeat alive with noops (S-4). No locks may
// be held: what was sent so far is flushed.
func (s *Socket) Hold() {
	s.held.CompareAndSwap(0, max(s.core.now().UnixNano(), 1))
	s.flusher.Flush()
}

// Release ends Hold.
func (s *Socket) Release() {
	s.held.Store(0)
	s.lastSeen.Store(s.core.now().UnixNano())
}

// Held says since when the reader is held back; zero when it is not.
func (s *Socket) Held() time.Time {
	if t := s.held.Load(); t != 0 {
		return time.Unix(0, t)
	}
	return time.Time{}
}

// Alive asks the other side for a sign of life and reports whether one came within
// wait: any packet counts.
func (s *Socket) Alive(ctx context.Context, wait time.Duration) bool {
	ch := make(chan struct{})
	watch := &ch
	if !s.watch.CompareAndSwap(nil, watch) {
		if watch = s.watch.Load(); watch == nil {
			return true // one has come just now
		}
	}
	s.nudge()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-*watch:
		return true
	case <-timer.C:
	case <-s.done:
	case <-ctx.Done():
	}
	return false
}

// nudge makes the other side say something: a ping of the WebSocket, or the answer
// to a waiting poll, which another follows.
func (s *Socket) nudge() {
	if s.Transport() == WebSocket {
		_ = s.push(&item{op: ws.Ping, size: 2, class: flow.Control}) // one that ends is not alive
		return
	}
	s.packetText([]byte{byte(wire.Noop)})
}

// now is the exact time; the coarse one is in clock.
func (c *core) now() time.Time { return time.Now() }

// Close ends the socket in an orderly way: what waits is sent, then a WebSocket
// is closed with code and a poll is answered with a close packet. It never
// blocks; Disconnected follows. The first Close decides.
func (s *Socket) Close(code int, reason error) {
	if !s.end(code, reason) {
		return
	}
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		s.startWriter()
		conn.Interrupt() // the reader ends the rest
	} else {
		go s.finish() // counted in running since the session began
	}
}

// Ban is Close after telling the other side to go away for good: an npm client
// never reconnects after it.
func (s *Socket) Ban(reason error) {
	_ = s.Send(flow.Bulk, Msg{Text: []byte{byte(wire.Message), byte(wire.Disconnect)}})
	s.Close(ws.CodePolicy, reason)
}

// end marks the socket as ending; false when it was already.
func (s *Socket) end(code int, reason error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	if reason == nil {
		reason = ErrEnded
	}
	s.err, s.code = reason, uint16(code)
	s.out.Close(reason)
	close(s.done)
	return true
}

// ending is Err() != nil, without its lock. The queue is closed by then.
func (s *Socket) ending() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Err is why the socket ends, nil while it does not.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// depart tells the Handler and everyone who waits for an answer of the end.
func (s *Socket) depart() {
	s.turn <- struct{}{} // the receive path has left, and finds the error from now on
	defer func() { <-s.turn }()
	s.leave(s.Err())
	s.failAcks(s.Err())
	s.flusher.Flush()
	s.half.free()
	s.half = halfEvent{}
}

// finish is the last call for a socket. The Handler hears of the end first; a
// client that polls may then still fetch the last words.
func (s *Socket) finish() {
	s.depart()
	if p, wait := s.lastPoll(); wait > 0 {
		last := time.NewTimer(wait)
		select {
		case <-p.last:
		case <-last.C:
		}
		last.Stop()
	}
	s.drop()
	if s.core.forget != nil {
		s.core.forget(s)
	}
	if s.counted {
		s.core.running.Done()
	}
}

// lastPoll says how long a client that polls may take to fetch the last words. One
// that has not polled for that long has gone.
func (s *Socket) lastPoll() (p *pollState, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.poll == nil:
		return nil, 0
	case s.poll.getting:
		return s.poll, s.core.times.Linger
	}
	return s.poll, s.core.times.Linger - s.core.now().Sub(s.poll.left)
}

// leave tells the Handler that there will be no more events, once.
func (s *Socket) leave(reason error) {
	s.mu.Lock()
	first := !s.leftOnce
	s.leftOnce = true
	s.mu.Unlock()
	if first && s.handler != nil {
		s.handler.Disconnected(s, reason)
	}
}
