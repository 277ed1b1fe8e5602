package ws

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// S-4: a server's connection holds little in the system for a reader that takes
// nothing.
func TestS_4_SystemHoldsLittle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	away, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(nc, true, nil, 1<<20, &Memory{})
	defer nc.Close()
	raw, err := c.NetConn().(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	unsent := 0
	err = raw.Write(func(fd uintptr) bool {
		for range 256 { // until nothing goes any more
			if _, again, err := writeNow(fd, [][]byte{piece}); again || err != nil {
				break
			}
		}
		unsent, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if unsent == 0 || unsent > 2*maxUnsent {
		t.Errorf("%d bytes are unsent, want some, and %d or a little more", unsent, maxUnsent)
	}
}
