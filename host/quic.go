package host

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/x/rate"
	quicgo "github.com/quic-go/quic-go"
)

// rateGrace is how long an address's bucket outlives its last connection.
const rateGrace = time.Minute

// loopbackUnlimited frees the own machine from rates by address.
var loopbackUnlimited = []rate.PrefixLimit{
	{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
	{Prefix: netip.MustParsePrefix("::1/128")},
}

// quicLimits makes a QUIC socket ask the resource manager before a handshake
// costs anything, as libp2p's own hosts do.
func quicLimits(limits network.ResourceManager) []quicreuse.Option {
	return []quicreuse.Option{
		quicreuse.ConnContext(func(ctx context.Context, client *quicgo.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(client.RemoteAddr, quicgo.Version1)
			if err != nil {
				addr = nil
			}
			scope, err := limits.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				return ctx, err
			}
			ctx = network.WithConnManagementScope(ctx, scope)
			context.AfterFunc(ctx, scope.Done)
			return ctx, nil
		}),
		quicreuse.VerifySourceAddress(func(addr net.Addr) bool { return limits.VerifySourceAddress(addr) }),
	}
}
