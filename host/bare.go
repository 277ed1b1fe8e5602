package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/host/pstoremanager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libtls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	libp2pwebrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	ma "github.com/multiformats/go-multiaddr"
	msmux "github.com/multiformats/go-multistream"

	"github.com/parley-p2p/parley/identity"
)

// bareHost is a libp2p host with only what a page needs: sockets, handshakes,
// identify and ping. It has no connection manager, no address manager and no
// autonat: those are the node's.
type bareHost struct {
	swarm     *swarm.Swarm
	peers     peerstore.Peerstore
	bus       event.Bus
	mux       *msmux.MultistreamMuxer[protocol.ID]
	ids       identify.IDService
	pruner    *pstoremanager.PeerstoreManager
	quic      *quicreuse.ConnManager
	addrs     func() []ma.Multiaddr // what identify announces
	protocols event.Emitter
	addresses event.Emitter

	closing sync.Once
}

var _ host.Host = (*bareHost)(nil)

// bareParts are what a bare host shares with its node.
type bareParts struct {
	limits    network.ResourceManager
	gater     connmgr.ConnectionGater
	userAgent string
	listen    []ma.Multiaddr
	circuits  *circuits // the transport that meets the page's node
	announce  func(own []ma.Multiaddr) []ma.Multiaddr
	names     *names
}

// newBareHost makes a host and listens. Nothing of it is left after Close.
func newBareHost(key identity.Key, parts bareParts) (h *bareHost, err error) {
	h = &bareHost{mux: msmux.NewMultistreamMuxer[protocol.ID](), bus: eventbus.NewBus()}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if err := h.newSwarm(key, parts); err != nil {
		return h, err
	}
	h.addrs = func() []ma.Multiaddr { return parts.announce(h.directAddrs()) }
	if err := h.addTransports(key, parts); err != nil {
		return h, err
	}
	if err := h.addServices(parts.userAgent); err != nil {
		return h, err
	}
	if err := h.listen(parts.listen); err != nil {
		return h, err
	}
	h.ids.Start()
	return h, nil
}

func (h *bareHost) newSwarm(key identity.Key, parts bareParts) error {
	peers, err := pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(pageAddresses))
	if err != nil {
		return fmt.Errorf("make peerstore: %w", err)
	}
	h.peers = peers
	if err := peers.AddPrivKey(key.PeerID(), key.Libp2p()); err != nil {
		return fmt.Errorf("store own key: %w", err)
	}
	if err := peers.AddPubKey(key.PeerID(), key.Libp2p().GetPublic()); err != nil {
		return fmt.Errorf("store own key: %w", err)
	}
	h.swarm, err = swarm.NewSwarm(key.PeerID(), peers, h.bus,
		swarm.WithResourceManager(parts.limits),
		swarm.WithConnectionGater(parts.gater),
		swarm.WithDialTimeoutLocal(dialTimeout),
		swarm.WithMultiaddrResolver(parts.names),
		swarm.WithDialRanker(rankDials))
	if err != nil {
		return fmt.Errorf("make swarm: %w", err)
	}
	h.swarm.SetStreamHandler(h.serve)
	return nil
}

func (h *bareHost) addTransports(key identity.Key, parts bareParts) error {
	priv := key.Libp2p()
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	overTLS, err := libtls.New(libtls.ID, priv, muxers)
	if err != nil {
		return fmt.Errorf("make tls: %w", err)
	}
	overNoise, err := noise.New(noise.ID, priv, muxers)
	if err != nil {
		return fmt.Errorf("make noise: %w", err)
	}
	up, err := upgrader.New([]sec.SecureTransport{overTLS, overNoise}, muxers, nil, parts.limits, parts.gater)
	if err != nil {
		return fmt.Errorf("make upgrader: %w", err)
	}
	reset, err := config.PrivKeyToStatelessResetKey(priv)
	if err != nil {
		return fmt.Errorf("derive quic key: %w", err)
	}
	token, err := config.PrivKeyToTokenGeneratorKey(priv)
	if err != nil {
		return fmt.Errorf("derive quic key: %w", err)
	}
	if h.quic, err = quicreuse.NewConnManager(reset, token, quicLimits(parts.limits)...); err != nil {
		return fmt.Errorf("make quic sockets: %w", err)
	}
	overTCP, err := tcp.NewTCPTransport(up, parts.limits, nil, tcp.DisableReuseport())
	if err != nil {
		return fmt.Errorf("make tcp: %w", err)
	}
	overWS, err := websocket.New(up, parts.limits, nil)
	if err != nil {
		return fmt.Errorf("make websocket: %w", err)
	}
	overQUIC, err := quic.NewTransport(priv, h.quic, nil, parts.gater, parts.limits)
	if err != nil {
		return fmt.Errorf("make quic: %w", err)
	}
	overWT, err := webtransport.New(priv, nil, h.quic, parts.gater, parts.limits)
	if err != nil {
		return fmt.Errorf("make webtransport: %w", err)
	}
	overRTC, err := libp2pwebrtc.New(priv, nil, parts.gater, parts.limits, listenUDP)
	if err != nil {
		return fmt.Errorf("make webrtc: %w", err)
	}
	parts.circuits.upgrader = up
	for _, t := range []transport.Transport{overTCP, overWS, overQUIC, overWT, overRTC, parts.circuits} {
		if err := h.swarm.AddTransport(t); err != nil {
			return fmt.Errorf("add transport: %w", err)
		}
	}
	return nil
}

// listenUDP is for listening over WebRTC, which pages don't.
func listenUDP(netw string, laddr *net.UDPAddr) (net.PacketConn, error) {
	return net.ListenUDP(netw, laddr)
}

