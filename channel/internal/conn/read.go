package conn

import (
	"errors"
	"fmt"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// Inbound, by the read loop:
//
//  1. readRecord takes a record. A large content in the usual layout is admitted
//     by its head and read straight into the buffer its reader will get.
//  2. first decides whether the peer is document-only.
//  3. handle (handle.go) does what the message says: contents and windows here, channels to
//     be decided about by the Handler.
//  4. An error of the connection is told to the peer, then the connection ends.

// directSize is from where on a content is read past the record buffer.
const directSize = 2 << 10

func (c *Conn) readLoop() error {
	for {
		err := c.readRecord()
		c.tellFailed()
		if err == nil {
			err = c.checkBlame()
		}
		if err == nil {
			continue
		}
		if errors.Is(err, wire.ErrMalformed) {
			c.cfg.Metrics.RecordsBroken.Add(1)
			c.cfg.Metrics.Refused[RefusedRecord].Add(1)
			c.tellBroken(Unknown, err.Error())
		}
		return err
	}
}

// tellBroken reports an error of the whole connection before it ends.
func (c *Conn) tellBroken(code Code, text string) {
	c.mu.Lock()
	c.sendError(mux.WholeConnection, code, text)
	c.mu.Unlock()
	c.signal()
}

// tellFailed tells bridges which of their channels this end has ended.
func (c *Conn) tellFailed() {
	c.mu.Lock()
	failed := c.failed
	c.failed = nil
	c.mu.Unlock()
	for _, s := range failed {
		s.sink.Ended(s, s.err)
	}
}

// checkBlame ends the connection where the peer caused too many errors, or sent
// without credit too often.
func (c *Conn) checkBlame() error {
	c.mu.Lock()
	violations, tooMany := c.violations, c.tooMany
	c.mu.Unlock()
	switch {
	case violations >= creditViolations:
		c.tellBroken(Limit, "contents without credit")
	case tooMany:
		c.cfg.Metrics.Refused[RefusedErrors].Add(1)
		c.tellBroken(Limit, "too many channel errors")
	default:
		return nil
	}
	return fmt.Errorf("%w: the other end passed a limit", errBroken)
}

func (c *Conn) readRecord() error {
	size, err := c.in.Size()
	if err != nil {
		return err
	}
	if size > directSize && c.cfg.Encoding == wire.Unpacked && c.known() {
		head, err := c.in.Peek(mux.ContentHead)
		if err != nil {
			return err
		}
		if id, n, ok := mux.ParseContentHead(head, size); ok && n <= defaultContent {
			return c.readLarge(id, n, size)
		}
	}
	rec, err := c.in.Record()
	if err != nil {
		return err
	}
	raw, err := mux.Unpacked(c.cfg.Encoding, rec, c.scratch)
	if err != nil {
		return err
	}
	if c.cfg.Encoding == wire.Packed {
		if c.scratch = raw[:0]; cap(raw) > 2*directSize {
			c.scratch = nil
		}
	}
	if err := mux.Decode(raw, &c.msg); err != nil {
		return err
	}
	if err := c.msg.Check(); err != nil {
		return err
	}
	return c.handle(&c.msg)
}

// readLarge reads a content of n bytes in a record of size bytes.
func (c *Conn) readLarge(id uint32, n, size int) error {
	c.mu.Lock()
	c.keep.active = true
	c.waitForRoom(cost(n))
	s := c.streams[id]
	if s == nil {
		err := c.unknownID(id, mux.Content)
		c.mu.Unlock()
		c.signal()
		return err // the next Size skips the record
	}
	admitted := c.arrived(s, n)
	c.mu.Unlock()
	if !admitted {
		return nil
	}
	if s.sink != nil {
		rec := c.cfg.Buffers.get(wire.SizeLen(size) + size)
		head := len(wire.AppendSize(rec[:0], size))
		if err := c.in.ReadFull(rec[head:]); err != nil {
			return err
		}
		start := head + mux.ContentHead
		s.sink.Content(s, rec[start:start+n], rec)
		return nil
	}
	if err := c.in.Discard(mux.ContentHead); err != nil {
		return err
	}
	buf := c.cfg.Buffers.fit(n)
	if err := c.in.ReadFull(buf); err != nil {
		return err
	}
	c.mu.Lock()
	c.keepContent(s, buf)
	c.mu.Unlock()
	return c.waitForReader(s)
}

// keepContent queues a content that arrived admitted; a large one's buffer is the
// queue's then. It is called with the lock held.
func (c *Conn) keepContent(s *Stream, content []byte) {
	if s.state == ended || s.closing {
		size := min(cost(len(content)), s.unread)
		s.unread -= size
		c.read(size)
		c.cfg.Buffers.put(content)
		return
	}
	if !s.own && !s.sawContent {
		c.keep.sample(time.Since(s.started))
	}
	s.sawContent = true
	s.rx.push(c.cfg.Buffers, content)
	s.readers.wake()
}

// waitForRoom gives readers a moment to catch up where a content of this cost
// would pass what may be unread, before a channel has to end for it. It is called
// and returns with the lock held.
func (c *Conn) waitForRoom(size int64) {
	if c.unread+size <= int64(c.limits.Unread) {
		return
	}
	t := time.NewTimer(catchUp)
	defer t.Stop()
	for c.unread+size > int64(c.limits.Unread) && c.err == nil {
		stall := make(chan struct{})
		c.readStall = stall
		c.mu.Unlock()
		expired := false
		select {
		case <-stall:
		case <-t.C:
			expired = true
		}
		c.mu.Lock()
		if expired {
			c.readStall = nil
			return
		}
	}
}

// waitForReader stops reading the connection while a channel of a document-only
// peer holds too much: there is no credit to hold the peer back with.
func (c *Conn) waitForReader(s *Stream) error {
	for {
		c.mu.Lock()
		if !c.peer.documentOnly || s.unread <= documentQueue || s.state == ended || c.err != nil {
			c.mu.Unlock()
			return nil
		}
		stall := make(chan struct{})
		c.readStall = stall
		c.mu.Unlock()
		<-stall
	}
}

// Peer is the other end's authenticated id; empty where there is none.
func (c *Conn) Peer() identity.PeerID { return c.cfg.Remote }
