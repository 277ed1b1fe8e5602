package transport

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// DialRaw is Dial without the handshake: what old clients, who have none of ours,
// talk to.
func (t *Transport) DialRaw(ctx context.Context, a ma.Multiaddr, to peer.ID) (*Conn, error) {
	at, err := parse(a)
	if err != nil {
		return nil, err
	}
	return t.dial(ctx, at.With(""), to)
}

// ListenRaw is Listen without the handshake. The connections come out of the
// channel; stop ends listening.
func (t *Transport) ListenRaw(a ma.Multiaddr) (arrived <-chan *Conn, stop func(), err error) {
	at, err := parse(a)
	if err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.star(at.With(""), false)
	if err != nil {
		return nil, nil, err
	}
	l := newListener(t, s)
	s.listener = l
	return l.arrived, func() { _ = l.Close() }, nil
}
