package conn

import (
	"net"
	"time"

	"github.com/parley-p2p/parley/wire/mux"
)

// Outbound, by the write loop:
//
//  1. collect takes what waits, in this order: hello, errors and relay records;
//     windows; creates in the order of their ids; then contents and closes, one
//     a turn of each channel, until there is a batch.
//  2. write gives the batch to the carrier.
//  3. sentBatch frees its buffers and tells bridges what has left.
//  4. Nothing there: wait for a signal. So what comes while a write is under way
//     leaves as one batch with the next, without a timer.

// batchBytes ends a batch: it bounds how long a window or an error waits for
// data, and is enough to make the carrier's cost per write small.
const batchBytes = 64 << 10

// segment is a part of a batch: up to end in Conn.out, then a large record.
type segment struct {
	end   int
	large []byte
}

func (c *Conn) writeLoop() {
	defer close(c.written)
	for {
		c.mu.Lock()
		any := c.collect()
		finish, drained := c.finish, c.drained()
		if any {
			c.writing = time.Now()
		}
		c.mu.Unlock()
		switch {
		case any && !c.half:
			if err := c.write(); err != nil {
				c.breakOff(lost(err))
			}
			c.sentBatch()
		case any: // answers to what the other end sent meanwhile
			c.sentBatch()
		case drained:
			c.halfClose()
		case finish:
			c.carrier.Close()
			return
		default:
			<-c.wake
		}
	}
}

// collect fills out and batch; it reports whether there is anything to write.
func (c *Conn) collect() bool {
	c.out, c.batch, c.sent = append(c.out[:0], c.control...), c.batch[:0], c.sent[:0]
	c.control = c.control[:0]
	c.writing = time.Time{}
	c.collectGrants()
	c.collectCreates()
	size := len(c.out)
	for size < batchBytes {
		s := c.readyQueue.pop()
		if s == nil {
			break
		}
		s.inReady = false
		if s.state == ended {
			continue
		}
		size += c.collectTurn(s)
		c.makeReady(s)
	}
	c.batch = append(c.batch, segment{end: len(c.out)})
	return len(c.out) > 0 || len(c.batch) > 1
}

func (c *Conn) collectGrants() {
	for _, s := range c.grants {
		s.inGrant = false
		if s.state == ended || s.closing && s.proof == nil {
			continue
		}
		c.msgOut = mux.Message{Kind: mux.Window, Channel: s.id, Window: uint32(s.grant), Proof: s.proof}
		s.grant, s.proof = 0, nil
		c.out = mux.AppendRecord(c.out, c.cfg.Encoding, &c.msgOut)
	}
	clear(c.grants)
	c.grants = c.grants[:0]
}

func (c *Conn) collectCreates() {
	n := 0
	for _, s := range c.opening {
		if s.state == opening && s.create == nil {
			break // still being signed; those behind it have higher ids
		}
		n++
		if s.state == ended {
			continue
		}
		c.out = mux.AppendRecord(c.out, c.cfg.Encoding, s.create)
		s.create, s.created = nil, true
		s.started = time.Now()
		if c.peer.documentOnly {
			s.state = open // silence is consent
			s.writers.wakeAll()
		}
		c.makeReady(s)
	}
	rest := copy(c.opening, c.opening[n:])
	clear(c.opening[rest:])
	c.opening = c.opening[:rest]
}

// collectTurn takes one content of s, or its close, and returns its size.
func (c *Conn) collectTurn(s *Stream) int {
	if s.tx.len == 0 {
		before := len(c.out)
		c.sendFinal(s)
		return len(c.out) - before
	}
	full := s.tx.bytes >= sendQueue
	rec, large := s.tx.peek()
	if large {
		c.batch = append(c.batch, segment{end: len(c.out), large: rec})
	} else {
		c.out = append(c.out, rec...)
	}
	s.tx.drop(c.cfg.Buffers)
	if full {
		s.writers.wake()
	}
	if s.sink != nil {
		c.sent = append(c.sent, s)
	}
	return len(rec)
}

func (c *Conn) write() error {
	if len(c.batch) == 1 {
		_, err := c.carrier.Write(c.out)
		return err
	}
	if tcp, ok := c.carrier.(*net.TCPConn); ok {
		return c.writeVector(tcp)
	}
	return c.writeWhole()
}

// writeWhole gives the batch to the carrier in one piece. What encrypts or frames
// a write costs more by each than a copy does: Noise makes messages of up to 64
// KiB, and none is shared by two writes.
func (c *Conn) writeWhole() error {
	size := len(c.out)
	for _, seg := range c.batch {
		size += len(seg.large)
	}
	whole := c.cfg.Buffers.batch(size)
	start := 0
	for _, seg := range c.batch {
		whole = append(append(whole, c.out[start:seg.end]...), seg.large...)
		start = seg.end
	}
	_, err := c.carrier.Write(whole)
	c.cfg.Buffers.batchDone(whole)
	return err
}

// writeVector saves a copy where the system takes several buffers at once.
func (c *Conn) writeVector(tcp *net.TCPConn) error {
	vec := c.vec[:0]
	start := 0
	for _, seg := range c.batch {
		if seg.end > start {
			vec = append(vec, c.out[start:seg.end])
			start = seg.end
		}
		if seg.large != nil {
			vec = append(vec, seg.large)
		}
	}
	c.vec = vec
	_, err := vec.WriteTo(tcp)
	clear(c.vec)
	return err
}

func (c *Conn) sentBatch() {
	for i, seg := range c.batch {
		if seg.large != nil {
			c.cfg.Buffers.put(seg.large)
		}
		c.batch[i] = segment{}
	}
	for i, s := range c.sent {
		s.sink.Sent(s)
		c.sent[i] = nil
	}
	for i, s := range c.over {
		s.sink.Ended(s, s.err)
		c.over[i] = nil
	}
	c.over = c.over[:0]
	if cap(c.out) > 2*batchBytes {
		c.out = nil
	}
}
