package topic

import (
	"encoding/binary"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// What nodes tell each other on a stream of presenceProtocol, one way: the node
// that opened it tells (docs/protocols/presence.md). A frame is a uvarint
// length, a kind byte, and the rest:
//
//	kind       rest
//	1 announce a signed record of kind "presence": this page is in this topic
//	2 leave    uvarint length, topic, 32 bytes agent: it no longer is
//	3 forget   uvarint length, topic: nothing more is told of this topic
//	4 alive    nothing: the teller is still there
//
// Unknown kinds are skipped. The end of the stream takes back everything that
// was told on it. A record's body:
//
//	uvarint length, topic | uvarint length, node's peer id | uvarint count,
//	count × (uvarint length, multiaddr text) | uvarint length, state (CBOR)
const (
	presenceProtocol = network.Protocol("/parley/presence/1.0.0")
	presenceKind     = "presence"

	frameAnnounce = 1
	frameLeave    = 2
	frameForget   = 3
	frameAlive    = 4
)

// Limits of records and frames, checked before anything is allocated.
const (
	MaxState     = 1 << 10 // bytes of what a member says of itself (gateway.md §6.2)
	maxAddresses = 16
	maxAddress   = 256
	maxFrame     = 8 << 10 // a record at all its limits has 7 KiB
	maxNodeID    = 128

	recordLife    = 10 * time.Minute // records are renewed at half of it
	recordHorizon = time.Hour        // and none is believed that says it lives longer
)

// claim is one page's presence in one topic, as a node tells it.
type claim struct {
	topic     string // on the wire
	page      identity.PeerID
	node      identity.PeerID
	addresses []string
	state     []byte
	seq       uint64
	expires   time.Time
}

// signClaim makes the record of c. What is too much of the addresses is left out.
func signClaim(agent identity.Agent, c claim) ([]byte, error) {
	body := appendPrefixed(nil, c.topic)
	body = appendPrefixed(body, string(c.node))
	kept := make([]string, 0, maxAddresses)
	for _, a := range c.addresses {
		if len(kept) < maxAddresses && len(a) <= maxAddress {
			kept = append(kept, a)
		}
	}
	body = binary.AppendUvarint(body, uint64(len(kept)))
	for _, a := range kept {
		body = appendPrefixed(body, a)
	}
	body = appendPrefixed(body, string(c.state))
	return identity.SignRecord(agent, identity.Record{Kind: presenceKind, Seq: c.seq, Expires: c.expires, Body: body})
}

// openClaim reads a record that node sent and checks everything in it.
func openClaim(raw []byte, node identity.PeerID, now time.Time) (claim, error) {
	r, err := identity.OpenRecord(raw, presenceKind, now)
	if err != nil {
		return claim{}, err
	}
	if r.Expires.Sub(now) > recordHorizon {
		return claim{}, identity.Errorf(identity.CodeMalformed, "presence record lives too long")
	}
	page, err := r.Signer.PeerID()
	if err != nil {
		return claim{}, err
	}
	c := claim{page: page, seq: r.Seq, expires: r.Expires}
	p := parser{rest: r.Body}
	c.topic = string(p.prefixed(maxRemoteName))
	c.node = identity.PeerID(p.prefixed(maxNodeID))
	for n := p.count(maxAddresses); n > 0 && !p.bad; n-- {
		c.addresses = append(c.addresses, string(p.prefixed(maxAddress)))
	}
	c.state = p.prefixed(MaxState)
	if p.bad || len(p.rest) > 0 || c.topic == "" {
		return claim{}, identity.Errorf(identity.CodeMalformed, "presence record can't be read")
	}
	if c.node != node {
		return claim{}, identity.Errorf(identity.CodeForbidden, "presence record is of another node")
	}
	return c, checkState(c.state)
}

// checkState refuses a state that isn't one small CBOR item of data.
func checkState(state []byte) error {
	if len(state) == 0 {
		return nil
	}
	if len(state) > MaxState {
		return identity.Errorf(identity.CodeTooLarge, "state has %d bytes, limit %d", len(state), MaxState)
	}
	_, err := network.Content{Type: network.CBOR, Data: state}.JSON()
	return err
}

// appendFrame adds a frame of kind with body.
func appendFrame(dst []byte, kind byte, body []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(body)+1))
	return append(append(dst, kind), body...)
}

func leaveBody(topic string, page identity.AgentID) []byte {
	return append(appendPrefixed(nil, topic), page[:]...)
}

func parseLeave(body []byte) (topic string, page identity.AgentID, ok bool) {
	p := parser{rest: body}
	topic = string(p.prefixed(maxRemoteName))
	ok = !p.bad && len(p.rest) == len(page)
	copy(page[:], p.rest)
	return topic, page, ok
}

func parseForget(body []byte) (topic string, ok bool) {
	p := parser{rest: body}
	topic = string(p.prefixed(maxRemoteName))
	return topic, !p.bad && len(p.rest) == 0
}

func appendPrefixed(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// parser walks over bytes; after the first failure everything reads as empty.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) count(limit uint64) uint64 {
	n, used := binary.Uvarint(p.rest)
	if used <= 0 || n > limit {
		p.bad, p.rest = true, nil
		return 0
	}
	p.rest = p.rest[used:]
	return n
}

func (p *parser) prefixed(limit uint64) []byte {
	n := p.count(limit)
	if n > uint64(len(p.rest)) {
		p.bad, p.rest = true, nil
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}
