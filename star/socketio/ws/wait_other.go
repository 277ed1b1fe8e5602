//go:build !linux

package ws

import "errors"

// canWait says that a reader can wait for a descriptor without a buffer. Here it
// holds a small one, and writes go in pieces.
const canWait = false

func readNow(uintptr, []byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }

func readParts(uintptr, [][]byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }

func writeNow(uintptr, [][]byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }

func writeOne(uintptr, []byte) (int, bool, error) { return 0, false, errors.ErrUnsupported }

func setUnsent(uintptr) {}
