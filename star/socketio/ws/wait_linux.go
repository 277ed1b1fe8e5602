package ws

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// canWait says that a reader can wait for a descriptor without a buffer.
const canWait = true

// readNow reads what is there; again is true when nothing is.
func readNow(fd uintptr, b []byte) (n int, again bool, err error) {
	for {
		n, err = unix.Read(int(fd), b)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return n, false, err
	}
}

// readParts is readNow for some parts, each filled before the next.
func readParts(fd uintptr, parts [][]byte) (n int, again bool, err error) {
	for {
		n, err = unix.Readv(int(fd), parts)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return n, false, err
	}
}

// writeNow writes as much of the parts as goes without waiting; again is true
// when nothing goes.
func writeNow(fd uintptr, parts [][]byte) (n int, again bool, err error) {
	for {
		if len(parts) == 1 {
			n, err = unix.Write(int(fd), parts[0])
		} else {
			n, err = unix.Writev(int(fd), parts)
		}
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return max(n, 0), false, err
	}
}

// setUnsent bounds what a socket of TCP holds unsent.
func setUnsent(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) // not all sockets are TCP's
}
