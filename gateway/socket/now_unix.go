//go:build unix

package socket

import "syscall"

const canTry = true

// tryWrite writes what the system takes at once; sockets of Go never block.
func tryWrite(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
