package v2

import (
	"bytes"
	"sort"
)

// Replay keeps the numbered frames that a page was sent and has not confirmed,
// as they were written: one segment a WebSocket message. The zero Replay is
// empty. It is for one goroutine at a time.
//
// It owns what Add gave it. A message is confirmed by whoever reads the page,
// who may claim it while it is still being written; so the memory of a message
// is given to Free only where it has been Written.
type Replay struct {
	// Free is given the buffers that nobody looks at any more; nil leaves them
	// to the collector.
	Free func(buf []byte)

	segments []segment
	sent     uint64 // frames appended so far: the number of the last one
	trimmed  uint64 // the page confirmed up to here
	bytes    int
	writing  bool // the message added last is being written
}

// segment is one message. What was written before its first numbered frame is
// no frame of it.
type segment struct {
	first uint64   // number of its first frame
	buf   []byte   // the memory of all parts that are not contents; goes to Free
	parts [][]byte // the message
	skip  int      // bytes of it before its first frame
	ends  []uint32 // where each frame ends, counted from the first
	bytes int      // in memory
}

func (s *segment) last() uint64 { return s.first + uint64(len(s.ends)) - 1 }

// Bytes is what it holds, in memory.
func (r *Replay) Bytes() int { return r.bytes }

// Add keeps a message that is to be written now, whose numbered frames begin
// behind skip bytes and end at ends, counted from there; at least one.
func (r *Replay) Add(b *Batch, skip int, ends []uint32) {
	r.segments = append(r.segments, segment{first: r.sent + 1, buf: b.Buf, parts: b.Parts(nil),
		skip: skip, ends: ends, bytes: cap(b.Buf) + b.apart})
	r.sent += uint64(len(ends))
	r.bytes += cap(b.Buf) + b.apart
	r.writing = true
}

// Written says that the message added last is no longer being written.
func (r *Replay) Written() { r.writing = false }

// Trim forgets the first n frames. It is false where n was never sent, or was
// confirmed long ago: who says so has lost count.
func (r *Replay) Trim(n uint64) bool {
	if n > r.sent || n < r.trimmed {
		return false
	}
	r.trimmed = n
	done := 0
	for ; done < len(r.segments) && r.segments[done].last() <= n; done++ {
		s := &r.segments[done]
		r.bytes -= s.bytes
		if beingWritten := r.writing && s.last() == r.sent; !beingWritten && r.Free != nil {
			r.Free(s.buf)
		}
	}
	switch {
	case done == 0:
	case done == len(r.segments) && cap(r.segments) > keepSegments:
		r.segments = nil
	default:
		left := copy(r.segments, r.segments[done:])
		clear(r.segments[left:])
		r.segments = r.segments[:left]
	}
	return true
}

// keepSegments is the length of a list that is worth keeping.
const keepSegments = 8

// Since gives the frames behind number n, message by message, as copies.
func (r *Replay) Since(n uint64) [][]byte {
	from := sort.Search(len(r.segments), func(i int) bool { return r.segments[i].last() > n })
	var msgs [][]byte
	for _, s := range r.segments[from:] {
		start := s.skip
		if n >= s.first {
			start += int(s.ends[n-s.first])
		}
		msgs = append(msgs, bytes.Join(s.parts, nil)[start:])
	}
	return msgs
}
