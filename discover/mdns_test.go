package discover

import (
	"net"
	"slices"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// Nodes of one LAN meet, by the reference's service string and by parley's own.
func TestMDNS(t *testing.T) {
	if !multicast(t) {
		t.Skip("no interface with multicast here")
	}
	a, b := newParty(t, Config{MDNS: true}), newParty(t, Config{MDNS: true})
	waitConnected(t, a, b)
	waitConnected(t, b, a)

	// A page that comes later is announced too: others learn its addresses, but
	// don't connect to it.
	key := newKey(t)
	page := key.PeerID()
	told := make(chan struct{}, 1)
	defer a.Notify(func(id identity.PeerID) {
		if id == page {
			select {
			case told <- struct{}{}:
			default:
			}
		}
	})()
	defer b.d.AddPage(key, func() []ma.Multiaddr { return []ma.Multiaddr{addr(pageAddr)} })()
	select {
	case <-told:
	case <-deadline(t).Done():
		t.Fatal("never told of the page")
	}
	if got := a.h.Peerstore().Addrs(page); len(got) != 1 || got[0].String() != pageAddr {
		t.Errorf("addresses %v, want %s", got, pageAddr)
	}
}

func TestDnsaddrs(t *testing.T) {
	id := newKey(t).PeerID()
	tests := []struct {
		name string
		in   []string
		want []string
	}{
		{"tcp before quic, loopback left out",
			[]string{"/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.2/udp/2/quic-v1", "/ip4/192.168.1.2/tcp/1"},
			[]string{"/ip4/192.168.1.2/tcp/1", "/ip4/192.168.1.2/udp/2/quic-v1"}},
		{"loopback where there is nothing else", []string{"/ip4/127.0.0.1/tcp/1"}, []string{"/ip4/127.0.0.1/tcp/1"}},
		{"nothing for browsers, relays, names or link-local",
			[]string{"/ip4/10.0.0.1/tcp/1/ws", "/ip4/10.0.0.1/udp/1/quic-v1/webtransport", "/dns4/example.org/tcp/1",
				"/ip4/10.0.0.1/tcp/1/p2p/" + id.String() + "/p2p-circuit", "/ip6/fe80::1/tcp/1"}, nil},
		{"not too many",
			[]string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.3/tcp/1", "/ip4/10.0.0.4/tcp/1", "/ip4/10.0.0.5/tcp/1"},
			[]string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.3/tcp/1", "/ip4/10.0.0.4/tcp/1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var in []ma.Multiaddr
			for _, a := range tt.in {
				in = append(in, addr(a))
			}
			var want []string
			for _, a := range tt.want {
				want = append(want, dnsaddr+a+"/p2p/"+id.String())
			}
			if got := dnsaddrs(id, in); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// What anybody on the LAN can say does no harm.
func FuzzMDNSEntry(f *testing.F) {
	f.Add("dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB", pageMark)
	f.Add("dnsaddr=/ip4/1.2.3.4", "")
	p := idleParty(f, Config{})
	m := &lanMeeter{d: p.d, slots: make(chan struct{}, maxMDNSDials)}
	f.Fuzz(func(t *testing.T, a, b string) {
		m.entry([]string{a, b})
		if len(m.slots) != 0 {
			t.Error("a slot wasn't given back")
		}
	})
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
