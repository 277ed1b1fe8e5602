package host

import (
	"net/netip"
	"sync/atomic"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// stream is a libp2p stream as network.Stream.
type stream struct {
	node   *Node
	raw    libnet.Stream
	closed atomic.Bool // Close or Reset was called
}

var (
	_ network.Stream    = (*stream)(nil)
	_ network.Addressed = (*stream)(nil)
	_ network.Relayed   = (*stream)(nil)
)

func newStream(n *Node, raw libnet.Stream) *stream { return &stream{node: n, raw: raw} }

func (s *stream) Read(p []byte) (int, error)  { return s.raw.Read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.raw.Write(p) }
func (s *stream) CloseWrite() error           { return s.raw.CloseWrite() }

func (s *stream) Close() error {
	s.closed.Store(true)
	return s.raw.Close()
}

func (s *stream) Reset() error {
	s.closed.Store(true)
	return s.raw.Reset()
}

// end resets the stream if its handler returned without closing it.
func (s *stream) end() {
	if !s.closed.Load() {
		_ = s.raw.Reset()
	}
}

func (s *stream) SetReadDeadline(t time.Time) error  { return s.raw.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.raw.SetWriteDeadline(t) }

func (s *stream) Local() identity.PeerID     { return s.raw.Conn().LocalPeer() }
func (s *stream) Remote() identity.PeerID    { return s.raw.Conn().RemotePeer() }
func (s *stream) Protocol() network.Protocol { return network.Protocol(s.raw.Protocol()) }
func (s *stream) Path() network.Path         { return s.node.pathOf(s.raw.Conn()) }

// Relay implements network.Relayed.
func (s *stream) Relay() identity.PeerID {
	if s.Path() != network.PathRelay {
		return ""
	}
	return firstRelay(s.raw.Conn().RemoteMultiaddr())
}

// RemoteIP implements network.Addressed.
func (s *stream) RemoteIP() netip.Addr {
	a := s.raw.Conn().RemoteMultiaddr()
	if a == nil || isCircuit(a) {
		return netip.Addr{}
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
