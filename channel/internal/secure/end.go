package secure

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/parley-p2p/parley/channel/internal/conn"
)

// End is a channel through a relay: a stream whose contents are encrypted
// between the agents (docs/spec/channels.md §12).
type End struct {
	*conn.Stream
	session *Session
	limit   int

	// One at a time: whoever holds the token sends, or reads.
	sending chan struct{}
	reading chan struct{}

	// owned by whoever reads
	parts []byte // parts of a content that is not whole yet
	rest  []byte // what Read left of a part
	part  Part
}

// NewEnd makes a channel of a session over s. limit is the largest content, in
// bytes.
func NewEnd(s *conn.Stream, session *Session, limit int) *End {
	return &End{Stream: s, session: session, limit: limit, sending: make(chan struct{}, 1), reading: make(chan struct{}, 1)}
}

// Send sends one content in parts. A context that ends between two parts ends
// the channel: half a content can't be taken back.
func (r *End) Send(ctx context.Context, msg []byte) error {
	if len(msg) > r.limit {
		return &conn.Error{Code: conn.TooLarge, Text: "content of " + strconv.Itoa(len(msg)) + " bytes, limit " + strconv.Itoa(r.limit)}
	}
	if err := hold(ctx, r.sending); err != nil {
		return err
	}
	defer release(r.sending)
	begun, err := r.session.Send(ctx, msg)
	if err != nil && begun {
		r.Fail(conn.Unknown, "a content was not sent to its end")
	}
	return err
}

// Receive gives the next content.
func (r *End) Receive(ctx context.Context) ([]byte, error) {
	if err := hold(ctx, r.reading); err != nil {
		return nil, err
	}
	defer release(r.reading)
	if r.rest != nil {
		rest := slices.Clip(r.rest) // its memory is the caller's now
		r.rest, r.part = nil, Part{}
		return rest, nil
	}
	return r.next(ctx)
}

func (r *End) next(ctx context.Context) ([]byte, error) {
	msg, whole, err := r.session.Receive(ctx, r.parts, r.limit)
	r.parts = nil
	switch {
	case err == nil && whole:
		return msg, nil
	case errors.Is(err, io.EOF) && msg != nil:
		return nil, &conn.Error{Code: conn.Unknown, Text: "the channel ended inside a content"}
	}
	r.parts = msg
	return nil, r.broken(err)
}

// Read is stream mode.
func (r *End) Read(p []byte) (int, error) {
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
func (r *End) partDone() {
	if len(r.rest) == 0 {
		r.session.Done(r.part)
		r.part, r.rest = Part{}, nil
	}
}

// broken ends the channel where what came is not what was sent.
func (r *End) broken(err error) error {
	if !errors.Is(err, ErrTampered) && !errors.Is(err, ErrTooLarge) {
		return err
	}
	r.Fail(conn.Unknown, err.Error())
	return &conn.Error{Code: conn.Unknown, Text: err.Error()}
}

// Write sends p in contents of one part each.
func (r *End) Write(p []byte) (n int, err error) {
	const piece = MaxData
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
