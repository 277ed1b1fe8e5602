// Package lend lends memory of some kilobytes to those who need it shortly:
//
//	buf := lend.Get(n)     empty, with room for n bytes; yours
//	buf = append(buf, …)
//	lend.Put(buf)          not yours any more, nor is any slice of it
//
// Memory of its own would cost each idle session its size, and new memory a
// message is a fifth of a message's time. Who puts a buffer back must be its only
// owner: under the race detector what is put back is overwritten at once, so
// that tests see who looks at it still. Not to put a buffer back is always safe.
package lend

import (
	"math/bits"
	"sync"
)

// Buffers have sizes of 2^least to 2^most; others are made and left to the
// collector.
const (
	least = 12 // 4 KiB
	most  = 18 // 256 KiB
)

// pools hold pointers to the arrays: a slice in an interface would be memory of
// its own.
var pools [most - least + 1]sync.Pool

// Get gives an empty buffer with room for n bytes at least.
func Get(n int) []byte {
	if n > 1<<most || n < 1<<least/2 {
		return make([]byte, 0, n)
	}
	class := max(bits.Len(uint(n-1)), least)
	if b, ok := pools[class-least].Get().(*byte); ok {
		return sliceOf(b, 1<<class)
	}
	return make([]byte, 0, 1<<class)
}

// Put takes a buffer back, where it is one of Get's. Nothing may refer to it any
// more.
func Put(buf []byte) {
	n := cap(buf)
	if n < 1<<least || n > 1<<most || n&(n-1) != 0 {
		return
	}
	poison(buf[:n])
	pools[bits.Len(uint(n))-1-least].Put(&buf[:1][0])
}
