package discover

import (
	"net"
	"testing"
	"time"
)

// Nodes of one LAN meet, by the reference's service string and by parley's own.
func TestMDNS(t *testing.T) {
	if !multicast(t) {
		t.Skip("no interface with multicast here")
	}
	a, b := newParty(t, Config{MDNS: true}), newParty(t, Config{MDNS: true})
	waitConnected(t, a, b)
	waitConnected(t, b, a)
}

// multicast reports whether a packet to a multicast group comes back here.
func multicast(t *testing.T) bool {
	t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(239, 77, 77, 77), Port: 0}
	in, err := net.ListenMulticastUDP("udp4", nil, group)
	if err != nil {
		return false
	}
	defer in.Close()
	group.Port = in.LocalAddr().(*net.UDPAddr).Port
	out, err := net.DialUDP("udp4", nil, group)
	if err != nil {
		return false
	}
	defer out.Close()
	if _, err := out.Write([]byte("hello")); err != nil {
		return false
	}
	if err := in.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return false
	}
	_, err = in.Read(make([]byte, 16))
	return err == nil
}
