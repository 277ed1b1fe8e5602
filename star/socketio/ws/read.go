package ws

import (
	"encoding/binary"
	"io"
	"unicode/utf8"
)

// How a message is read: header, checks, payload (in the read buffer or in a Buf
// of its own), unmasking in place, fragments put together.

type header struct {
	op  Opcode
	fin bool
	n   int
	key [4]byte
}

func (c *Conn) readHeader() (header, error) {
	if c.r == c.w {
		c.rb.Free()
		c.rb, c.r, c.w = nil, 0, 0
	}
	if err := c.fill(2); err != nil {
		return header{}, err
	}
	b := c.rb.b[c.r:]
	h := header{op: Opcode(b[0] & 15), fin: b[0]&0x80 != 0, n: int(b[1] & 0x7f)}
	size := 2
	switch {
	case b[0]&0x70 != 0:
		return h, protocolError("reserved bits are set")
	case (b[1]&0x80 != 0) != c.server:
		return h, protocolError("frames of the client must be masked, those of the server must not")
	case h.op > Binary && h.op < Close || h.op > Pong:
		return h, protocolError("unknown opcode")
	case h.op >= Close && (h.n > 125 || !h.fin):
		return h, protocolError("control frame is long or in fragments")
	case h.n == 126:
		size += 2
	case h.n == 127:
		size += 8
	}
	if c.server {
		size += 4
	}
	if err := c.fill(size); err != nil {
		return h, err
	}
	b = c.rb.b[c.r : c.r+size]
	c.r += size
	if c.server {
		h.key = [4]byte(b[size-4:])
	}
	if h.n == 126 {
		h.n = int(binary.BigEndian.Uint16(b[2:]))
	} else if h.n == 127 {
		long := binary.BigEndian.Uint64(b[2:])
		if long >= 1<<63 {
			return h, protocolError("frame length is negative")
		}
		h.n = int(min(long, uint64(c.limit)+1)) // refused below, before any allocation
	}
	return h, nil
}

// readFrame reads the payload of h. whole is false in the middle of a message in
// fragments.
func (c *Conn) readFrame(h header) (m Message, whole bool, err error) {
	switch {
	case h.op >= Close:
		m, err = c.readPayload(h)
		return m, true, err
	case h.op == opContinuation && c.fragOp == 0:
		return m, false, protocolError("continuation of nothing")
	case h.op != opContinuation && c.fragOp != 0:
		return m, false, protocolError("new message inside another")
	case c.fragLen+h.n > c.limit:
		return m, false, &CloseError{Code: CodeTooLarge, Text: "message is above the limit"}
	case h.op == opContinuation || !h.fin:
		return c.readFragment(h)
	}
	if m, err = c.readPayload(h); err == nil {
		err = checkText(m)
	}
	if err != nil {
		m.Buf.Free()
		return Message{}, false, err
	}
	return m, true, nil
}

func checkText(m Message) error {
	if m.Op == Text && !utf8.Valid(m.Data) {
		return &CloseError{Code: CodeInvalidData, Text: "text is not UTF-8"}
	}
	return nil
}

// readPayload reads and unmasks one payload, in place where it is small.
func (c *Conn) readPayload(h header) (Message, error) {
	m := Message{Op: h.op}
	if h.n <= inlineMax {
		if err := c.fill(h.n); err != nil {
			return m, err
		}
		if h.n > 0 {
			m.Data = c.rb.b[c.r : c.r+h.n]
		}
		c.r += h.n
		c.unmask(m.Data, h, 0)
	} else {
		buf, err := c.readLarge(h)
		if err != nil {
			return m, err
		}
		m.Buf, m.Data = buf, buf.b
	}
	if large := h.n > inlineMax; large || h.op == Binary { // a chunk's event, which is text, stands before each
		c.bulk = 0
		if large {
			c.bulk = h.n
		}
	}
	return m, nil
}

// readLarge reads a payload into a Buf of its own, and unmasks what has come while
// the processor has it at hand. The Buf grows with what has come, and with what
// came before, so that a length alone costs nobody memory.
func (c *Conn) readLarge(h header) (*Buf, error) {
	n, first := h.n, firstGrow
	if c.bulk > 0 {
		first = max(bulkGrow, min(c.bulk+1, bulkMost))
	}
	buf, have := c.mem.Get(min(n, max(first, c.w-c.r))), 0
	if c.r < c.w {
		have = copy(buf.b, c.rb.b[c.r:c.w])
		c.r += have
		c.unmask(buf.b[:have], h, 0)
	}
	for have < n {
		if have == len(buf.b) {
			bigger := c.mem.Get(min(n, 4*have))
			copy(bigger.b, buf.b)
			buf.Free()
			buf = bigger
		}
		got, err := c.readBody(buf.b[have:], len(buf.b) == n)
		c.unmask(buf.b[have:have+got], h, have)
		if have += got; err != nil && have < n {
			buf.Free()
			return nil, unexpected(err)
		}
	}
	return buf, nil
}

// unmask takes the mask of h from a part of its payload, which begins at pos.
func (c *Conn) unmask(part []byte, h header, pos int) {
	if c.server {
		mask(part, h.key, pos)
	}
}

// readBody reads into b, the rest of a message where last is true: then what comes
// behind it goes to the read buffer, which is empty, for one call less.
func (c *Conn) readBody(b []byte, last bool) (n int, err error) {
	if !last || c.raw == nil || c.bulk == 0 || c.rb == nil {
		return c.more(b)
	}
	if c.bodyFunc == nil {
		c.bodyFunc = c.tryReadBody
	}
	c.r, c.w = 0, 0
	c.body = [2][]byte{b, c.rb.b[:min(len(c.rb.b), bulkSize)]}
	for {
		if err = c.raw.Read(c.bodyFunc); !c.goOn(err) {
			break
		}
	}
	c.body = [2][]byte{}
	if err == nil {
		err = c.waitErr
	}
	if err != nil {
		return 0, err
	}
	if c.waitN <= 0 {
		return 0, io.EOF
	}
	n = min(c.waitN, len(b))
	c.w = c.waitN - n
	return n, nil
}

// readFragment adds one fragment to the message and gives it when it is whole.
func (c *Conn) readFragment(h header) (m Message, whole bool, err error) {
	if h.op != opContinuation {
		c.fragOp = h.op
	}
	part, err := c.readPayload(h)
	if err != nil {
		return m, false, err
	}
	c.growFragments(len(part.Data))
	c.fragLen += copy(c.frag.b[c.fragLen:], part.Data)
	part.Buf.Free()
	if !h.fin {
		return m, false, nil
	}
	buf := c.frag
	buf.Trim(c.fragLen)
	m = Message{Op: c.fragOp, Data: buf.b, Buf: buf}
	c.frag, c.fragLen, c.fragOp = nil, 0, 0
	if err := checkText(m); err != nil {
		buf.Free()
		return Message{}, false, err
	}
	return m, true, nil
}

func (c *Conn) growFragments(more int) {
	if c.frag != nil && c.fragLen+more <= len(c.frag.b) {
		return
	}
	bigger := c.mem.Get(max(c.fragLen+more, min(2*c.fragLen, c.limit), 1))
	bigger.b = bigger.b[:cap(bigger.b)]
	if c.frag != nil {
		copy(bigger.b, c.frag.b[:c.fragLen])
		c.frag.Free()
	}
	c.frag = bigger
}
