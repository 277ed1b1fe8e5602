package v2

import "sort"

// Replay keeps the numbered frames that a page was sent and has not confirmed,
// as they were written: one segment a WebSocket message. The zero Replay is
// empty. It is for one goroutine at a time.
type Replay struct {
	segments []segment
	sent     uint64 // frames appended so far: the number of the last one
	trimmed  uint64 // the page confirmed up to here
	bytes    int
}

// segment is one message. What was written before its first numbered frame is
// not kept.
type segment struct {
	first uint64   // number of its first frame
	data  []byte   // the frames, one behind the other
	ends  []uint32 // where each ends in data
}

// Bytes is what it holds, in memory.
func (r *Replay) Bytes() int { return r.bytes }

// Add keeps a message's frames, whose number is len(ends), at least one.
func (r *Replay) Add(data []byte, ends []uint32) {
	r.segments = append(r.segments, segment{first: r.sent + 1, data: data, ends: ends})
	r.sent += uint64(len(ends))
	r.bytes += cap(data)
}

// Trim forgets the first n frames. It is false where n was never sent, or was
// confirmed long ago: who says so has lost count.
func (r *Replay) Trim(n uint64) bool {
	if n > r.sent || n < r.trimmed {
		return false
	}
	r.trimmed = n
	done := 0
	for ; done < len(r.segments); done++ {
		s := &r.segments[done]
		if s.first+uint64(len(s.ends))-1 > n {
			break
		}
		r.bytes -= cap(s.data)
	}
	if done == len(r.segments) {
		r.segments = nil
	} else if done > 0 {
		r.segments = append([]segment(nil), r.segments[done:]...)
	}
	return true
}

// Since gives the frames behind number n, message by message.
func (r *Replay) Since(n uint64) [][]byte {
	from := sort.Search(len(r.segments), func(i int) bool {
		s := &r.segments[i]
		return s.first+uint64(len(s.ends))-1 > n
	})
	var msgs [][]byte
	for _, s := range r.segments[from:] {
		start := uint32(0)
		if n >= s.first {
			start = s.ends[n-s.first]
		}
		msgs = append(msgs, s.data[start:])
	}
	return msgs
}
