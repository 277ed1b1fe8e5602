package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star"
)

// What the two buckets hold: JSON, so that an operator can read it.

// leaseEntry is the value in STAR_SERVERS; its key is the server's name.
type leaseEntry struct {
	URL    string `json:"url"`    // how other servers reach it; "" where they can't
	Secret string `json:"secret"` // shows that a request was forwarded by one of the cluster
}

// memberEntry is the value in STAR_MEMBERS; its key is keyOf(Place).
type memberEntry struct {
	Place   string `json:"place,omitempty"` // where it isn't the address itself
	Address string `json:"address"`
	Server  string `json:"server"`
	Session uint64 `json:"session"`       // number of the socket
	Key     string `json:"key,omitempty"` // hash of the proven id
}

const (
	maxEntry  = 4 << 10 // bytes of a value
	maxHash   = 64
	maxURL    = 512
	maxSecret = 128
)

var errEntry = &identity.Error{Code: identity.CodeMalformed, Text: "star: an entry of the cluster's buckets can't be read"}

// keyOf is the key of a member.
func keyOf(place string) string {
	sum := sha256.Sum256([]byte(place))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func encodeMember(c star.Claim, server string) []byte {
	m := memberEntry{Address: c.Address, Server: server, Session: c.Session, Key: c.Key}
	if c.Place != c.Address {
		m.Place = c.Place
	}
	b, _ := json.Marshal(m)
	return b
}

// decodeMember reads an entry and checks that it is where it belongs.
func decodeMember(key string, value []byte) (c star.Claim, server string, err error) {
	var m memberEntry
	if err := decodeStrict(value, &m); err != nil {
		return c, "", err
	}
	if m.Place == "" {
		m.Place = m.Address
	}
	if !validName(m.Server) || len(m.Key) > maxHash || !validText(m.Address) || !validText(m.Place) || keyOf(m.Place) != key {
		return c, "", errEntry
	}
	return star.Claim{Place: m.Place, Address: m.Address, Session: m.Session, Key: m.Key}, m.Server, nil
}

func validText(text string) bool {
	r := reader{}
	r.clean([]byte(text))
	return text != "" && len(text) <= maxAddress && !r.bad
}

func decodeLease(value []byte) (leaseEntry, error) {
	var l leaseEntry
	if err := decodeStrict(value, &l); err != nil {
		return l, err
	}
	if len(l.URL) > maxURL || len(l.Secret) > maxSecret {
		return leaseEntry{}, errEntry
	}
	if l.URL != "" {
		u, err := url.Parse(l.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return leaseEntry{}, errEntry
		}
	}
	return l, nil
}

func decodeStrict(value []byte, into any) error {
	if len(value) > maxEntry {
		return errEntry
	}
	d := json.NewDecoder(bytes.NewReader(value))
	if err := d.Decode(into); err != nil {
		return errEntry
	}
	if _, err := d.Token(); err != io.EOF {
		return errEntry
	}
	return nil
}

// validName says whether text can be a server's name.
func validName(text string) bool {
	if len(text) != nameSize {
		return false
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func encodeLease(l leaseEntry) []byte {
	b, _ := json.Marshal(l)
	return b
}
