package host

import (
	"fmt"
	"net"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

// A start that fails says why and leaves nothing behind.
func TestNewFails(t *testing.T) {
	taken := newNode(t, loopback())
	port, err := bareAddrs(taken.Addrs())[0].ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"port in use", Config{Listen: []string{"/ip4/127.0.0.1/tcp/" + port}, NoNAT: true}, "address already in use"},
		{"udp port in use", Config{Listen: []string{"/ip4/127.0.0.1/udp/" + udpTaken(t) + "/quic-v1"}, NoNAT: true}, "p2p.listen"},
		{"no multiaddr", Config{Listen: []string{"127.0.0.1:80"}}, "p2p.listen"},
		{"page address", Config{PageListen: []string{"tcp"}}, "page listen address"},
		{"relay without id", Config{Relays: []string{"/ip4/127.0.0.1/tcp/1"}}, "ends in /p2p/<id>"},
		{"relay profile", Config{RelayProfile: "free"}, `relay.profile is "free"`},
		{"pages", Config{MaxPages: -1}, "MaxPages"},
		{"connections", Config{Conns: Conns{Low: 5, High: 4}}, "high mark 4 is below the low one 5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := New(newKey(t), tt.cfg)
			if err == nil {
				_ = n.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}

// udpTaken is a UDP port that the test holds.
func udpTaken(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
}
