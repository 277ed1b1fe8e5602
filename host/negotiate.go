package host

import (
	"context"
	"errors"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	msmux "github.com/multiformats/go-multistream"
)

// errNegotiation marks that a stream was opened and no protocol agreed on in
// time: the connection is probably dead.
var errNegotiation = errors.New("no answer to the choice of protocol")

// negotiate agrees on the first of the protocols that the other side speaks.
// It always asks: what identify said may be old, and a lazy choice would tell
// of a missing protocol only at the first read. On an error s is reset.
func negotiate(ctx context.Context, s libnet.Stream, protocols []protocol.ID) (libnet.Stream, error) {
	fail := func(err error) (libnet.Stream, error) {
		_ = s.ResetWithError(libnet.StreamProtocolNegotiationFailed)
		return nil, err
	}
	limit := time.Now().Add(negotiateTimeout)
	if err := s.SetDeadline(limit); err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	agreed, err := msmux.SelectOneOf(protocols, s)
	if !stop() {
		return fail(ctx.Err())
	}
	if err != nil {
		if !isNotSupported(err) && !time.Now().Before(limit) {
			_ = s.Conn().CloseWithError(libnet.ConnGarbageCollected)
			err = errNegotiation
		}
		return fail(err)
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	if err := s.SetProtocol(agreed); err != nil {
		return fail(err)
	}
	return s, nil
}

func isNotSupported(err error) bool {
	return errors.Is(err, msmux.ErrNotSupported[protocol.ID]{})
}
