package host

import (
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits that differ from libp2p's, which are made for hosts without pages.
// A node and all its pages share one resource manager, so the system's limits
// count them together; docs/limits.md prints what results.
const (
	connsPerIP      = 256 // another node's pages come from one address; beyond it they go through the node
	connRatePerIP   = 20  // new connections a second and address …
	connBurstPerIP  = 512 // … after this many
	streamsPerPeer  = 4096
	circuitsPerPeer = 4096 // streams a node has to another are mostly circuits of their pages

	nodeAddresses = 100_000 // addresses remembered of peers that aren't connected …
	pageAddresses = 10_000  // … and by each page
)

// newLimits makes the resource manager that a node shares with its pages.
// Memory is at most an eighth of the machine's, descriptors half of the
// process's, as libp2p does.
func newLimits() (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)

	grow := func(b *rcmgr.BaseLimit, inc *rcmgr.BaseLimitIncrease) {
		b.Conns, b.ConnsInbound, b.ConnsOutbound = 4096, 2048, 4096
		b.Streams, b.StreamsInbound, b.StreamsOutbound = 32768, 16384, 32768
		inc.Conns, inc.ConnsInbound, inc.ConnsOutbound = 2048, 1024, 2048
		inc.Streams, inc.StreamsInbound, inc.StreamsOutbound = 16384, 8192, 16384
	}
	grow(&scaling.SystemBaseLimit, &scaling.SystemLimitIncrease)
	grow(&scaling.AllowlistedSystemBaseLimit, &scaling.AllowlistedSystemLimitIncrease)
	// Transient are connections and streams whose peer or protocol isn't known
	// yet: what an attacker can hold without a handshake. One address alone
	// (connsPerIP) can't hold all of it.
	scaling.TransientBaseLimit.Conns, scaling.TransientBaseLimit.ConnsInbound, scaling.TransientBaseLimit.ConnsOutbound = 2048, 1024, 1024
	scaling.TransientBaseLimit.Streams, scaling.TransientBaseLimit.StreamsInbound, scaling.TransientBaseLimit.StreamsOutbound = 1024, 512, 1024
	scaling.PeerBaseLimit.Conns, scaling.PeerBaseLimit.ConnsInbound, scaling.PeerBaseLimit.ConnsOutbound = 64, 32, 64
	scaling.PeerBaseLimit.Streams, scaling.PeerBaseLimit.StreamsInbound, scaling.PeerBaseLimit.StreamsOutbound = streamsPerPeer, streamsPerPeer/2, streamsPerPeer
	for _, p := range []protocol.ID{proto.ProtoIDv2Hop, hopName} {
		scaling.AddProtocolLimit(p,
			rcmgr.BaseLimit{Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 16384, Memory: 64 << 20},
			rcmgr.BaseLimitIncrease{Streams: 8192, StreamsInbound: 4096, StreamsOutbound: 8192, Memory: 64 << 20})
		scaling.AddProtocolPeerLimit(p,
			rcmgr.BaseLimit{Streams: circuitsPerPeer, StreamsInbound: circuitsPerPeer, StreamsOutbound: circuitsPerPeer, Memory: 64 << 20},
			rcmgr.BaseLimitIncrease{})
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(scaling.AutoScale()),
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
