package identity

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"
)

// Limits of a signed record, checked before anything is allocated.
const (
	MaxRecordKind = 64       // bytes
	MaxRecordBody = 16 << 10 // bytes
	maxRecord     = MaxRecordBody + MaxRecordKind + 256
	maxExpiry     = 1 << 53 // milliseconds; what JavaScript counts exactly
	recordVersion = 1
	recordDomain  = "parley/record/1"
)

// Record is a statement that an agent signed: presence, a page's addresses, a
// node's description. Kind says which, and so keeps a signature for one purpose
// from being used for another. Its form is docs/protocols/record.md.
type Record struct {
	Kind    string    // "presence", "page", "node" …; 1 to MaxRecordKind bytes
	Signer  AgentID   // who says so
	Seq     uint64    // grows with every new statement of the same kind; the higher one holds
	Expires time.Time // not to be used afterwards; millisecond precision
	Body    []byte    // at most MaxRecordBody bytes; its form belongs to the kind
}

// SignRecord encodes r and lets the agent, for example a Key, sign it: it becomes
// the signer. Errors: CodeMalformed, CodeTooLarge, CodeForbidden where the agent
// does not sign.
func SignRecord(agent Agent, r Record) ([]byte, error) {
	if r.Kind == "" || len(r.Kind) > MaxRecordKind {
		return nil, Errorf(CodeMalformed, "record kind has %d bytes, limit %d", len(r.Kind), MaxRecordKind)
	}
	if len(r.Body) > MaxRecordBody {
		return nil, Errorf(CodeTooLarge, "record body has %d bytes, limit %d", len(r.Body), MaxRecordBody)
	}
	if r.Expires.UnixMilli() > maxExpiry {
		return nil, Errorf(CodeMalformed, "record expires too late")
	}
	r.Signer = agent.Agent()
	raw := appendRecord(nil, r)
	signature := agent.Sign(recordDigest(raw))
	if len(signature) != ed25519.SignatureSize {
		return nil, Errorf(CodeForbidden, "the agent does not sign")
	}
	return append(raw, signature...), nil
}

// OpenRecord decodes raw, checks the signature and that it is of the kind
// asked for and not expired at now. The body is a copy.
//
//	version 1 ‖ uvarint len ‖ kind ‖ signer 32 ‖ uvarint seq ‖ uvarint expiry ms ‖ uvarint len ‖ body ‖ signature 64
func OpenRecord(raw []byte, kind string, now time.Time) (Record, error) {
	if len(raw) > maxRecord {
		return Record{}, Errorf(CodeTooLarge, "record has %d bytes, limit %d", len(raw), maxRecord)
	}
	if len(raw) < ed25519.SignatureSize {
		return Record{}, errBadRecord
	}
	signed, sig := raw[:len(raw)-ed25519.SignatureSize], raw[len(raw)-ed25519.SignatureSize:]
	r, ok := parseRecord(signed)
	if !ok {
		return Record{}, errBadRecord
	}
	if r.Kind != kind {
		return Record{}, Errorf(CodeMalformed, "record is of kind %q, not %q", r.Kind, kind)
	}
	if !Verify(r.Signer, recordDigest(signed), sig) {
		return Record{}, Errorf(CodeForbidden, "record signature is wrong")
	}
	if !now.Before(r.Expires) {
		return Record{}, Errorf(CodeTimeout, "record has expired")
	}
	return r, nil
}

var errBadRecord = &Error{Code: CodeMalformed, Text: "record can't be read"}

func recordDigest(signed []byte) []byte {
	return append([]byte(recordDomain), signed...)
}

func appendRecord(dst []byte, r Record) []byte {
	dst = append(dst, recordVersion)
	dst = binary.AppendUvarint(dst, uint64(len(r.Kind)))
	dst = append(dst, r.Kind...)
	dst = append(dst, r.Signer[:]...)
	dst = binary.AppendUvarint(dst, r.Seq)
	dst = binary.AppendUvarint(dst, uint64(max(r.Expires.UnixMilli(), 0)))
	dst = binary.AppendUvarint(dst, uint64(len(r.Body)))
	return append(dst, r.Body...)
}

func parseRecord(raw []byte) (Record, bool) {
	p := parser{rest: raw, ok: true}
	if v := p.bytes(1); !p.ok || v[0] != recordVersion {
		return Record{}, false
	}
	var r Record
	r.Kind = string(p.prefixed(MaxRecordKind))
	copy(r.Signer[:], p.bytes(len(r.Signer)))
	r.Seq = p.uvarint()
	ms := p.uvarint()
	r.Body = append([]byte{}, p.prefixed(MaxRecordBody)...)
	if !p.ok || len(p.rest) != 0 || r.Kind == "" || ms > maxExpiry {
		return Record{}, false
	}
	r.Expires = time.UnixMilli(int64(ms))
	return r, true
}

// parser walks over bytes; after the first failure everything reads as empty.
type parser struct {
	rest []byte
	ok   bool
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 || (n > 1 && p.rest[n-1] == 0) { // one number has one form
		p.ok, p.rest = false, nil
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *parser) bytes(n int) []byte {
	if !p.ok || n > len(p.rest) {
		p.ok, p.rest = false, nil
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) prefixed(limit int) []byte {
	n := p.uvarint()
	if n > uint64(limit) {
		p.ok, p.rest = false, nil
		return nil
	}
	return p.bytes(int(n))
}
