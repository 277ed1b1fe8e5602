package host

import (
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits that differ from libp2p's, which are made for hosts without pages.
// A node and all its pages share one resource manager, so the system's limits
// count them together; docs/limits.md prints what results.
const (
	connsPerIP      = 256  // another node's pages come from one address; beyond it they go through the node
	connRatePerIP   = 20   // new connections a second and address …
	connBurstPerIP  = 512  // … after this many
	circuitsPerPeer = 4096 // streams between two nodes are mostly circuits of their pages

	nodeAddresses = 100_000 // addresses remembered of peers that aren't connected …
	pageAddresses = 10_000  // … and by each page
)

// Every stream is charged with 256 KiB from the start, the window that its peer
// may fill without being read, although few ever hold that much. libp2p's shares
// of memory would end at 512 streams on a small machine and at as many with one
// peer, so the system's share is doubled, to a quarter of the machine's memory,
// and one peer, which may be a node with hundreds of pages, may have half of it.
const (
	systemShare = 2 << 30 // for each GiB of an eighth of the machine's memory
	peerShare   = systemShare / 2
)

// newLimits makes the resource manager that a node shares with its pages.
// Descriptors are at most half of the process's, as libp2p does.
func newLimits() (network.ResourceManager, error) {
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(scaledLimits().AutoScale()),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerIP}, {PrefixLength: 48, ConnCount: 4 * connsPerIP}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: loopbackUnlimited,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: connRatePerIP, Burst: connBurstPerIP}}},
				IPv6SubnetLimits: []rate.SubnetLimit{
					{PrefixLength: 56, Limit: rate.Limit{RPS: connRatePerIP, Burst: connBurstPerIP}},
					{PrefixLength: 48, Limit: rate.Limit{RPS: 2 * connRatePerIP, Burst: 4 * connBurstPerIP}},
				},
				GracePeriod: rateGrace,
			},
		}),
	)
}

// scaledLimits are libp2p's with the changes that pages need.
func scaledLimits() *rcmgr.ScalingLimitConfig {
	l := rcmgr.DefaultLimits // a copy; its maps are empty
	libp2p.SetDefaultServiceLimits(&l)

	l.SystemBaseLimit = withCounts(l.SystemBaseLimit, 4096, 32768)
	l.SystemLimitIncrease = rcmgr.BaseLimitIncrease{
		Conns: 2048, ConnsInbound: 1024, ConnsOutbound: 2048,
		Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 16384,
		Memory: systemShare, FDFraction: 1,
	}
	l.AllowlistedSystemBaseLimit, l.AllowlistedSystemLimitIncrease = l.SystemBaseLimit, l.SystemLimitIncrease
	// Transient are connections and streams whose peer or protocol isn't known
	// yet: what an attacker can hold without a handshake. One address alone
	// (connsPerIP) can't hold all of it.
	l.TransientBaseLimit = withCounts(l.TransientBaseLimit, 2048, 8192)

	// One page may be connected to every page of this node.
	l.PeerBaseLimit = withCounts(l.PeerBaseLimit, 2048, 2*circuitsPerPeer)
	l.PeerBaseLimit.Memory, l.PeerBaseLimit.FD = 128<<20, 64
	l.PeerLimitIncrease = rcmgr.BaseLimitIncrease{Memory: peerShare, FDFraction: 1.0 / 64}
	// A protocol of a popular page has streams from everybody. One peer still has
	// libp2p's 64 incoming ones of it.
	l.ProtocolBaseLimit = rcmgr.BaseLimit{Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 16384, Memory: 64 << 20}

	for _, p := range []protocol.ID{proto.ProtoIDv2Hop, hopName} {
		l.AddProtocolLimit(p, l.ProtocolBaseLimit, rcmgr.BaseLimitIncrease{})
		l.AddProtocolPeerLimit(p, rcmgr.BaseLimit{
			Streams: 2 * circuitsPerPeer, StreamsInbound: circuitsPerPeer, StreamsOutbound: circuitsPerPeer, Memory: 64 << 20,
		}, rcmgr.BaseLimitIncrease{})
	}
	// Each new connection asks who the other is, and a page may be connected to
	// hundreds of others at once.
	few, one := rcmgr.BaseLimit{Streams: 4096, StreamsInbound: 2048, StreamsOutbound: 2048, Memory: 32 << 20},
		rcmgr.BaseLimit{Streams: 512, StreamsInbound: 256, StreamsOutbound: 256, Memory: 8 << 20}
	l.AddServiceLimit(identify.ServiceName, few, rcmgr.BaseLimitIncrease{})
	l.AddServicePeerLimit(identify.ServiceName, one, rcmgr.BaseLimitIncrease{})
	for _, p := range []protocol.ID{identify.ID, identify.IDPush} {
		l.AddProtocolLimit(p, few, rcmgr.BaseLimitIncrease{})
		l.AddProtocolPeerLimit(p, one, rcmgr.BaseLimitIncrease{})
	}
	return &l
}

// withCounts sets how many connections and streams there may be, half of them
// incoming.
func withCounts(l rcmgr.BaseLimit, conns, streams int) rcmgr.BaseLimit {
	l.Conns, l.ConnsInbound, l.ConnsOutbound = conns, conns/2, conns
	l.Streams, l.StreamsInbound, l.StreamsOutbound = streams, streams/2, streams
	return l
}
