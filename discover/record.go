package discover

import (
	"encoding/binary"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// Page records say where a page is, signed by the page (docs/protocols/page.md):
//
//	body = uvarint len ‖ node id ‖ uvarint count ‖ count × (uvarint len ‖ multiaddr)
const (
	pageKind       = "page"
	maxPageAddrs   = 32
	maxAddrLen     = 256 // bytes of one multiaddr
	maxIDLen       = 64  // bytes of a peer id
	pageRecordLife = 24 * time.Hour
)

// pageRecord is where a page is.
type pageRecord struct {
	page  identity.PeerID
	node  identity.PeerID // the page's node: it answers for /p2p/<node>/p2p-circuit
	addrs []ma.Multiaddr  // the page's own, and those through the node; without /p2p/<page>
	seq   uint64          // the higher one holds
}

// signPage makes the record of the page with the given key. The life is long
// because clocks differ, and dialling proves the page anyway; who asks keeps a
// record for minutes only.
func signPage(key identity.Key, node identity.PeerID, addrs []ma.Multiaddr, now time.Time) ([]byte, error) {
	return identity.SignRecord(key, identity.Record{
		Kind: pageKind, Seq: uint64(now.UnixMilli()), Expires: now.Add(pageRecordLife),
		Body: encodePage(node, addrs),
	})
}

func encodePage(node identity.PeerID, addrs []ma.Multiaddr) []byte {
	body := binary.AppendUvarint(nil, uint64(len(node)))
	body = append(body, node...)
	var list [][]byte
	for _, a := range addrs {
		if raw := a.Bytes(); len(raw) <= maxAddrLen && len(list) < maxPageAddrs {
			list = append(list, raw)
		}
	}
	body = binary.AppendUvarint(body, uint64(len(list)))
	for _, raw := range list {
		body = binary.AppendUvarint(body, uint64(len(raw)))
		body = append(body, raw...)
	}
	return body
}

// openPage checks the record of one page and decodes it. Addresses of kinds
// that this node doesn't know are left out.
func openPage(raw []byte, page identity.PeerID, now time.Time) (pageRecord, error) {
	rec, err := identity.OpenRecord(raw, pageKind, now)
	if err != nil {
		return pageRecord{}, err
	}
	if agent, err := identity.AgentOf(page); err != nil || agent != rec.Signer {
		return pageRecord{}, identity.Errorf(identity.CodeForbidden, "page record is signed by another")
	}
	node, addrs, ok := decodePage(rec.Body)
	if !ok {
		return pageRecord{}, identity.Errorf(identity.CodeMalformed, "page record can't be read")
	}
	return pageRecord{page: page, node: node, addrs: addrs, seq: rec.Seq}, nil
}

func decodePage(body []byte) (node identity.PeerID, addrs []ma.Multiaddr, ok bool) {
	rawNode, rest, ok := cutPrefixed(body, maxIDLen)
	if !ok {
		return "", nil, false
	}
	node, err := peer.IDFromBytes(rawNode)
	if err != nil {
		return "", nil, false
	}
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > maxPageAddrs {
		return "", nil, false
	}
	rest = rest[n:]
	for range count {
		var raw []byte
		if raw, rest, ok = cutPrefixed(rest, maxAddrLen); !ok {
			return "", nil, false
		}
		if a, err := ma.NewMultiaddrBytes(raw); err == nil {
			addrs = append(addrs, a)
		}
	}
	return node, addrs, len(rest) == 0
}

// cutPrefixed takes a length-prefixed piece of at most limit bytes off b.
func cutPrefixed(b []byte, limit int) (piece, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(limit) || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	return b[:size], b[size:], true
}
