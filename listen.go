package parley

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/parley-p2p/parley/identity"
)

// maxTries is how often a free port is looked for that both loopback addresses
// have.
const maxTries = 20

// listen opens the HTTP listeners on one port: the first free of those the
// configuration names, or any where that is 0. "localhost" is 127.0.0.1 and
// ::1, both or none: a stranger's program on the other half would get what was
// meant for this node. The caller closes them.
func (c ServerConfig) listen(ctx context.Context) (listeners []net.Listener, port int, err error) {
	tries, first, last := c.PortRange, c.Port, min(c.Port+c.PortRange-1, 65535)
	if c.Port == 0 {
		tries, last = maxTries, 0
	}
	for i := range tries {
		p := min(first+i, last)
		listeners, err = listenAll(ctx, c.addresses(), p)
		if err == nil {
			_, text, _ := net.SplitHostPort(listeners[0].Addr().String())
			port, err = strconv.Atoi(text)
			return listeners, port, err
		}
		if !errors.Is(err, syscall.EADDRINUSE) && !inUse(err) || p == last && p != 0 {
			break
		}
	}
	if c.Port != 0 && last > first {
		return nil, 0, identity.Errorf(identity.CodeLimit, "no free port from %d to %d on %s: %w", first, last, c.Listen, err)
	}
	return nil, 0, fmt.Errorf("listen on %s: %w", c.Listen, err)
}

func (c ServerConfig) addresses() []string {
	if strings.EqualFold(c.Listen, "localhost") {
		return []string{"127.0.0.1", "::1"}
	}
	return []string{strings.Trim(c.Listen, "[]")}
}

// listenAll opens all addresses with one port; for port 0 the first decides.
// A machine without one of the two IP versions does without it.
func listenAll(ctx context.Context, hosts []string, port int) ([]net.Listener, error) {
	var (
		open []net.Listener
		lack error
		lc   net.ListenConfig
	)
	for _, host := range hosts {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil && len(hosts) > 1 && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)) {
			lack = err
			continue
		}
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			return nil, err
		}
		open = append(open, l)
		if port == 0 {
			port = l.Addr().(*net.TCPAddr).Port
		}
	}
	if len(open) == 0 {
		return nil, lack
	}
	return open, nil
}

// inUse knows the words of systems whose error number is another.
func inUse(err error) bool {
	const wsaAddrInUse, wsaAccess = syscall.Errno(10048), syscall.Errno(10013)
	return errors.Is(err, wsaAddrInUse) || errors.Is(err, wsaAccess)
}
