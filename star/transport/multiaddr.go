package transport

import (
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/address"
)

// Code is the multicodec of a star address's last part.
const Code = 479

const protocolName = "p2p-websocket-star"

// Register teaches go-multiaddr the protocol p2p-websocket-star, which its own
// table lacks, once a process. New calls it; a program that makes hosts in several
// goroutines calls it first, since go-multiaddr's table has no lock.
func Register() error { return register() }

var register = sync.OnceValue(func() error {
	if p := ma.ProtocolWithName(protocolName); p.Code == Code {
		return nil
	}
	err := ma.AddProtocol(ma.Protocol{Name: protocolName, Code: Code, VCode: ma.CodeToVarint(Code)})
	if err != nil {
		return identity.Errorf(identity.CodeInternal, "add the protocol %s: %w", protocolName, err)
	}
	return nil
})

// parse reads a multiaddr of the strict shape. Where it ends in an id that is
// given apart.
func parse(a ma.Multiaddr) (address.Star, error) {
	if len(a) == 0 {
		return address.Star{}, address.ErrInvalid
	}
	s, err := address.Parse(a.String())
	if err != nil {
		return s, err
	}
	if _, err := a.ValueForProtocol(Code); err != nil {
		return s, address.ErrInvalid // another protocol that is written the same
	}
	return s, nil
}

// multiaddr is the star's address without an id, as libp2p keeps it.
func multiaddr(s address.Star) (ma.Multiaddr, error) { return ma.NewMultiaddr(s.Server()) }

// claimed reads the address of a member that a star told of: of the strict shape,
// with an id, and on the star's own host. What it says is a claim.
func claimed(text string, on address.Star) (peer.ID, address.Star, bool) {
	s, err := address.Parse(text)
	if err != nil || s.ID == "" || !strings.EqualFold(s.Host, on.Host) {
		return "", s, false
	}
	id, err := peer.Decode(s.ID)
	if err != nil || id.String() != s.ID {
		return "", s, false
	}
	return id, s, true
}
