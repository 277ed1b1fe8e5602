package ws

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
)

// Opcode is the kind of a frame.
type Opcode byte

// The opcodes of RFC 6455 §5.2.
const (
	opContinuation Opcode = 0
	Text           Opcode = 1
	Binary         Opcode = 2
	Close          Opcode = 8
	Ping           Opcode = 9
	Pong           Opcode = 10
)

// Close codes (RFC 6455 §7.4.1) that are used here.
const (
	CodeNormal        = 1000
	CodeGoingAway     = 1001
	CodeProtocol      = 1002
	CodeUnsupported   = 1003
	CodeNone          = 1005 // no code was given; never on the wire
	CodeInvalidData   = 1007 // text that is not UTF-8
	CodePolicy        = 1008
	CodeTooLarge      = 1009
	CodeInternalError = 1011
)

// Sizes of the reader. A payload up to inlineMax lies in the read buffer, a
// larger one gets a Buf. After a large message, and the small texts that follow it,
// the reader looks at a few bytes only, so that the next large one is read where it
// will lie.
const (
	readSize  = 16 << 10
	bulkSize  = 512
	idleSize  = 256 // where waiting without a buffer is not possible
	inlineMax = 4 << 10
	firstGrow = 8 << 10    // what a large message gets before its bytes came
	bulkGrow  = 64<<10 + 1 // the same, where the message before was large; or its length
	bulkMost  = 1 << 20    // but no more than this
	maxHeader = 14
)

// CloseError is why a connection must be closed: what the other side did, and
// the code to close with.
type CloseError struct {
	Code int
	Text string
}

// Error gives code and text.
func (e *CloseError) Error() string { return fmt.Sprintf("websocket: %s (close %d)", e.Text, e.Code) }

// Unwrap classes it as malformed input, or as too large.
func (e *CloseError) Unwrap() error {
	if e.Code == CodeTooLarge {
		return &identity.Error{Code: identity.CodeTooLarge, Text: e.Text}
	}
	return &identity.Error{Code: identity.CodeMalformed, Text: e.Text}
}

// Message is a whole message or a control frame.
type Message struct {
	Op   Opcode
	Data []byte // valid until the next Read, or until Buf is freed
	Buf  *Buf   // holds Data where not nil; the caller owns it
}

// Conn is one connection after its handshake.
type Conn struct {
	// Static after construction.
	nc     net.Conn
	raw    syscall.RawConn // nil where the connection has none
	mem    *Memory
	server bool
	limit  int
	onWait func()

	// Owned by the reader.
	rb       *Buf // the read buffer; nil while idle
	r, w     int  // what is unread in it
	bulk     int  // the length of the last message but texts, where it was large
	frag     *Buf // message so far, in fragments
	fragLen  int
	fragOp   Opcode // 0: none
	waitFunc func(fd uintptr) bool
	bodyFunc func(fd uintptr) bool
	body     [2][]byte // what bodyFunc reads into
	waitN    int
	waitErr  error
	rest     resting

	// Guarded by mu, with the deadline of reads.
	mu     sync.Mutex
	tired  bool // a Read that waits for a message shall give ErrTired
	ending bool // reading is over

	// Owned by the writer.
	prefix []byte // goes out before the first frame: the answer to the handshake
}

// NewConn takes over nc, whose handshake is done. server says which end this is.
// buffered are bytes of the other side that were read already. limit bounds a
// message, in bytes.
func NewConn(nc net.Conn, server bool, buffered []byte, limit int, mem *Memory) *Conn {
	c := &Conn{nc: nc, server: server, mem: mem, limit: limit}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil && canWait {
			c.raw, c.waitFunc = raw, c.tryRead
		}
	}
	if server {
		boundUnsent(nc)
	}
	if len(buffered) > 0 {
		c.rb = mem.Get(max(readSize, len(buffered)))
		c.w = copy(c.rb.b, buffered)
	}
	return c
}

// maxUnsent is how many bytes the system may hold of a connection beyond what the
// other side has room for. Its own bound is some megabytes: too much to hold for a
// peer that reads slowly, whose progress is then seen in steps of as much, and
// which pongs and answers would wait behind.
const maxUnsent = 128 << 10

