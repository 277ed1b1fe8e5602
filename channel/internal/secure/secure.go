// Package secure encrypts a channel end to end, so that a relay between the two
// agents can neither read nor change it (docs/spec/channels.md §12):
//
//	creator                                 target
//	   │ ── e ───────────────────────────────▶ │   Noise XX, one message a content
//	   │ ◀──────────────── e, ee, s, es + sig ─ │   sig: toId over the static key
//	   │ ── s, se + sig ─────────────────────▶ │   sig: fromId over the static key
//	   │ ◀═══════ flag ‖ data, encrypted ════▶ │   flag 1: more of this content follows
package secure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/flynn/noise"
)

// Sizes of a part, in bytes.
const (
	MaxPart  = 16 << 10 // of one content of the channel
	overhead = 16 + 1   // tag and flag

	// MaxData is what a full part carries. Larger ones would be allowed, but this
	// one's record (48 bytes, padding and length more) is just one TLS record.
	MaxData = MaxPart - 56 - overhead
)

// Stream is the channel that is encrypted.
type Stream interface {
	// Take waits for the credit of a content of n bytes; Put then sends it.
	Take(ctx context.Context, n int) error
	Put(p []byte) error
	// Fill is Put of n bytes that fill writes.
	Fill(n int, fill func(content []byte)) error
	// Borrow waits for the next content.
	Borrow(ctx context.Context) ([]byte, error)
	// Recycle takes back what Borrow gave, once nobody uses it any more.
	Recycle(p []byte)
}

// Party is one end's part in the handshake.
type Party struct {
	Initiator bool
	Prologue  []byte
	// Sign signs this end's static key for its agent; nil refuses.
	Sign func(static []byte) []byte
	// Verify checks the other end's signature over its static key.
	Verify func(static, signature []byte) bool
}

// ErrIdentity is in the chain of a handshake's error when the other end is not
// the agent it should be.
var ErrIdentity = errors.New("the other agent has not proved itself")

// Session is the encrypted channel. One goroutine may send while another
// receives.
type Session struct {
	stream Stream
	out    *noise.CipherState
	in     *noise.CipherState
}

// Handshake agrees on keys. The static keys are fresh for every channel.
func Handshake(ctx context.Context, s Stream, p Party) (*Session, error) {
	suite := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)
	static, err := suite.GenerateKeypair(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a static key: %w", err)
	}
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Random: rand.Reader, Pattern: noise.HandshakeXX,
		Initiator: p.Initiator, Prologue: p.Prologue, StaticKeypair: static,
	})
	if err != nil {
		return nil, fmt.Errorf("begin the handshake: %w", err)
	}
	h := handshake{stream: s, party: p, state: hs, static: static.Public}
	if p.Initiator {
		return h.initiate(ctx)
	}
	return h.respond(ctx)
}

type handshake struct {
	stream Stream
	party  Party
	state  *noise.HandshakeState
	static []byte
}

func (h *handshake) initiate(ctx context.Context) (*Session, error) {
	if _, _, err := h.write(ctx, nil); err != nil {
		return nil, err
	}
	if err := h.readProof(ctx); err != nil {
		return nil, err
	}
	out, in, err := h.writeProof(ctx)
	if err != nil {
		return nil, err
	}
	return &Session{stream: h.stream, out: out, in: in}, nil
}

func (h *handshake) respond(ctx context.Context) (*Session, error) {
	if _, _, _, err := h.read(ctx); err != nil {
		return nil, err
	}
	if _, _, err := h.writeProof(ctx); err != nil {
		return nil, err
	}
	payload, in, out, err := h.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.check(payload); err != nil {
		return nil, err
	}
	return &Session{stream: h.stream, out: out, in: in}, nil
}

func (h *handshake) readProof(ctx context.Context) error {
	payload, _, _, err := h.read(ctx)
	if err != nil {
		return err
	}
	return h.check(payload)
}

