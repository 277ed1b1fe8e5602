package peer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// FileProtocol is the reference's file protocol (gateway.md §7.3), which no
// page may take.
const FileProtocol network.Protocol = "/p2p-webapp/1.0.0"

// maxProtocol is the longest protocol id of a page, in bytes.
const maxProtocol = 256

// ownPrefix goes before a page's protocol id to name our framing.
const ownPrefix = "/parley/msg/1.0.0/"

// ownPeer is what every peer of parley speaks for as long as it lives, and no other
// does. Nothing is said on it (gateway.md §5.3).
const ownPeer network.Protocol = "/parley/msg/1.0.0"

// reservedPrefixes belong to parley and libp2p (gateway.md §5.5).
var reservedPrefixes = []string{
	"/parley/", "/parley-", "/http/", "/ipfs/", "/libp2p/", "/meshsub/", "/floodsub/", "/x/",
}

// CheckProtocol refuses the protocol ids that pages can't have, with
// CodeReserved and the text that v1 pages see. FileProtocol and those in also
// are refused besides the fixed ones.
func CheckProtocol(p network.Protocol, also ...network.Protocol) error {
	if p == "" || len(p) > maxProtocol || !utf8.ValidString(string(p)) || strings.ContainsFunc(string(p), unicode.IsControl) {
		return errReserved(p)
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(string(p), prefix) {
			return errReserved(p)
		}
	}
	for _, other := range append(also, FileProtocol) {
		if p == other {
			return errReserved(p)
		}
	}
	return nil
}

func errReserved(p network.Protocol) error {
	return identity.Errorf(identity.CodeReserved, "protocol is reserved: %s", p[:min(len(p), maxProtocol)])
}