// boundUnsent asks the system to hold no more than maxUnsent, where it can.
func boundUnsent(nc net.Conn) {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = over.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(setUnsent) // without it more is held, and all works
	}
}

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Read gives the next message or control frame, waiting for it. A *CloseError
// says that the other side broke the protocol or a limit; other errors are those
// of the connection. After an error only Release may be called.
func (c *Conn) Read() (Message, error) {
	for {
		h, err := c.readHeader()
		if err != nil {
			return Message{}, err
		}
		m, whole, err := c.readFrame(h)
		if err != nil || whole {
			return m, err
		}
	}
}

// BeforeWait has f called whenever Read is about to wait for the other side, or may
// be. It is set before the first Read.
func (c *Conn) BeforeWait(f func()) { c.onWait = f }

func (c *Conn) beforeWait() {
	if c.onWait != nil {
		c.onWait()
	}
}

// ParseClose reads the payload of a close frame. CodeNone stands for an empty one.
func ParseClose(data []byte) (code int, reason string, err error) {
	if len(data) == 0 {
		return CodeNone, "", nil
	}
	if len(data) == 1 {
		return 0, "", protocolError("close frame of one byte")
	}
	code = int(binary.BigEndian.Uint16(data))
	switch {
	case code < 1000, code >= 1004 && code <= 1006, code >= 1015 && code < 3000, code >= 5000:
		return 0, "", protocolError("close code is not allowed")
	case !utf8.Valid(data[2:]):
		return 0, "", &CloseError{Code: CodeInvalidData, Text: "close reason is not UTF-8"}
	}
	return code, string(data[2:]), nil
}

// Release frees what the reader holds.
func (c *Conn) Release() {
	c.rb.Free()
	c.frag.Free()
	c.rb, c.frag, c.r, c.w = nil, nil, 0, 0
}

// fill makes sure that need bytes, at most inlineMax, are in the read buffer.
func (c *Conn) fill(need int) error {
	for c.w-c.r < need {
		n, err := 0, error(nil)
		switch {
		case c.rb == nil && c.rest.n > 0:
			c.rb = c.mem.Get(readSize)
			n, c.rest.n = copy(c.rb.b, c.rest.first[:c.rest.n]), 0
		case c.rb == nil:
			n, err = c.wait()
		default:
			c.makeRoom(need)
			n, err = c.more(c.rb.b[c.w:])
		}
		if c.w += n; err != nil && c.w-c.r < need {
			if c.w > c.r || need > 2 || c.fragOp != 0 {
				return unexpected(err)
			}
			return err
		}
	}
	return nil
}

// makeRoom makes the read buffer hold need bytes behind r.
func (c *Conn) makeRoom(need int) {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if len(c.rb.b)-c.r >= need && len(c.rb.b) > c.w {
		return
	}
	if len(c.rb.b) < need || len(c.rb.b) < bulkSize {
		bigger := c.mem.Get(readSize)
		c.w = copy(bigger.b, c.rb.b[c.r:c.w])
		c.r = 0
		c.rb.Free()
		c.rb = bigger
		return
	}
	c.w = copy(c.rb.b, c.rb.b[c.r:c.w])
	c.r = 0
}

// wait reads the first bytes of a frame into a new read buffer.
func (c *Conn) wait() (int, error) {
	if c.raw == nil {
		c.rb = c.mem.Get(idleSize)
		return c.more(c.rb.b)
	}
	if err := c.raw.Read(c.waitFunc); err != nil {
		c.rb.Free()
		c.rb = nil
		if c.goOn(err) {
			return 0, ErrTired
		}
		return 0, err
	}
	if c.waitErr == nil && c.waitN == 0 {
		return 0, io.EOF
	}
	return max(c.waitN, 0), c.waitErr
}

// tryRead is given the descriptor whenever there may be bytes; false waits on,
// without a buffer.
func (c *Conn) tryRead(fd uintptr) bool {
	size := readSize
	if c.bulk > 0 {
		size = bulkSize
	}
	c.rb = c.mem.Get(size)
	again := false
	c.waitN, again, c.waitErr = readNow(fd, c.rb.b)
	if again || c.waitErr != nil || c.waitN == 0 {
		c.rb.Free()
		c.rb = nil
	}
	if again {
		c.beforeWait()
	}
	return !again
}

// tryReadBody is tryRead for what readBody reads.
func (c *Conn) tryReadBody(fd uintptr) bool {
	again := false
	c.waitN, again, c.waitErr = readParts(fd, c.body[:])
	if again {
		c.beforeWait()
	}
	return !again
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func protocolError(text string) error { return &CloseError{Code: CodeProtocol, Text: text} }