func (h *bareHost) addServices(userAgent string) (err error) {
	if h.protocols, err = h.bus.Emitter(&event.EvtLocalProtocolsUpdated{}, eventbus.Stateful); err != nil {
		return fmt.Errorf("make emitter: %w", err)
	}
	if h.addresses, err = h.bus.Emitter(&event.EvtLocalAddressesUpdated{}, eventbus.Stateful); err != nil {
		return fmt.Errorf("make emitter: %w", err)
	}
	h.ids, err = identify.NewIDService(h,
		identify.UserAgent(userAgent), identify.ProtocolVersion("parley/1"),
		// The address book of a page holds no record of itself; the addresses
		// come over the authenticated connection anyway.
		identify.DisableSignedPeerRecord())
	if err != nil {
		return fmt.Errorf("make identify: %w", err)
	}
	ping.NewPingService(h)
	if h.pruner, err = pstoremanager.NewPeerstoreManager(h.peers, h.bus, h.swarm); err != nil {
		return fmt.Errorf("make peerstore pruner: %w", err)
	}
	h.pruner.Start()
	return nil
}

// listen opens the page's sockets. That one address can't be listened on (no
// IPv6) is no failure as long as another can.
func (h *bareHost) listen(addrs []ma.Multiaddr) error {
	if err := h.swarm.Listen(circuitAddr); err != nil {
		return fmt.Errorf("listen for circuits: %w", err)
	}
	var errs []error
	for _, a := range addrs {
		if err := h.swarm.AddListenAddr(a); err != nil {
			errs = append(errs, fmt.Errorf("listen on %s: %w", a, err))
		}
	}
	if len(addrs) > 0 && len(errs) == len(addrs) {
		return errors.Join(errs...)
	}
	return nil
}

// directAddrs are the addresses of the own sockets.
func (h *bareHost) directAddrs() []ma.Multiaddr {
	all, err := h.swarm.InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	return ma.FilterAddrs(all, func(a ma.Multiaddr) bool { return !isCircuit(a) })
}

// readdress tells the connected peers that the announced addresses changed.
func (h *bareHost) readdress() {
	_ = h.addresses.Emit(event.EvtLocalAddressesUpdated{})
}

// serve agrees on a protocol for a stream that a peer opened, and runs its
// handler in this goroutine.
func (h *bareHost) serve(s network.Stream) {
	if err := s.SetDeadline(time.Now().Add(negotiateTimeout)); err != nil {
		_ = s.Reset()
		return
	}
	p, handle, err := h.mux.Negotiate(s)
	if err != nil {
		_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
		return
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		_ = s.Reset()
		return
	}
	if err := s.SetProtocol(p); err != nil {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	_ = handle(p, s)
}

// Close ends the host and waits for everything it started.
func (h *bareHost) Close() error {
	h.closing.Do(func() {
		if h.ids != nil {
			_ = h.ids.Close()
		}
		for _, e := range []event.Emitter{h.protocols, h.addresses} {
			if e != nil {
				_ = e.Close()
			}
		}
		if h.swarm != nil {
			_ = h.swarm.Close()
		}
		if h.quic != nil {
			_ = h.quic.Close()
		}
		if h.pruner != nil {
			_ = h.pruner.Close()
		}
		if h.peers != nil {
			_ = h.peers.Close()
		}
	})
	return nil
}

// The rest makes bareHost a host.Host.

func (h *bareHost) ID() peer.ID                      { return h.swarm.LocalPeer() }
func (h *bareHost) Peerstore() peerstore.Peerstore   { return h.peers }
func (h *bareHost) Addrs() []ma.Multiaddr            { return h.addrs() }
func (h *bareHost) Network() network.Network         { return h.swarm }
func (h *bareHost) Mux() protocol.Switch             { return h.mux }
func (h *bareHost) EventBus() event.Bus              { return h.bus }
func (h *bareHost) ConnManager() connmgr.ConnManager { return connmgr.NullConnMgr{} }

func (h *bareHost) Connect(ctx context.Context, to peer.AddrInfo) error {
	h.peers.AddAddrs(to.ID, to.Addrs, peerstore.TempAddrTTL)
	c, err := h.swarm.DialPeer(network.WithAllowLimitedConn(ctx, "connect"), to.ID)
	if err != nil {
		return err
	}
	select { // as libp2p's own host does: GossipSub drops what is published to a peer it doesn't know yet
	case <-h.ids.IdentifyWait(c):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *bareHost) NewStream(ctx context.Context, to peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	s, err := h.swarm.NewStream(ctx, to)
	if err != nil {
		return nil, err
	}
	return negotiate(ctx, s, protocols)
}

func (h *bareHost) SetStreamHandler(p protocol.ID, handler network.StreamHandler) {
	h.mux.AddHandler(p, func(_ protocol.ID, s io.ReadWriteCloser) error {
		handler(s.(network.Stream))
		return nil
	})
	_ = h.protocols.Emit(event.EvtLocalProtocolsUpdated{Added: []protocol.ID{p}})
}

func (h *bareHost) SetStreamHandlerMatch(p protocol.ID, match func(protocol.ID) bool, handler network.StreamHandler) {
	h.mux.AddHandlerWithFunc(p, match, func(_ protocol.ID, s io.ReadWriteCloser) error {
		handler(s.(network.Stream))
		return nil
	})
	_ = h.protocols.Emit(event.EvtLocalProtocolsUpdated{Added: []protocol.ID{p}})
}

func (h *bareHost) RemoveStreamHandler(p protocol.ID) {
	h.mux.RemoveHandler(p)
	_ = h.protocols.Emit(event.EvtLocalProtocolsUpdated{Removed: []protocol.ID{p}})
}
