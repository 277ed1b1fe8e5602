package channel

import (
	"context"
	"errors"
	"io"
	"strconv"
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

// relayedEnd is a channel through a relay: a stream whose contents are
// encrypted between the agents (docs/spec/channels.md §12).
type relayedEnd struct {
	*conn.Stream
	session *secure.Session
	limit   int

	// One at a time: whoever holds the token sends, or reads.
	sending chan struct{}
	reading chan struct{}

	// owned by whoever reads
	parts []byte // parts of a content that is not whole yet
	rest  []byte // what Read left of a part
	part  secure.Part
}

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
	end := &relayedEnd{
		Stream: ch.stream, session: s, limit: relayedContent,
		sending: make(chan struct{}, 1), reading: make(chan struct{}, 1),
	}
	if ch.protocol == "" {
		end.limit = relayedSystem
	}
	ch.wireEnd = end
	ch.verified.Store(true)
	return nil
}

// Send sends one content in parts. A context that ends between two parts ends
// the channel: half a content can't be taken back.
func (r *relayedEnd) Send(ctx context.Context, msg []byte) error {
	if len(msg) > r.limit {
		return errorf(TooLarge, "content of "+strconv.Itoa(len(msg))+" bytes, limit "+strconv.Itoa(r.limit))
	}
	if err := hold(ctx, r.sending); err != nil {
		return err
	}
	defer release(r.sending)
	begun, err := r.session.Send(ctx, msg)
	if err != nil && begun {
		r.Fail(Unknown, "a content was not sent to its end")
	}
	return err
}

// Receive gives the next content.
func (r *relayedEnd) Receive(ctx context.Context) ([]byte, error) {
	if err := hold(ctx, r.reading); err != nil {
		return nil, err
	}
	defer release(r.reading)
	if r.rest != nil {
		rest := r.rest // its memory is the caller's now
		r.rest, r.part = nil, secure.Part{}
		return rest, nil
	}
	return r.next(ctx)
}

func (r *relayedEnd) next(ctx context.Context) ([]byte, error) {
	msg, whole, err := r.session.Receive(ctx, r.parts, r.limit)
	r.parts = nil
	switch {
	case err == nil && whole:
		return msg, nil
	case errors.Is(err, io.EOF) && msg != nil:
		return nil, errorf(Unknown, "the channel ended inside a content")
	}
	r.parts = msg
	return nil, r.broken(err)
}

// Read is stream mode.
func (r *relayedEnd) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := hold(context.Background(), r.reading); err != nil {
		return 0, err
	}
	defer release(r.reading)
	for len(r.rest) == 0 {
		part, err := r.session.Part(context.Background())
		if err != nil {
			return 0, r.broken(err)
		}
		r.part, r.rest = part, part.Data
		r.partDone()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.partDone()
	return n, nil
}

// partDone gives back the memory of a part that was read.
func (r *relayedEnd) partDone() {
	if len(r.rest) == 0 {
		r.session.Done(r.part)
		r.part, r.rest = secure.Part{}, nil
	}
}

// broken ends the channel where what came is not what was sent.
func (r *relayedEnd) broken(err error) error {
	if !errors.Is(err, secure.ErrTampered) && !errors.Is(err, secure.ErrTooLarge) {
		return err
	}
	r.Fail(Unknown, err.Error())
	return errorf(Unknown, err.Error())
}

// Write sends p in contents of one part each.
func (r *relayedEnd) Write(p []byte) (n int, err error) {
	const piece = conn.RelayContent - 17
	for n < len(p) {
		part := p[n:min(n+piece, len(p))]
		if err := r.Send(context.Background(), part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func hold(ctx context.Context, token chan struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func release(token chan struct{}) { <-token }

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
