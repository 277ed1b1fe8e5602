// Package socket is the seam to the WebSocket library: what sessions need of a
// socket, in few methods, and nothing else of it. The library shakes hands, reads,
// and speaks in control frames; messages are written past it, for it would copy
// them and take several system calls for a large one.
//
//	s, err := socket.Accept(w, r, socket.Options{Subprotocols: …, Limit: …})
//	kind, msg, err := s.Read(buf)      one goroutine
//	err = s.Write(kind, msgs...)       another; WriteParts is the same for one message
//	s.Ping(ctx)                        any
//	s.Goodbye(code, reason)            who writes, as its last word
//	s.Close(code, reason, wait)        who reads, when nobody writes any more
//	s.Cut()                            any
//
// Policy is not checked here: Accept comes after access.Policy.
//
// The library keeps RFC 6455 but for three things. A length longer than it need
// be is taken (§5.2). The reason of a close frame isn't checked for UTF-8, and
// goes back as it came (§5.5.1). And a connection that ends between two reads of
// a message's payload looks to it like the end of the message, which corked
// prevents. Text is not checked for UTF-8 either: the session does that, when the
// message is whole.
package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/lend"
)

// Kind is text or binary.
type Kind = websocket.MessageType

// The kinds of a message.
const (
	Text   Kind = websocket.MessageText
	Binary Kind = websocket.MessageBinary
)

// Code is a close code of RFC 6455 §7.4.
type Code = websocket.StatusCode

// The close codes that parley uses (gateway.md §2.1, client/PROTOCOL.md).
const (
	Normal     Code = 1000 // asked for
	GoingAway  Code = 1001 // the node stops, another socket took over, or the page is silent
	Protocol   Code = 1002 // not this protocol
	BadText    Code = 1007 // text that is not UTF-8
	Policy     Code = 1008 // broke a rule, or the session doesn't exist
	TooLarge   Code = 1009 // over a size limit
	Internal   Code = 1011 // a fault of parley itself
	Overloaded Code = 1013 // come back later
)

const (
	// discardPiece is how much is read at a time of what nobody wants.
	discardPiece = 32 << 10
	// writeWait is how long a socket may take nothing before it counts as stuck.
	writeWait = 30 * time.Second
	// writeGrace is how long a write may take that is under way at an interrupt.
	writeGrace = 250 * time.Millisecond
	// maxReason is what fits into a close frame.
	maxReason = 123
)

// Options says how to accept a socket. All of it is needed.
type Options struct {
	Subprotocols []string
	Limit        int // bytes of a message, until SetLimit
	// PongOK is asked for every ping that comes in; false leaves it unanswered.
	PongOK func() bool
	// Heard is told whenever bytes have come.
	Heard func()
	// Pace is shared by sockets whose floods are to be thrown away together; nil: as
	// fast as they come.
	Pace *Pace
}

// Socket is one WebSocket. It has no goroutine of its own.
type Socket struct {
	ws   *websocket.Conn
	conn *corked
	pace *Pace

	usual int // bytes of a message lately; owned by the reader

	// owned by the writer
	head  [maxHead]byte
	parts [][]byte
}

