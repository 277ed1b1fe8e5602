package topic

import (
	"context"
	"fmt"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/parley-p2p/parley/identity"
)

// MaxMessage is the largest publication as it is on the wire (gateway.md §2.4).
const MaxMessage = 1 << 20

// envelope is what GossipSub puts around a message: names, number, signature.
const envelope = 4 << 10

// defaultQueue is the length of GossipSub's queues (gateway.md §6.2): messages
// outbound to a peer, and in validation. Its own 32 lose bursts.
const defaultQueue = 4096

// Router is a node's one GossipSub router, with what topic needs beside it: it
// counts what waits in the queues towards and from each peer, so that publishers
// can be slowed before GossipSub drops (it drops silently, while its Publish
// reports success).
type Router struct {
	pubsub *pubsub.PubSub
	host   host.Host
	meter  *meter
}

// NewRouter makes the GossipSub router of h, which has none yet; it lives until
// ctx ends. It is pubsub.NewGossipSub with a meter between router and host, so
// that whoever makes the node's router can make it here, with options of its
// own; the queues must be those of DefaultOptions, which hold where no option is
// given. Always set are what the meter needs, one validation worker (it keeps
// messages in the order in which they came: with several, a burst of one
// publisher is shuffled on every hop), and the bounds of what peers announce.
func NewRouter(ctx context.Context, h host.Host, options ...pubsub.Option) (*Router, error) {
	return newRouter(ctx, h, defaultQueue, options)
}

func newRouter(ctx context.Context, h host.Host, queue int, options []pubsub.Option) (*Router, error) {
	if len(options) == 0 {
		options = DefaultOptions()
	}
	m := newMeter(ctx, queue)
	options = append(slices.Clip(options), pubsub.WithRawTracer(m), pubsub.WithValidateWorkers(1),
		pubsub.WithSubscriptionFilter(subscriptionFilter{m}))
	ps, err := pubsub.NewGossipSub(ctx, meteredHost{Host: h, meter: m}, options...)
	if err != nil {
		return nil, fmt.Errorf("make GossipSub router: %w", err)
	}
	return &Router{pubsub: ps, host: h, meter: m}, nil
}

// PubSub is the router itself, for packages that have topics of their own.
func (r *Router) PubSub() *pubsub.PubSub { return r.pubsub }

// DefaultOptions are the router's as gateway.md §6 has them: StrictSign, flood
// publish, peer exchange, a heartbeat of 500 ms, queues of 4,096, and scores.
func DefaultOptions() []pubsub.Option {
	return []pubsub.Option{
		pubsub.WithGossipSubParams(gossipParams()),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(true),
		pubsub.WithPeerScore(scoreParams(), scoreThresholds()),
		pubsub.WithPeerOutboundQueueSize(defaultQueue),
		pubsub.WithValidateQueueSize(defaultQueue),
		pubsub.WithMaxMessageSize(MaxMessage + envelope),
	}
}

// gossipParams are the reference's: its mesh and heartbeat (gateway.md §6.4).
func gossipParams() pubsub.GossipSubParams {
	params := pubsub.DefaultGossipSubParams()
	params.D, params.Dlo, params.Dhi = 6, 5, 12
	params.HeartbeatInitialDelay = 50 * time.Millisecond
	params.HeartbeatInterval = 500 * time.Millisecond
	return params
}

// ID is the peer id of the router's host.
func (r *Router) ID() identity.PeerID { return r.host.ID() }

// scoreParams lets a peer's score fall for what only an attacker does: messages
// with bad signatures, floods of control messages, promises of messages that
// never come. Many peers behind one address are normal here, and so is a peer
// with nothing to say; neither costs.
func scoreParams() *pubsub.PeerScoreParams {
	return &pubsub.PeerScoreParams{
		SkipAtomicValidation:      true,
		Topics:                    make(map[string]*pubsub.TopicScoreParams), // filled as topics are joined
		AppSpecificScore:          func(identity.PeerID) float64 { return 0 },
		AppSpecificWeight:         1,
		TopicScoreCap:             50,
		BehaviourPenaltyWeight:    -1,
		BehaviourPenaltyThreshold: 6,
		BehaviourPenaltyDecay:     pubsub.ScoreParameterDecay(10 * time.Minute),
		DecayInterval:             time.Second,
		DecayToZero:               0.01,
		RetainScore:               10 * time.Minute, // reconnecting doesn't wash it off
	}
}

// topicScoreParams are those of every topic that is joined.
func topicScoreParams() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:           true,
		TopicWeight:                    1,
		TimeInMeshWeight:               0.01,
		TimeInMeshQuantum:              time.Second,
		TimeInMeshCap:                  300,
		FirstMessageDeliveriesWeight:   1,
		FirstMessageDeliveriesDecay:    pubsub.ScoreParameterDecay(10 * time.Minute),
		FirstMessageDeliveriesCap:      40,
		InvalidMessageDeliveriesWeight: -100, // times the square of their number: gray after six
		InvalidMessageDeliveriesDecay:  pubsub.ScoreParameterDecay(10 * time.Minute),
	}
}

func scoreThresholds() *pubsub.PeerScoreThresholds {
	return &pubsub.PeerScoreThresholds{
		GossipThreshold:             -500,
		PublishThreshold:            -1000,
		GraylistThreshold:           -2500,
		AcceptPXThreshold:           0,
		OpportunisticGraftThreshold: 1,
	}
}
