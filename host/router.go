package host

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// The router's numbers (gateway.md §6).
const (
	heartbeat       = 500 * time.Millisecond
	heartbeatFirst  = 50 * time.Millisecond
	routerQueue     = 4096              // outbound a peer, and in validation: the library's 32 lose bursts
	maxPublication  = 1<<20 + 64<<10    // 1 MiB of data, and what signs it
	seenTTL         = 120 * time.Second // how long a message id is known
	maxTopic        = 512               // bytes of a name, with a namespace before it
	maxSubsPerRPC   = 1024              // subscriptions in one RPC of a peer
	badMessageScore = -10               // for each message with a wrong signature or form …
	badMessageDecay = 10 * time.Minute  // … which is half forgotten after this
	maxScoredPeers  = 4096
)

// router is the one GossipSub of a node.
type router struct {
	ps    *pubsub.PubSub
	trace *routerTrace
}

// newRouter starts GossipSub on h. It ends with ctx; the library offers no way
// to wait for that.
func newRouter(ctx context.Context, h libhost.Host, log *slog.Logger) (*router, error) {
	params := pubsub.DefaultGossipSubParams()
	params.HeartbeatInterval = heartbeat
	params.HeartbeatInitialDelay = heartbeatFirst
	params.D, params.Dlo, params.Dhi = 6, 5, 12

	r := &router{trace: newRouterTrace()}
	var err error
	r.ps, err = pubsub.NewGossipSub(ctx, h,
		pubsub.WithGossipSubParams(params),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(true),
		pubsub.WithPeerOutboundQueueSize(routerQueue),
		pubsub.WithValidateQueueSize(routerQueue),
		pubsub.WithMaxMessageSize(maxPublication),
		pubsub.WithSeenMessagesTTL(seenTTL),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(anyTopic{}, maxSubsPerRPC)),
		pubsub.WithPeerScore(r.score()),
		pubsub.WithRawTracer(r.trace),
		pubsub.WithLogger(quiet(log).With("part", "pubsub")),
	)
	if err != nil {
		return nil, fmt.Errorf("start gossipsub: %w", err)
	}
	return r, nil
}

// anyTopic lets peers tell any subscription whose name isn't too long.
type anyTopic struct{}

func (anyTopic) CanSubscribe(topic string) bool { return topic != "" && len(topic) <= maxTopic }

func (f anyTopic) FilterIncomingSubscriptions(_ peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	return pubsub.FilterSubscriptions(subs, f.CanSubscribe), nil
}

// score makes misbehaving peers fall out of the mesh and then be ignored: bad
// signatures and forms by app score, broken promises and grafts by the
// library's behaviour penalty, many ids at one address by colocation. Honest
// peers of one LAN or machine aren't counted as colocated.
func (r *router) score() (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	return &pubsub.PeerScoreParams{
			SkipAtomicValidation:        true,
			Topics:                      make(map[string]*pubsub.TopicScoreParams),
			TopicScoreCap:               50,
			AppSpecificScore:            r.trace.score,
			AppSpecificWeight:           1,
			IPColocationFactorWeight:    -10,
			IPColocationFactorThreshold: 16,
			IPColocationFactorWhitelist: privateNets(),
			BehaviourPenaltyWeight:      -10,
			BehaviourPenaltyThreshold:   6,
			BehaviourPenaltyDecay:       pubsub.ScoreParameterDecay(10 * time.Minute),
			DecayInterval:               time.Second,
			DecayToZero:                 0.01,
			RetainScore:                 10 * time.Minute,
			SeenMsgTTL:                  seenTTL,
		}, &pubsub.PeerScoreThresholds{
			GossipThreshold:   -100,
			PublishThreshold:  -200,
			GraylistThreshold: -400,
			AcceptPXThreshold: 0,
		}
}

func privateNets() []*net.IPNet {
	var out []*net.IPNet
	for _, cidr := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"} {
		if _, n, err := net.ParseCIDR(cidr); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// routerTrace counts what the router drops, and who sends what is invalid. Its
// methods are called from inside the router and don't block.
type routerTrace struct {
	mu      sync.Mutex
	dropped map[string]uint64
	bad     map[peer.ID]*badPeer
}

type badPeer struct {
	points float64
	last   time.Time
}

var _ pubsub.RawTracer = (*routerTrace)(nil)

func newRouterTrace() *routerTrace {
	return &routerTrace{dropped: make(map[string]uint64), bad: make(map[peer.ID]*badPeer)}
}

func (t *routerTrace) drops() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]uint64, len(t.dropped))
	for k, v := range t.dropped {
		out[k] = v
	}
	return out
}

func (t *routerTrace) count(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped[reason]++
}

// RejectMessage counts a rejected message, against the peer that sent it where
// that is its fault. The reasons are the library's fixed strings.
func (t *routerTrace) RejectMessage(msg *pubsub.Message, reason string) {
	t.count(reason)
	switch reason {
	case pubsub.RejectInvalidSignature, pubsub.RejectMissingSignature, pubsub.RejectUnexpectedSignature,
		pubsub.RejectUnexpectedAuthInfo, pubsub.RejectSelfOrigin, pubsub.RejectValidationFailed:
		t.blame(msg.ReceivedFrom, time.Now())
	}
}

func (t *routerTrace) blame(id peer.ID, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.bad[id]
	if !ok {
		if len(t.bad) >= maxScoredPeers {
			t.forgetOld(now)
		}
		b = &badPeer{}
		t.bad[id] = b
	}
	b.points = b.at(now) + 1
	b.last = now
}

// forgetOld makes room: those nearly forgiven first, else any one.
func (t *routerTrace) forgetOld(now time.Time) {
	for id, b := range t.bad {
		if b.at(now) < 1 {
			delete(t.bad, id)
		}
	}
	for id := range t.bad {
		if len(t.bad) < maxScoredPeers {
			return
		}
		delete(t.bad, id)
	}
}

// at is the points left at now: half of them after each badMessageDecay.
func (b *badPeer) at(now time.Time) float64 {
	points := b.points
	for age := now.Sub(b.last); age >= badMessageDecay && points > 0.01; age -= badMessageDecay {
		points /= 2
	}
	return points
}

// score is a peer's app score.
func (t *routerTrace) score(id peer.ID) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.bad[id]
	if !ok {
		return 0
	}
	return badMessageScore * b.at(time.Now())
}

func (t *routerTrace) DropRPC(*pubsub.RPC, peer.ID)             { t.count("outbound queue full") }
func (t *routerTrace) UndeliverableMessage(*pubsub.Message)     { t.count("subscription queue full") }
func (t *routerTrace) ThrottlePeer(peer.ID)                     { t.count("peer throttled") }
func (t *routerTrace) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (t *routerTrace) OnClosedOutboundStream(peer.ID)           {}
func (t *routerTrace) Join(string)                              {}
func (t *routerTrace) Leave(string)                             {}
func (t *routerTrace) Graft(peer.ID, string)                    {}
func (t *routerTrace) Prune(peer.ID, string)                    {}
func (t *routerTrace) ValidateMessage(*pubsub.Message)          {}
func (t *routerTrace) DeliverMessage(*pubsub.Message)           {}
func (t *routerTrace) DuplicateMessage(*pubsub.Message)         {}
func (t *routerTrace) RecvRPC(*pubsub.RPC)                      {}
func (t *routerTrace) SendRPC(*pubsub.RPC, peer.ID)             {}
