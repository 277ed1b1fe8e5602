package conn

import "time"

// endedIDs remembers for a while which channels have ended, so that what was
// under way on them is dropped and not answered. Ids come in sequence, so they
// are kept in blocks of 64 of one parity; the newest maxBlocks are known.
type endedIDs struct {
	blocks map[uint32]*endedBlock
	order  []uint32 // keys of blocks, oldest first
}

type endedBlock struct {
	ids  uint64
	last time.Time // when the last of them ended
}

const maxBlocks = 4096 // 262,144 ids

func blockOf(id uint32) (key uint32, bit uint64) {
	return id>>7<<1 | id&1, 1 << (id >> 1 & 63)
}

func (e *endedIDs) add(id uint32, now time.Time) {
	if e.blocks == nil {
		e.blocks = make(map[uint32]*endedBlock)
	}
	e.expire(now)
	key, bit := blockOf(id)
	b := e.blocks[key]
	if b == nil {
		if len(e.order) == maxBlocks {
			delete(e.blocks, e.order[0])
			e.order = e.order[1:]
		}
		b = &endedBlock{}
		e.blocks[key] = b
		e.order = append(e.order, key)
	}
	b.ids |= bit
	b.last = now
}

// has reports whether the channel ended in the last half minute, or a little
// longer ago.
func (e *endedIDs) has(id uint32, now time.Time) bool {
	key, bit := blockOf(id)
	b := e.blocks[key]
	return b != nil && b.ids&bit != 0 && now.Sub(b.last) <= endedFor
}

// expire forgets blocks from the old end that are due.
func (e *endedIDs) expire(now time.Time) {
	for len(e.order) > 0 && now.Sub(e.blocks[e.order[0]].last) > endedFor {
		delete(e.blocks, e.order[0])
		e.order = e.order[1:]
	}
}
