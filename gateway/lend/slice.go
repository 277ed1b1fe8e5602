package lend

import "unsafe"

// sliceOf is the buffer that begins at first. It was a slice of that size when
// its first byte was put into a pool.
func sliceOf(first *byte, size int) []byte { return unsafe.Slice(first, size)[:0] }
