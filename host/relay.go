package host

import (
	"slices"
	"sync/atomic"

	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// relayService is circuit relay v2 for others than the own pages. It gets the
// hop streams from serveHop instead of from the host.
type relayService struct {
	relay *relay.Relay
	host  *hopHost
}

func newRelayService(h libhost.Host, rc relay.Resources, allow []identity.PeerID) (*relayService, error) {
	s := &relayService{host: &hopHost{Host: h}}
	opts := []relay.Option{
		relay.WithResources(rc),
		// Nodes of one LAN relay for each other too.
		relay.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }),
	}
	if len(allow) > 0 {
		opts = append(opts, relay.WithACL(allowList(allow)))
	}
	var err error
	s.relay, err = relay.New(s.host, opts...)
	return s, err
}

func (s *relayService) handler(stream libnet.Stream) {
	if h := s.host.handler.Load(); h != nil {
		(*h)(stream)
		return
	}
	_ = stream.Reset()
}

func (s *relayService) close() { _ = s.relay.Close() }

// hopHost is a host whose hop handler is kept instead of registered.
type hopHost struct {
	libhost.Host
	handler atomic.Pointer[libnet.StreamHandler]
}

func (h *hopHost) SetStreamHandler(p protocol.ID, handler libnet.StreamHandler) {
	if p == proto.ProtoIDv2Hop {
		h.handler.Store(&handler)
		return
	}
	h.Host.SetStreamHandler(p, handler)
}

func (h *hopHost) RemoveStreamHandler(p protocol.ID) {
	if p == proto.ProtoIDv2Hop {
		h.handler.Store(nil)
		return
	}
	h.Host.RemoveStreamHandler(p)
}

// allowList says who may have a reservation. Whoever has one may be called by
// anybody.
type allowList []peer.ID

func (l allowList) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return slices.Contains(l, p) }
func (l allowList) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool {
	return true
}
