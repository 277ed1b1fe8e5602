package ws

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canWait says that a reader can wait for a descriptor without a buffer.
const canWait = true

// The calls below never wait: the descriptor does not block. So the scheduler need
// not be told of them, which would wake its watching thread for each that comes to
// an idle process.

// maxVector is how many parts one call takes.
const maxVector = 32

// call makes one system call; again is true when it would have to wait.
func call(trap, fd uintptr, p unsafe.Pointer, n int) (done int, again bool, err error) {
	for {
		r, _, errno := syscall.RawSyscall(trap, fd, uintptr(p), uintptr(n))
		switch errno {
		case 0:
			return int(r), false, nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return 0, false, errno
	}
}

// vectored is call for parts, as many of them as it takes.
func vectored(trap, fd uintptr, parts [][]byte) (done int, again bool, err error) {
	var v [maxVector]unix.Iovec
	n := 0
	for _, p := range parts {
		if n == maxVector {
			break
		}
		if len(p) > 0 {
			v[n].Base = &p[0]
			v[n].SetLen(len(p))
			n++
		}
	}
	return call(trap, fd, unsafe.Pointer(&v), n)
}

// readNow reads what is there; again is true when nothing is.
func readNow(fd uintptr, b []byte) (n int, again bool, err error) {
	return call(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

// readParts is readNow for some parts, each filled before the next.
func readParts(fd uintptr, parts [][]byte) (n int, again bool, err error) {
	return vectored(unix.SYS_READV, fd, parts)
}

// writeNow writes as much of the parts as goes without waiting; again is true
// when nothing goes.
func writeNow(fd uintptr, parts [][]byte) (n int, again bool, err error) {
	if len(parts) == 1 {
		return writeOne(fd, parts[0])
	}
	return vectored(unix.SYS_WRITEV, fd, parts)
}

// writeOne is writeNow for one part.
func writeOne(fd uintptr, b []byte) (n int, again bool, err error) {
	return call(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

// setUnsent bounds what a socket of TCP holds unsent.
func setUnsent(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) // not all sockets are TCP's
}
