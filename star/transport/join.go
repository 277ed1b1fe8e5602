package transport

import (
	"context"
	"encoding/hex"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Events of the star (star.md §6, §8).
const (
	eventJoin     = "ss-join"
	eventLeave    = "ss-leave"
	eventDial     = "ss-dial"
	eventIncoming = "ss-incomming"
	eventPeer     = "ws-peer"
	eventPeers    = "parley.peers"
	eventLost     = "parley.lost"
	eventDrain    = "parley.drain"
)

// join proves to the star who this is (star.md §6.2). A star that asks for no proof
// is left, unless it may: anybody could be anybody there.
func (s *session) join(ctx context.Context) error {
	own := s.star.own
	args, err := s.askJoin(ctx, s.star.t.publicHex)
	if err != nil {
		return err
	}
	nonce, challenged := wire.String(arg(args, 1))
	if !challenged {
		if !s.star.opts.AllowOpen {
			s.emit(flow.Control, eventLeave, own)
			return errOpenStar
		}
		return s.members(args)
	}
	if !signable(nonce, own) {
		return errForeignNonce
	}
	signature, err := s.star.t.key.Sign([]byte(nonce))
	if err != nil {
		return identity.Errorf(identity.CodeInternal, "sign a challenge: %w", err)
	}
	if args, err = s.askJoin(ctx, hex.EncodeToString(signature)); err != nil {
		return err
	}
	return s.members(args)
}

func (s *session) askJoin(ctx context.Context, data string) ([][]byte, error) {
	args, err := s.ask(ctx, eventJoin, s.star.own, data)
	if err != nil {
		return nil, err
	}
	if said := arg(args, 0); wire.Truthy(said) {
		return nil, refusal(said)
	}
	return args, nil
}

// members takes the list that ends a join; npm servers give none where it is not
// theirs to give.
func (s *session) members(args [][]byte) error {
	list := arg(args, 2)
	if list == nil || string(list) == "null" {
		return nil
	}
	addrs, ok := stringsOf(list, s.star.t.opts.Limits.Discovered)
	if !ok {
		return errStrangeJoinAnswer
	}
	for _, a := range addrs {
		s.star.book.saw(a)
	}
	return nil
}

// arg is argument i, nil where it is missing.
func arg(args [][]byte, i int) []byte {
	if i >= len(args) {
		return nil
	}
	return args[i]
}

// stringsOf reads the first most strings of a JSON array; ok is false for what is
// none. Values that are no strings are passed over.
func stringsOf(raw []byte, most int) (list []string, ok bool) {
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	values, _, err := wire.Array(raw, nil, most, wire.Limits{})
	if err != nil {
		return nil, false
	}
	for _, v := range values {
		if text, isText := wire.String(v); isText {
			list = append(list, text)
		}
	}
	return list, true
}

// publicHex is the public key as it is on the wire.
func publicHex(key crypto.PrivKey) (string, error) {
	raw, err := crypto.MarshalPublicKey(key.GetPublic())
	if err != nil {
		return "", identity.Errorf(identity.CodeInternal, "encode the public key: %w", err)
	}
	return hex.EncodeToString(raw), nil
}
