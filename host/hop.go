package host

import (
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
)

// hopName is what a node that relays only for its own pages lists in identify
// in place of the hop protocol: it answers hop streams, but strangers who look
// for a relay don't see one.
const hopName protocol.ID = "/parley/circuit/1.0.0"

// serveHop answers the hop streams of circuit v2:
//
//  1. read the first message
//  2. CONNECT to an own page: say OK, and hand the stream to the page's host;
//     no time or byte limit, nothing copied. The answer's peer field repeats
//     the page's id, which says that this is the page's own node
//  3. anything else goes to the relay service, or is refused where there is none
func (n *Node) serveHop(s network.Stream) {
	if err := s.SetReadDeadline(time.Now().Add(hopTimeout)); err != nil {
		_ = s.Reset()
		return
	}
	kept := &keptReader{Reader: s}
	rd := util.NewDelimitedReader(kept, maxHopMessage)
	defer rd.Close()
	var ask pb.HopMessage
	if err := rd.ReadMsg(&ask); err != nil {
		_ = s.Reset()
		return
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		_ = s.Reset()
		return
	}
	to := peer.ID(ask.GetPeer().GetId())
	if page := n.page(to); ask.GetType() == pb.HopMessage_CONNECT && page != nil {
		n.handOver(s, page, to)
		return
	}
	if relay := n.relayHandler(); relay != nil {
		relay(&replayStream{Stream: s, first: kept.bytes})
		return
	}
	refuse := pb.Status_NO_RESERVATION
	if ask.GetType() == pb.HopMessage_RESERVE {
		refuse = pb.Status_RESERVATION_REFUSED
	}
	answerHop(s, &pb.HopMessage{Type: pb.HopMessage_STATUS.Enum(), Status: refuse.Enum()})
	_ = s.Close()
}

// defaultMaxShaking bounds the circuits of one node that haven't finished their
// handshakes with pages here: they hold places that others need, of which there
// are 1,024.
const defaultMaxShaking = 256

// handOver is step 2. The stream belongs to the page's connection from then on.
func (n *Node) handOver(s network.Stream, page *Page, to peer.ID) {
	shaken, ok := n.shake(s.Conn().RemotePeer())
	if !ok {
		answerHop(s, &pb.HopMessage{Type: pb.HopMessage_STATUS.Enum(), Status: pb.Status_RESOURCE_LIMIT_EXCEEDED.Enum()})
		_ = s.Close()
		return
	}
	yes := &pb.HopMessage{
		Type: pb.HopMessage_STATUS.Enum(), Status: pb.Status_OK.Enum(),
		Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: to}),
	}
	if !answerHop(s, yes) {
		shaken()
		_ = s.Reset()
		return
	}
	conn := n.newCircuitConn(s, &circuitLink{via: s.Conn(), own: true})
	conn.handshake = shaken
	if !page.circuits.offer(conn) {
		_ = conn.Close() // the dialer's handshake fails, and it tries again
	}
}

// shake counts a handshake that begins over the connection to a node.
func (n *Node) shake(id peer.ID) (over func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shaking[id] >= n.maxShaking {
		return nil, false
	}
	n.shaking[id]++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.shaking[id]--; n.shaking[id] == 0 {
			delete(n.shaking, id)
		}
	}, true
}

func answerHop(s network.Stream, m *pb.HopMessage) bool {
	if err := s.SetWriteDeadline(time.Now().Add(negotiateTimeout)); err != nil {
		return false
	}
	if err := util.NewDelimitedWriter(s).WriteMsg(m); err != nil {
		return false
	}
	return s.SetWriteDeadline(time.Time{}) == nil
}

// registerHop makes the node answer hop streams. With a relay service it lists
// the protocol, so that others find the relay.
func (n *Node) registerHop(listed bool) {
	if listed {
		n.host.SetStreamHandler(proto.ProtoIDv2Hop, n.serveHop)
		return
	}
	n.host.SetStreamHandlerMatch(hopName, func(p protocol.ID) bool { return p == proto.ProtoIDv2Hop }, n.serveHop)
}

// keptReader keeps what was read, so that the relay service can read it again.
// It is bounded by maxHopMessage and a length prefix.
type keptReader struct {
	io.Reader
	bytes []byte
}

func (k *keptReader) Read(p []byte) (int, error) {
	n, err := k.Reader.Read(p)
	k.bytes = append(k.bytes, p[:n]...)
	return n, err
}

// replayStream gives first before what comes on the stream.
type replayStream struct {
	network.Stream
	first []byte
}

func (r *replayStream) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Stream.Read(p)
}
