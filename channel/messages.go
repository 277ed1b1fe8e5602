package channel

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/parley-p2p/parley/wire"
)

// MessageConn is a WebSocket, or anything else that carries whole messages.
type MessageConn interface {
	// ReadMessage waits for the next message. binary is false for text. The bytes
	// hold until the next call. It must refuse messages above wire.MaxRecord.
	ReadMessage(ctx context.Context) (binary bool, message []byte, err error)
	// WriteMessage sends one binary message.
	WriteMessage(ctx context.Context, message []byte) error
	// Close ends a ReadMessage and a WriteMessage that wait.
	Close() error
}

// Messages makes the stream of a Carrier from a connection on which one binary
// message is one record (docs/spec/channels.md §2). A text message ends it.
func Messages(ctx context.Context, m MessageConn) io.ReadWriteCloser {
	return &messageStream{ctx: ctx, conn: m}
}

type messageStream struct {
	ctx  context.Context
	conn MessageConn
	rest []byte // of what Read gives out; owned by the reader
	buf  []byte
}

// Read gives records with their length before them, as on a byte stream.
func (s *messageStream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		binary, msg, err := s.conn.ReadMessage(s.ctx)
		if err != nil {
			return 0, err
		}
		if !binary || len(msg) == 0 || len(msg) > wire.MaxRecord {
			return 0, fmt.Errorf("%w: a message that is no record", wire.ErrMalformed)
		}
		s.buf = append(wire.AppendSize(s.buf[:0], len(msg)), msg...)
		s.rest = s.buf
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends each record of p as a message.
func (s *messageStream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		size, taken, err := wire.ParseSize(rest)
		if err != nil || taken == 0 || len(rest) < taken+size {
			return 0, errors.New("channel: a write that is not whole records")
		}
		if err := s.conn.WriteMessage(s.ctx, rest[taken:taken+size]); err != nil {
			return 0, err
		}
		rest = rest[taken+size:]
	}
	return len(p), nil
}

// Close closes the connection.
func (s *messageStream) Close() error { return s.conn.Close() }
