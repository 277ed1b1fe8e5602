package peer

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// sink handles what comes and keeps nothing.
type sink struct{}

func (sink) SettlesDeliveries() bool { return true }

func (sink) Receive(_ context.Context, d network.Delivery) error {
	d.Handled()
	return nil
}

// benchmarkHandled sends b.N messages with inFlight of them unsettled.
func benchmarkHandled(b *testing.B, m *Member, to identity.PeerID, size, inFlight int) {
	data := make([]byte, size)
	slots := make(chan error, inFlight)
	for range inFlight {
		slots <- nil
	}
	done := func(o network.Outcome) { slots <- o.Err }
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := <-slots; err != nil {
			b.Fatal(err)
		}
		_, err := m.Send(network.Outgoing{To: to, Protocol: chat, Level: network.Handled,
			Content: network.Content{Type: network.Bytes, Data: data}, Done: done})
		if err != nil {
			b.Fatal(err)
		}
	}
	for range inFlight {
		if err := <-slots; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

func benchmarkSizes(b *testing.B, m *Member, to identity.PeerID) {
	for _, inFlight := range []int{1, 64} {
		for _, size := range []int{100, 1 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("inflight=%d/size=%d", inFlight, size), func(b *testing.B) {
				benchmarkHandled(b, m, to, size, inFlight)
			})
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	w := newWorld(b)
	_, m := w.peer(w.node(Config{}), 1, sink{})
	bob, _ := w.peer(w.node(Config{}), 2, sink{}, chat)
	benchmarkSizes(b, m, bob.ID())
}

func BenchmarkSameNode(b *testing.B) {
	w := newWorld(b)
	n := w.node(Config{})
	_, m := w.peer(n, 1, sink{})
	bob, _ := w.peer(n, 2, sink{}, chat)
	benchmarkSizes(b, m, bob.ID())
}

// BenchmarkLibp2p runs over two real hosts and loopback TCP: Noise or TLS, yamux.
func BenchmarkLibp2p(b *testing.B) {
	hosts := make([]*peertest.Libp2p, 2)
	for i := range hosts {
		h, err := libp2p.New(libp2p.Identity(key(b, i).Libp2p()), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
			libp2p.DisableRelay(), libp2p.DisableMetrics())
		if err != nil {
			b.Fatal(err)
		}
		hosts[i] = peertest.FromHost(h)
		defer h.Close()
		defer hosts[i].Close()
	}
	hosts[0].Host().Peerstore().AddAddrs(hosts[1].Local(), hosts[1].Host().Addrs(), time.Hour)
	var members [2]*Member
	for i, h := range hosts {
		n := New(Config{})
		defer n.Close()
		p, err := n.Add(h)
		if err != nil {
			b.Fatal(err)
		}
		members[i] = p.Join(sink{})
		if err := members[i].Start(chat); err != nil {
			b.Fatal(err)
		}
	}
	benchmarkSizes(b, members[0], hosts[1].Local())
}
