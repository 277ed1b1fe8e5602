package peertest

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// Sim is a cluster of go-libp2p hosts that speak QUIC over a simulated wire, in
// virtual time. Make and use it inside a synctest bubble:
//
//	synctest.Test(t, func(t *testing.T) {
//		sim := peertest.NewSim(t, peertest.SimConfig{Hosts: 3, Delay: 100 * time.Millisecond, Loss: 0.05})
//		a, b := sim.Host(0), sim.Host(1)   // network.Network, know each other's addresses
//		sim.Partition(0, 1)                // packets between them vanish
//		time.Sleep(30 * time.Second)       // virtual
//		sim.Heal(0, 1)
//		b = sim.Restart(1)                 // same key, same address, no memory
//	})
//
// Loss follows the seed and the order of packets; the Go scheduler decides that
// order, so a seed narrows a failure down but doesn't replay it to the bit.
type Sim struct {
	t       testing.TB
	cfg     SimConfig
	wire    *simnet.Simnet
	keys    []identity.Key
	hosts   []*Libp2p
	dropped time.Duration // the latency of a packet that is lost

	mu     sync.Mutex
	random *rand.Rand
	loss   float64
	cut    map[[2]string]bool // by the addresses of the packets
}

// SimConfig says what the wire is like. Zero fields get the defaults.
type SimConfig struct {
	Hosts     int           // 2
	Delay     time.Duration // of a packet, one way; 10 ms
	Loss      float64       // share of packets lost, 0 … 1; 0
	Bandwidth int           // bits a second of each host, each way; 100 Mbit/s
	Seed      uint64
	Options   []libp2p.Option // for every host, besides what the wire needs
}

// NewSim starts the hosts. They are closed when the test ends, or by Close,
// which a synctest bubble needs before it ends.
func NewSim(t testing.TB, cfg SimConfig) *Sim {
	t.Helper()
	if cfg.Hosts == 0 {
		cfg.Hosts = 2
	}
	if cfg.Delay == 0 {
		cfg.Delay = 10 * time.Millisecond
	}
	if cfg.Bandwidth == 0 {
		cfg.Bandwidth = 100 * simlibp2p.OneMbps
	}
	s := &Sim{t: t, cfg: cfg, loss: cfg.Loss, cut: make(map[[2]string]bool),
		dropped: 100 * 365 * 24 * time.Hour,
		random:  rand.New(rand.NewPCG(cfg.Seed, 1)),
		keys:    make([]identity.Key, cfg.Hosts), hosts: make([]*Libp2p, cfg.Hosts)}
	s.wire = &simnet.Simnet{LatencyFunc: s.latency, Logger: slog.New(slog.DiscardHandler)}
	s.wire.Start()
	for i := range s.hosts {
		seed := [32]byte{byte(i), byte(i >> 8), 1}
		k, err := identity.KeyFromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		s.keys[i] = k
		s.start(i)
	}
	return s
}

// Host is the i-th host as it runs now.
func (s *Sim) Host(i int) *Libp2p { return s.hosts[i] }

// Key is the i-th host's key.
func (s *Sim) Key(i int) identity.Key { return s.keys[i] }

// SetLoss changes the share of packets that are lost.
func (s *Sim) SetLoss(loss float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loss = loss
}

// Partition lets every packet between two hosts vanish, until Heal.
func (s *Sim) Partition(i, j int) { s.setCut(i, j, true) }

// Heal ends a partition.
func (s *Sim) Heal(i, j int) { s.setCut(i, j, false) }

func (s *Sim) setCut(i, j int, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, b := udpAddress(i), udpAddress(j)
	s.cut[[2]string{a, b}], s.cut[[2]string{b, a}] = cut, cut
}

// Stop closes the i-th host without a successor. What runs on its Network must
// be closed before.
func (s *Sim) Stop(i int) {
	h := s.hosts[i]
	h.Close()
	_ = h.host.Close()
}

// Restart stops the i-th host, unless Stop did, and starts a new one with its
// key and address. What runs on its Network must be closed before.
func (s *Sim) Restart(i int) *Libp2p {
	s.t.Helper()
	s.Stop(i)
	s.start(i)
	return s.hosts[i]
}

// Close stops all hosts and the wire.
func (s *Sim) Close() {
	for i := range s.hosts {
		s.Stop(i)
	}
	s.wire.Close()
}

func (s *Sim) start(i int) {
	s.t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: s.cfg.Bandwidth}
	opts := append([]libp2p.Option{
		libp2p.Identity(s.keys[i].Libp2p()),
		libp2p.ListenAddrStrings(address(i)),
		simlibp2p.QUICSimnet(s.wire, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(), // stalls virtual time
		libp2p.ResourceManager(&libnet.NullResourceManager{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	}, s.cfg.Options...)
	h, err := libp2p.New(opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	for j, k := range s.keys {
		if j != i && !k.IsZero() {
			h.Peerstore().AddAddr(k.PeerID(), multiaddr.StringCast(address(j)), peerstore.PermanentAddrTTL)
			if other := s.hosts[j]; other != nil {
				other.host.Peerstore().AddAddr(h.ID(), multiaddr.StringCast(address(i)), peerstore.PermanentAddrTTL)
			}
		}
	}
	s.hosts[i] = FromHost(h)
}

// latency decides over each packet. One that is lost gets a latency that no test
// lives to see: the wire has no other way to drop it.
func (s *Sim) latency(p *simnet.Packet) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut[[2]string{p.From.String(), p.To.String()}] || s.loss > 0 && s.random.Float64() < s.loss {
		return s.dropped
	}
	return s.cfg.Delay
}

func address(i int) string {
	return fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))
}

func udpAddress(i int) string { return fmt.Sprintf("%s:8000", simnet.IntToPublicIPv4(i)) }
