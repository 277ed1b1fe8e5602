// Package consent keeps what a person allowed pages of other sites to do with
// their node, and asks for it (gateway.md §2.8, §4).
//
//	page of https://chat.example            the person's browser
//	  │ opens /_parley/consent?origin=… ───▶  "chat.example wants: protocol chat,
//	  │                                        topics room/*. Allow? Don't?"
//	  │ ◀── postMessage to that origin ──────  the answer, with a grant token
//	  │
//	  └─ /ws, subprotocols parley.v2 and parley.grant.TOKEN ──▶ the session may use
//	                                                           these names and no others
//
// A grant is good for one origin alone: the browser delivers its token to no
// other, and the node takes it with no other Origin.
package consent

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
)

// Scope is what a page of another site may use. A name that ends in "*" stands
// for all that begin with what is before it. The zero Scope allows nothing but to
// connect.
type Scope struct {
	Protocols []string `json:"protocols,omitempty"`
	Topics    []string `json:"topics,omitempty"`
	Storage   int64    `json:"storage,omitempty"` // bytes of files
}

// Bounds of a scope: what a person can read, and a file can hold.
const (
	maxNames   = 32
	maxName    = 256
	maxStorage = 1 << 40
)

// ParseScope reads the parameters protocol, topic (both may be repeated) and
// storage. Errors: CodeMalformed.
func ParseScope(q url.Values) (Scope, error) {
	s := Scope{Protocols: q["protocol"], Topics: q["topic"]}
	if text := q.Get("storage"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > maxStorage {
			return Scope{}, identity.Errorf(identity.CodeMalformed, "storage is a number of bytes up to %d", int64(maxStorage))
		}
		s.Storage = n
	}
	return s.tidy()
}

// tidy checks the names and brings them into one order.
func (s Scope) tidy() (Scope, error) {
	for _, names := range []*[]string{&s.Protocols, &s.Topics} {
		for _, name := range *names {
			if fault := nameFault(name); fault != "" {
				return Scope{}, identity.Errorf(identity.CodeMalformed, "a name %s", fault)
			}
		}
		sorted := slices.Clone(*names)
		slices.Sort(sorted)
		if *names = slices.Compact(sorted); len(*names) > maxNames {
			return Scope{}, identity.Errorf(identity.CodeMalformed, "over %d names", maxNames)
		}
	}
	return s, nil
}

// nameFault says why a person couldn't tell what a name means.
func nameFault(name string) string {
	switch {
	case name == "" || len(name) > maxName:
		return "has 1 to 256 bytes"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case strings.Contains(strings.TrimSuffix(name, "*"), "*"):
		return "has * at its end alone"
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || !unicode.IsPrint(r) {
			return "has characters that can't be seen"
		}
	}
	return ""
}

// Protocol reports whether the scope has a protocol.
func (s Scope) Protocol(name string) bool { return has(s.Protocols, name) }

// Topic reports whether the scope has a topic.
func (s Scope) Topic(name string) bool { return has(s.Topics, name) }

func has(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, open := strings.CutSuffix(n, "*")
		return n == name || open && strings.HasPrefix(name, prefix)
	})
}

// Covers reports whether all of t is in s.
func (s Scope) Covers(t Scope) bool {
	for _, name := range t.Protocols {
		if !has(s.Protocols, name) {
			return false
		}
	}
	for _, name := range t.Topics {
		if !has(s.Topics, name) {
			return false
		}
	}
	return s.Storage >= t.Storage
}

// with is what either of the two has. Errors: CodeMalformed for too many names.
func (s Scope) with(t Scope) (Scope, error) {
	return Scope{Protocols: slices.Concat(s.Protocols, t.Protocols), Topics: slices.Concat(s.Topics, t.Topics), Storage: max(s.Storage, t.Storage)}.tidy()
}

// Equal reports whether both allow the same.
func (s Scope) Equal(t Scope) bool {
	return slices.Equal(s.Protocols, t.Protocols) && slices.Equal(s.Topics, t.Topics) && s.Storage == t.Storage
}

// ParseOrigin checks that text is an origin that can be asked for: https, or http
// on this machine, where nobody on the way can change the page. It is compared as
// it is, so it must be as browsers write it.
func ParseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err == nil && u.Scheme+"://"+u.Host == text && text == strings.ToLower(text) && u.Hostname() != "" && !strings.HasSuffix(u.Host, ".") && ascii(text) {
		local := u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1"
		if u.Scheme == "https" || u.Scheme == "http" && local {
			return text, nil
		}
	}
	return "", identity.Errorf(identity.CodeMalformed, "not an origin that can be allowed: https://…, or http://localhost:…")
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
