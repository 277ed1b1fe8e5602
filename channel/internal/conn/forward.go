package conn

import (
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// Forward sends a content for a relay. It does not wait for credit, since the
// relay never grants more than it was granted. record, where it
// is not nil, is the content as an unpacked record in a buffer that Forward
// takes over.
func (s *Stream) Forward(content, record []byte) {
	c := s.c
	size := mux.ContentRecordSize(len(content))
	switch {
	case c.cfg.Encoding != wire.Unpacked:
		record = mux.AppendRecord(nil, c.cfg.Encoding, &mux.Message{Kind: mux.Content, Channel: s.id, Content: content})
	case record != nil:
		mux.Readdress(record, s.id)
	case size > smallItem:
		record = mux.AppendContentRecord(c.cfg.Buffers.get(size)[:0], s.id, content)
	}
	c.mu.Lock()
	if s.state == ended || s.closing {
		c.mu.Unlock()
		c.cfg.Buffers.put(record)
		return
	}
	switch {
	case len(record) > smallItem:
		s.tx.push(c.cfg.Buffers, record)
	case record != nil:
		copy(s.tx.reserve(c.cfg.Buffers, len(record)), record)
		c.cfg.Buffers.put(record)
	default:
		mux.AppendContentRecord(s.tx.reserve(c.cfg.Buffers, size)[:0], s.id, content)
	}
	s.credit -= cost(len(content)) // there always is enough, but it must not pile up
	s.countOut(len(content))
	c.makeReady(s)
	c.mu.Unlock()
	c.signal()
}

// Grant gives the peer more credit, for a relay.
func (s *Stream) Grant(add uint32) {
	c := s.c
	c.mu.Lock()
	if s.state != ended && !s.closing && !c.peer.documentOnly {
		s.window += int64(add)
		s.peerCredit += int64(add)
		c.queueGrant(s, int64(add))
	}
	c.mu.Unlock()
	c.signal()
}
