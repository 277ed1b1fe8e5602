package muxws

import (
	"context"
	"errors"
	"fmt"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/wire"
)

// records is the stream of a carrier on which one binary message is one record
// (docs/spec/channels.md §2). A text message ends it.
type records struct {
	*socket
	// owned by the reader
	buf  []byte
	rest []byte // of buf, what Read has still to give out
}

// Read gives records with their length before them, as on a byte stream.
func (s *records) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		msg, err := s.message(s.buf[:0], headroom)
		if err != nil {
			return 0, err
		}
		s.buf = msg
		size := len(msg) - headroom
		if size <= 0 || size > wire.MaxRecord {
			s.refuse("a message that is no record")
			return 0, fmt.Errorf("%w: a message that is no record", wire.ErrMalformed)
		}
		start := headroom - wire.SizeLen(size)
		wire.AppendSize(msg[start:start], size)
		s.rest = msg[start:]
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends each record of p as a message.
func (s *records) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		size, taken, err := wire.ParseSize(rest)
		if err != nil || taken == 0 || len(rest) < taken+size {
			return 0, errors.New("muxws: a write that is not whole records")
		}
		if err := s.ws.Write(context.Background(), websocket.MessageBinary, rest[taken:taken+size]); err != nil {
			return 0, err
		}
		rest = rest[taken+size:]
	}
	return len(p), nil
}