func (h *handshake) check(signature []byte) error {
	if !h.party.Verify(h.state.PeerStatic(), signature) {
		return ErrIdentity
	}
	return nil
}

func (h *handshake) writeProof(ctx context.Context) (first, second *noise.CipherState, err error) {
	signature := h.party.Sign(h.static)
	if signature == nil {
		return nil, nil, errors.New("the own agent does not sign")
	}
	return h.write(ctx, signature)
}

func (h *handshake) write(ctx context.Context, payload []byte) (first, second *noise.CipherState, err error) {
	msg, first, second, err := h.state.WriteMessage(nil, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("write the handshake: %w", err)
	}
	if err := h.stream.Take(ctx, len(msg)); err != nil {
		return nil, nil, err
	}
	return first, second, h.stream.Put(msg)
}

func (h *handshake) read(ctx context.Context) (payload []byte, first, second *noise.CipherState, err error) {
	msg, err := h.stream.Borrow(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	payload, first, second, err = h.state.ReadMessage(nil, msg)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return payload, first, second, nil
}

// Send sends one content in as many parts as it needs. begun reports whether a
// part has left: where it has and err is not nil, the channel is of no more use.
func (s *Session) Send(ctx context.Context, msg []byte) (begun bool, err error) {
	for {
		part := msg[:min(len(msg), MaxData)]
		msg = msg[len(part):]
		if err := s.stream.Take(ctx, len(part)+overhead); err != nil {
			return begun, err
		}
		flag := byte(0)
		if len(msg) > 0 {
			flag = 1
		}
		var sealing error
		err := s.stream.Fill(len(part)+overhead, func(content []byte) {
			plain := append(append(content[:0], flag), part...)
			_, sealing = s.out.Encrypt(content[:0], nil, plain)
		})
		if sealing != nil {
			return true, fmt.Errorf("encrypt: %w", sealing)
		}
		if err != nil {
			return true, err
		}
		if begun = true; len(msg) == 0 {
			return true, nil
		}
	}
}

// ErrTampered is what Receive returns when a content is not what was sent.
var ErrTampered = errors.New("a content was changed, dropped, repeated or moved on the way")

// Receive gives the next content, at most limit bytes, as the caller's own. ErrTooLarge and
// ErrTampered end the channel. A context that ends between two parts loses
// nothing: rest is what came so far, to be passed to the next call.
func (s *Session) Receive(ctx context.Context, rest []byte, limit int) (msg []byte, whole bool, err error) {
	for {
		part, err := s.Part(ctx)
		if err != nil {
			return rest, false, err
		}
		if len(rest)+len(part.Data) > limit {
			return nil, false, ErrTooLarge
		}
		if rest == nil && !part.More {
			return slices.Clip(part.Data), true, nil
		}
		if rest == nil {
			rest = make([]byte, 0, min(4*len(part.Data), limit))
		}
		rest = append(rest, part.Data...)
		s.Done(part)
		if !part.More {
			return rest, true, nil
		}
	}
}

// Part is a piece of a content.
type Part struct {
	Data []byte
	More bool // another part of the content follows
	buf  []byte
}

// Part gives the next part. It holds until Done, or for ever where Done isn't
// called.
func (s *Session) Part(ctx context.Context) (Part, error) {
	buf, err := s.stream.Borrow(ctx)
	if err != nil {
		return Part{}, err
	}
	plain, err := s.in.Decrypt(buf[:0], nil, buf)
	if err != nil || len(plain) == 0 || plain[0] > 1 {
		return Part{}, ErrTampered
	}
	return Part{Data: plain[1:], More: plain[0] == 1, buf: buf}, nil
}

// Done gives the memory of a part back.
func (s *Session) Done(p Part) { s.stream.Recycle(p.buf) }

// ErrTooLarge is what Receive returns for a content over the limit.
var ErrTooLarge = errors.New("a content is larger than this end takes")
