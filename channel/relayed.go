package channel

import (
	"context"
	"errors"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/channel/internal/secure"
	"github.com/parley-p2p/parley/identity"
)

// Largest content inside a relayed channel, by kind: the other end's hello is
// not known, so these are the defaults.
const (
	relayedContent = 64 << 10
	relayedSystem  = 512 << 10
)

// encrypt runs the handshake inside a relayed channel. It has ten seconds. A
// failure ends the channel at both ends.
func (ch *channel) encrypt(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, conn.OpenTimeout, errorf(Timeout, "the other agent did not answer in time"))
	defer cancel()
	remote := ch.remote()
	s, err := secure.Handshake(ctx, ch.stream, secure.Party{
		Initiator: ch.own,
		Prologue:  ch.addr.prologue(),
		Sign:      func(static []byte) []byte { return ch.member.key.Sign(ch.addr.staticDigest(static)) },
		Verify: func(static, sig []byte) bool {
			return identity.Verify(remote, ch.addr.staticDigest(static), sig)
		},
	})
	if err != nil {
		code := BadFrom
		if ch.own {
			code = BadTo
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
		ch.stream.Fail(code, err.Error())
		if errors.Is(err, secure.ErrIdentity) {
			return errorf(code, err.Error())
		}
		return err
	}
	limit := relayedContent
	if ch.protocol == "" {
		limit = relayedSystem
	}
	ch.wireEnd = secure.NewEnd(ch.stream, s, limit)
	ch.verified.Store(true)
	return nil
}

// upgrade tries to reach an agent directly once a relayed channel to it is
// there, so that new channels need no relay (docs/spec/channels.md §11).
func (n *Node) upgrade(space SpaceHash, agent identity.AgentID) {
	n.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		var nodes []identity.PeerID
		if n.cfg.Locator != nil {
			places, err := n.cfg.Locator.Locate(ctx, space, agent)
			if err != nil {
				n.log.Debug("look for a direct path", "agent", agent, "reason", err)
			}
			for _, p := range places {
				nodes = append(nodes, p.Node)
			}
		}
		if id, err := agent.PeerID(); err == nil {
			nodes = append(nodes, id)
		}
		for _, node := range nodes {
			if node == "" || n.leadsHere(node) {
				continue
			}
			if _, err := n.connect(ctx, node); err == nil {
				return
			}
		}
	})
}
