package topic

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/parley-p2p/parley/identity"
)

// The meter as the router's tracer. These methods are called in the router's
// loop, or by who publishes, and never block.

// Reasons for lost messages, beside those of GossipSub's own for rejected ones.
const (
	dropQueueFull = "outbound queue full"
	dropNoStream  = "no stream to peer"
	dropCut       = "peer cut off, too slow"
	dropSlow      = "subscription too slow"
)

// SendRPC implements pubsub.RawTracer.
func (m *meter) SendRPC(rpc *pubsub.RPC, p identity.PeerID) {
	size := proto.Size(&rpc.RPC)
	size += protowire.SizeVarint(uint64(size))
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.remote(p)
	wasFull := m.isFull(r)
	r.queued++
	r.bytes += size
	if !wasFull && m.isFull(r) {
		r.since, r.took, r.tookBytes = time.Now(), 0, 0
	}
	if r.bytes > cutBytes && r.stream != nil {
		_ = r.stream.SetWriteDeadline(time.Unix(1, 0)) // the router drops a stream that it can't write
		if !r.cut {
			m.dropped[dropCut] += uint64(r.queued)
		}
		r.cut = true
	}
	m.sent += uint64(len(rpc.GetPublish()))
}

// DropRPC implements pubsub.RawTracer.
func (m *meter) DropRPC(rpc *pubsub.RPC, p identity.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	reason := dropQueueFull
	if r, ok := m.remotes[p]; !ok || r.queued < m.queue/2 {
		reason = dropNoStream
	}
	m.dropped[reason] += uint64(len(rpc.GetPublish()))
}

// RecvRPC implements pubsub.RawTracer.
func (m *meter) RecvRPC(rpc *pubsub.RPC) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, n := m.remote(rpc.From()), 0
	for _, msg := range rpc.GetPublish() {
		if _, ok := m.joined[msg.GetTopic()]; ok {
			n++
		}
	}
	if r.pending == 0 {
		r.settled = time.Now()
	}
	r.pending += n
	m.pending += n
}

// OnNewOutboundStream implements pubsub.RawTracer.
func (m *meter) OnNewOutboundStream(p identity.PeerID, _ protocol.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disturbed.Store(time.Now().UnixNano())
	m.remote(p).up = true
	m.ups[p] = struct{}{}
	select {
	case m.upped <- struct{}{}:
	default:
	}
}

// OnClosedOutboundStream implements pubsub.RawTracer.
func (m *meter) OnClosedOutboundStream(p identity.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.remotes[p]; ok && r.in != nil && !r.in.Conn().IsClosed() {
		// The router has just forgotten what p subscribes to. Ending p's own
		// stream has it open another and tell again.
		r.ended = r.in
		_ = r.in.SetReadDeadline(time.Unix(1, 0))
	}
	m.clearQueue(p)
}

// clearQueue forgets what waited for p. The caller holds mu.
func (m *meter) clearQueue(p identity.PeerID) {
	if r, ok := m.remotes[p]; ok {
		r.up, r.queued, r.bytes, r.slow, r.cut, r.stream = false, 0, 0, false, false, nil
		m.forget(p, r)
		m.wake()
	}
}

// forget drops the counts of a peer that has neither stream. The caller holds mu.
func (m *meter) forget(p identity.PeerID, r *remoteMeter) {
	if !r.up && r.readers == 0 && r.ended == nil {
		m.pending = max(m.pending-r.pending, 0)
		r.pending = 0
		delete(m.remotes, p)
	}
}

// Join implements pubsub.RawTracer.
func (m *meter) Join(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined[topic] = struct{}{}
}

// Leave implements pubsub.RawTracer.
func (m *meter) Leave(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.joined, topic)
}

// forgetMesh ends meshTime.
func (m *meter) forgetMesh(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.meshed, topic)
}

// Graft implements pubsub.RawTracer.
func (m *meter) Graft(_ identity.PeerID, topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.meshed[topic]; ok {
		at.Store(time.Now().UnixNano())
	}
}

// DeliverMessage implements pubsub.RawTracer.
func (m *meter) DeliverMessage(msg *pubsub.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle(msg.ReceivedFrom)
}

// DuplicateMessage implements pubsub.RawTracer.
func (m *meter) DuplicateMessage(msg *pubsub.Message) { m.DeliverMessage(msg) }

// RejectMessage implements pubsub.RawTracer. The reasons are GossipSub's.
func (m *meter) RejectMessage(msg *pubsub.Message, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped[reason]++
	m.settle(msg.ReceivedFrom)
}

// UndeliverableMessage implements pubsub.RawTracer.
func (m *meter) UndeliverableMessage(*pubsub.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped[dropSlow]++
}

// Prune, ThrottlePeer and ValidateMessage implement pubsub.RawTracer.
func (m *meter) Prune(identity.PeerID, string)   {}
func (m *meter) ThrottlePeer(identity.PeerID)    {}
func (m *meter) ValidateMessage(*pubsub.Message) {}