// Accept upgrades a request. It answers the request itself when it fails: 426
// without an upgrade, 400 for a broken one.
func Accept(w http.ResponseWriter, r *http.Request, opts Options) (*Socket, error) {
	keep := &hijackKeeper{ResponseWriter: w, heard: opts.Heard}
	ws, err := websocket.Accept(keep, r, &websocket.AcceptOptions{
		Subprotocols:       opts.Subprotocols,
		InsecureSkipVerify: true, // access.Policy has compared the origin as a whole; the library asks less
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     func(context.Context, []byte) bool { return opts.PongOK() },
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(int64(opts.Limit))
	return &Socket{ws: ws, conn: keep.conn, pace: opts.Pace}, nil
}

// Subprotocol is what was agreed on, "" for none.
func (s *Socket) Subprotocol() string { return s.ws.Subprotocol() }

// SetLimit sets the largest message that Read takes. Only the reader may call it.
func (s *Socket) SetLimit(n int) { s.ws.SetReadLimit(int64(n)) }

// Read waits for a message and appends it to buf, which it may replace by a
// larger one: memory grows with what has come, never with what a length claims.
// Once a message has begun, as much is made ready as the last ones took. It also
// answers pings and close frames, so somebody must always read.
func (s *Socket) Read(buf []byte) (Kind, []byte, error) {
	// A context that can end would cost an allocation a call, and its end would
	// tear the socket down without a close frame. Interrupt ends a Read instead.
	kind, r, err := s.ws.Reader(context.Background())
	if err != nil {
		return 0, buf, err
	}
	if need := len(buf) + s.usual; cap(buf) < need && s.usual > firstBuffer {
		buf = moveTo(lend.Get(need), buf)
	}
	start := len(buf)
	for {
		if len(buf) == cap(buf) {
			buf = grow(buf)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			s.usual = min(max(len(buf)-start+1, s.usual*3/4), mostUsual)
			return kind, buf, nil
		}
		if err != nil {
			return 0, buf, err
		}
	}
}

// Large messages are read into buffers that sessions lend each other.
const (
	firstBuffer = 512
	keptBuffer  = 4 << 10   // what a session may keep while it waits
	mostUsual   = 256 << 10 // of a message that has only begun
)

// grow gives room for more: eight times as much, where it is lent, and no more
// than is sure to be needed where it is large.
func grow(buf []byte) []byte {
	n := cap(buf)
	switch {
	case n < keptBuffer:
		return moveTo(make([]byte, 0, max(firstBuffer, 2*n)), buf)
	case n < mostUsual:
		return moveTo(lend.Get(min(8*n, mostUsual)), buf)
	}
	return moveTo(make([]byte, 0, 2*n), buf)
}

// moveTo moves what is in buf to a larger buffer.
func moveTo(larger, buf []byte) []byte {
	larger = append(larger, buf...)
	lend.Put(buf)
	return larger
}

// Reuse is called with a buffer that Read gave and nothing refers to any more.
// It gives one for the next Read, which keeps no large memory while it waits.
func Reuse(buf []byte) []byte {
	if cap(buf) <= keptBuffer {
		return buf[:0]
	}
	lend.Put(buf)
	return nil
}

// Write writes messages, all in as few system calls as possible. One goroutine
// may write at a time. It fails when the other side takes nothing for 30 s; the
// socket is then only good for Abort.
func (s *Socket) Write(kind Kind, msgs ...[]byte) error {
	if len(msgs) == 1 {
		return s.WriteParts(kind, msgs)
	}
	size := 0
	for _, m := range msgs {
		size += len(m) + maxHead
	}
	buf := lend.Get(size)
	for _, m := range msgs {
		buf = append(appendHead(buf, kind, len(m)), m...)
	}
	err := s.conn.writeFrames([][]byte{buf})
	lend.Put(buf)
	return err
}

// WriteParts writes one message that stands in several parts, under the rules of
// Write.
func (s *Socket) WriteParts(kind Kind, parts [][]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	s.parts = append(append(s.parts[:0], appendHead(s.head[:0], kind, size)), parts...)
	defer clear(s.parts)
	return s.conn.writeFrames(s.parts)
}

// Frames that are written (RFC 6455 §5.2): whole and unmasked.
const (
	maxHead  = 10
	fin      = 0x80
	finClose = fin | 8
)

// appendHead appends the head of a message's only frame.
func appendHead(dst []byte, kind Kind, size int) []byte {
	dst = append(dst, fin|byte(kind))
	switch {
	case size < 126:
		return append(dst, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, 127), uint64(size))
}

// Ping sends a ping and waits for its pong.
func (s *Socket) Ping(ctx context.Context) error { return s.ws.Ping(ctx) }

// Interrupt makes Read return after d, and a Write that is stuck a moment later:
// one that isn't is left to end, or no close frame could follow it.
func (s *Socket) Interrupt(d time.Duration) {
	end := time.Now().Add(d)
	s.conn.deadlines(end, end.Add(writeGrace))
}

// Goodbye sends a close frame, unless one was sent, and ends writing. Only the
// writer may call it.
func (s *Socket) Goodbye(code Code, reason string) {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	frame := append(make([]byte, 0, 4+len(reason)), finClose, byte(2+len(reason)))
	frame = binary.BigEndian.AppendUint16(frame, uint16(code))
	s.conn.goodbye(append(frame, reason...))
}

// Discard throws away what comes, until the connection or its time is over, and a
// flood at the Pace of the socket. Only the reader may call it, and Read never again.
func (s *Socket) Discard() {
	buf := lend.Get(discardPiece)
	defer lend.Put(buf)
	for piece := 0; ; {
		n, err := s.conn.Conn.Read(buf[:discardPiece])
		if err != nil {
			return
		}
		if piece += n; piece >= discardPiece {
			piece = 0
			s.pace.wait()
		}
	}
}

// Close says Goodbye, waits at most that long for the other side to end too, and
// ends the socket. What comes meanwhile is thrown away unread (RFC 6455 §7.1.1): to
// look in a flood for the answer takes long, and a connection that ends with
// something unread takes the close frame from the other side. Only the reader may
// call it, when nobody writes any more.
func (s *Socket) Close(code Code, reason string, wait time.Duration) {
	end := time.Now().Add(wait)
	s.conn.deadlines(end, end)
	s.Goodbye(code, reason)
	s.Discard()
	_ = s.ws.CloseNow() // the socket is gone either way
}

// Cut ends the connection under the socket, whoever reads or writes. It never
// blocks.
func (s *Socket) Cut() { s.conn.cut() }

// Abort ends the socket without a word.
func (s *Socket) Abort() {
	s.conn.deadlines(time.Now(), time.Now())
	_ = s.ws.CloseNow()
}

// CloseCode says how a Read ended: the code that the other side sent (1005 where
// it sent none), 0 where the connection broke, or the code to close with where
// the other side broke RFC 6455.
func CloseCode(err error) (code Code, theirs bool) {
	if c := websocket.CloseStatus(err); c != -1 {
		return c, true
	}
	var netErr net.Error
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return TooLarge, false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.Canceled), errors.As(err, &netErr):
		return 0, false
	}
	return Protocol, false
}
