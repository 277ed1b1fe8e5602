package topic

import (
	"bufio"
	"context"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	libp2p "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/parley-p2p/parley/identity"
)

// meteredHost is the host as the router sees it: its streams tell the meter what
// passed, and are not read while too much of their peer waits for validation.
// That slows the peer's own writer, so the pressure goes back to its publishers.
type meteredHost struct {
	host.Host
	meter *meter
}

// NewStream opens a stream that counts what is written. Who is no longer connected
// is not called back only for its topics.
func (h meteredHost) NewStream(ctx context.Context, p identity.PeerID, pids ...protocol.ID) (libp2p.Stream, error) {
	h.meter.awaitAnother(ctx, p)
	s, err := h.Host.NewStream(libp2p.WithNoDial(h.allowStar(ctx, p), "topics"), p, pids...)
	h.meter.mu.Lock()
	defer h.meter.mu.Unlock()
	if err != nil {
		h.meter.clearQueue(p) // what was queued meanwhile is gone
		return nil, err
	}
	r := h.meter.remote(p)
	r.stream = &outStream{Stream: s, meter: h.meter, remote: r}
	return r.stream, nil
}

// awaitAnother waits, where p's stream was ended here, until p has opened another:
// only then has it dealt with the end, which makes it forget our subscriptions,
// and may it be told them again.
func (m *meter) awaitAnother(ctx context.Context, p identity.PeerID) {
	timer := time.NewTimer(admitWait)
	defer timer.Stop()
	for late := false; ; {
		m.mu.Lock()
		r, ok := m.remotes[p]
		if !ok || r.ended == nil || late || r.in != nil && r.in != r.ended {
			if ok {
				r.ended = nil
				m.forget(p, r)
			}
			m.mu.Unlock()
			return
		}
		changed := m.change()
		m.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			late = true
		case <-ctx.Done():
			late = true
		}
	}
}

// SetStreamHandler hands out streams whose reading is metered.
func (h meteredHost) SetStreamHandler(id protocol.ID, handler libp2p.StreamHandler) {
	h.Host.SetStreamHandler(id, h.metered(handler))
}

// SetStreamHandlerMatch is SetStreamHandler for a set of protocols.
func (h meteredHost) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, handler libp2p.StreamHandler) {
	h.Host.SetStreamHandlerMatch(id, match, h.metered(handler))
}

func (h meteredHost) metered(handler libp2p.StreamHandler) libp2p.StreamHandler {
	return func(s libp2p.Stream) {
		m := h.meter
		m.disturbed.Store(time.Now().UnixNano())
		r := m.admit(s)
		defer m.readerGone(r, s)
		handler(&inStream{Stream: s, meter: m, remote: r, buffered: bufio.NewReaderSize(s, readBuffer)})
	}
}

// admitWait bounds the wait for the end of streams that are dead already.
const admitWait = 2 * time.Second

// admit counts a stream that a peer opened, once the router has dealt with the
// end of those of a connection that is gone. The router forgets a peer's
// subscriptions when a stream with it ends; where that came after the new
// stream's greeting, which tells them once, the peer would be deaf for good.
func (m *meter) admit(s libp2p.Stream) *remoteMeter {
	p := s.Conn().RemotePeer()
	timer := time.NewTimer(admitWait)
	defer timer.Stop()
	for late := false; ; {
		m.mu.Lock()
		r := m.remote(p)
		if late || !r.ending() {
			r.readers++
			r.in = s
			m.wake()
			m.mu.Unlock()
			return r
		}
		changed := m.change()
		m.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			late = true
		case <-m.ctx.Done():
			late = true
		}
	}
}

// ending reports whether the router still holds a stream of a connection that is
// gone.
func (r *remoteMeter) ending() bool {
	return r.readers > 0 && r.in.Conn().IsClosed() || r.stream != nil && r.stream.Conn().IsClosed()
}

// readerGone is called when the router no longer reads s.
func (m *meter) readerGone(r *remoteMeter, s libp2p.Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := s.Conn().RemotePeer()
	if r.readers--; r.readers == 0 {
		r.in = nil
		clear(r.topics)
	}
	if m.remotes[p] == r {
		m.forget(p, r)
	}
	m.wake()
}

// readBuffer saves the router's reads of one byte at a time.
const readBuffer = 4 << 10

type outStream struct {
	libp2p.Stream
	meter  *meter
	remote *remoteMeter
}

// Write takes one RPC, its length in front.
func (s *outStream) Write(rpc []byte) (int, error) {
	n, err := s.Stream.Write(rpc)
	if err == nil {
		s.meter.written(s.remote, len(rpc))
	}
	return n, err
}

type inStream struct {
	libp2p.Stream
	meter    *meter
	remote   *remoteMeter
	buffered *bufio.Reader
}

func (s *inStream) Read(p []byte) (int, error) {
	if s.buffered.Buffered() == 0 {
		s.meter.waitRead(s.remote)
	}
	return s.buffered.Read(p)
}

// Bounds of what a peer may announce to be subscribed to.
const (
	maxRemoteTopics = 4096
	maxRemoteName   = 2 * MaxName // a name and a namespace
)

// subscriptionFilter bounds the memory that a peer's announcements take. It
// keeps every topic within the bounds: peers announce theirs once, before we may
// have an interest.
type subscriptionFilter struct{ meter *meter }

// CanSubscribe implements pubsub.SubscriptionFilter.
func (f subscriptionFilter) CanSubscribe(string) bool { return true }

// FilterIncomingSubscriptions implements pubsub.SubscriptionFilter.
func (f subscriptionFilter) FilterIncomingSubscriptions(p identity.PeerID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	f.meter.mu.Lock()
	defer f.meter.mu.Unlock()
	r := f.meter.remote(p)
	kept := make([]*pb.RPC_SubOpts, 0, min(len(subs), maxRemoteTopics))
	for _, sub := range subs {
		name := sub.GetTopicid()
		if len(name) > maxRemoteName {
			continue
		}
		if !sub.GetSubscribe() {
			delete(r.topics, name)
		} else if _, known := r.topics[name]; !known {
			if len(r.topics) >= maxRemoteTopics {
				continue
			}
			r.topics[name] = struct{}{}
		}
		kept = append(kept, sub)
	}
	return kept, nil
}

var (
	_ host.Host                 = meteredHost{}
	_ pubsub.RawTracer          = (*meter)(nil)
	_ pubsub.SubscriptionFilter = subscriptionFilter{}
)
