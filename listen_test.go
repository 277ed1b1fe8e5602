package parley

import (
	"net"
	"strconv"
	"testing"

	"github.com/parley-p2p/parley/identity"
)

func closeAll(t *testing.T, ls []net.Listener) {
	t.Helper()
	t.Cleanup(func() {
		for _, l := range ls {
			l.Close()
		}
	})
}

func TestG_S2_ListensOnLoopback(t *testing.T) {
	cfg := DefaultConfig().Server
	cfg.Port = 0
	ls, port, err := cfg.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, ls)
	for _, l := range ls {
		addr := l.Addr().(*net.TCPAddr)
		if !addr.IP.IsLoopback() || addr.Port != port {
			t.Errorf("listens on %s, port %d", addr, port)
		}
	}
}

func TestPortSearch(t *testing.T) {
	cfg := ServerConfig{Listen: "localhost", Port: 0, PortRange: 1}
	first, port, err := cfg.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, first)
	one := ServerConfig{Listen: "localhost", Port: port, PortRange: 1}
	if ls, _, err := one.listen(t.Context()); err == nil {
		closeAll(t, ls)
		t.Fatal("the same port twice")
	}
	more := ServerConfig{Listen: "localhost", Port: port, PortRange: 100}
	second, next, err := more.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, second)
	if next <= port || next >= port+100 {
		t.Errorf("port %d, wanted one of %d to %d", next, port+1, port+99)
	}
}

// TestPortOfAnotherOnOneAddress: where a stranger holds the port on 127.0.0.1
// or ::1 alone, the node takes another port for both.
func TestPortOfAnotherOnOneAddress(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		stranger, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Logf("%s: %v", host, err)
			continue
		}
		closeAll(t, []net.Listener{stranger})
		taken := stranger.Addr().(*net.TCPAddr).Port
		cfg := ServerConfig{Listen: "localhost", Port: taken, PortRange: 50}
		ls, port, err := cfg.listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, ls)
		if port == taken {
			t.Errorf("took port %d beside a stranger on %s", port, host)
		}
	}
}

func TestListenSaysWhatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, []net.Listener{l})
	port := l.Addr().(*net.TCPAddr).Port
	_, _, err = ServerConfig{Listen: "127.0.0.1", Port: port, PortRange: 1}.listen(t.Context())
	if err == nil || err.Error() == "" {
		t.Fatalf("got %v", err)
	}
	if want := strconv.Itoa(port); !contains(err.Error(), want) {
		t.Errorf("%q does not name port %s", err, want)
	}
	if identity.CodeOf(err) == "" {
		t.Error("no code")
	}
}
