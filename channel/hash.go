package channel

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2b"

	"github.com/parley-p2p/parley/identity"
)

// SpaceHash names a space on the wire: BLAKE2b-256 of its name.
type SpaceHash [32]byte

// Bounds of names, docs/spec/channels.md §5, in bytes of UTF-8.
const (
	MaxSpaceName = 255
	MaxProtocol  = 64
)

// HashSpace is the hash of a space's name.
func HashSpace(name string) SpaceHash { return blake2b.Sum256([]byte(name)) }

// App is what stands for the space on a channel of an application protocol, so
// that a stranger can't tell which space it belongs to.
func (h SpaceHash) App(protocol string) [32]byte {
	buf := append([]byte("parley/app/1"), h[:]...)
	return blake2b.Sum256(append(buf, protocol...))
}

// address is what both proofs of a channel cover.
type address struct {
	space    [32]byte // as on the wire: of the space or of the protocol in it
	to, from identity.AgentID
}

func (a *address) digest(domain string, binding [32]byte, id uint32) []byte {
	buf := append([]byte(domain), binding[:]...)
	buf = binary.LittleEndian.AppendUint32(buf, id)
	return a.sum(buf)
}

func (a *address) sum(buf []byte) []byte {
	buf = append(buf, a.space[:]...)
	buf = append(buf, a.to[:]...)
	buf = append(buf, a.from[:]...)
	d := blake2b.Sum256(buf)
	return d[:]
}

// fromDigest is what the creator of a channel signs.
func (a *address) fromDigest(binding [32]byte, id uint32) []byte {
	return a.digest("parley/channel/1", binding, id)
}

// toDigest is what the acceptor signs.
func (a *address) toDigest(binding [32]byte, id uint32) []byte {
	return a.digest("parley/accept/1", binding, id)
}

// staticDigest is what each end of a relayed channel signs: its Noise key.
func (a *address) staticDigest(key []byte) []byte {
	return a.sum(append([]byte("parley/noise-static/1"), key...))
}

// prologue begins the handshake of a relayed channel.
func (a *address) prologue() []byte {
	buf := append([]byte("parley/relay/1"), a.space[:]...)
	buf = append(buf, a.to[:]...)
	return append(buf, a.from[:]...)
}
