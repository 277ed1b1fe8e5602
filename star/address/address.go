// Package address reads the addresses of a star (docs/spec/star.md §7.1):
// multiaddrs as text, in the shapes that the programs of its time use.
//
//	/dns4/star.example/tcp/443/wss/p2p-websocket-star/ipfs/QmcoXr…
//	 └ host ─────────┘ └ port ┘ └ TLS              └ the star └ who
//
// They are compared as text; /p2p/ before an id is the same as /ipfs/, which is
// what is kept and announced.
package address

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/mr-tron/base58"

	"github.com/parley-p2p/parley/identity"
)

// MaxLength is the longest address, in bytes.
const MaxLength = 512

// ErrInvalid is the answer to everything that is no address. Its text is on the
// wire.
var ErrInvalid = &identity.Error{Code: identity.CodeMalformed, Text: "Invalid multiaddr"}

// protocols are those of multiaddr 6.1.1 and what their value must be; nil takes
// no value.
var protocols = map[string]func(value string) bool{
	"ip4": isIP4, "ip6": isIP6, "ip6zone": never, "tcp": isPort, "udp": isPort, "dccp": isPort, "sctp": isPort,
	"dns": isText, "dns4": isText, "dns6": isText, "dnsaddr": isText, "unix": isText, "p2p": isBase58, "ipfs": isBase58,
	"onion": isOnion, "onion3": isOnion3, "garlic64": isGarlic,
	"p2p-webrtc-star": nil, "p2p-webrtc-direct": nil, "p2p-stardust": nil, "p2p-circuit": nil, "udt": nil, "utp": nil,
	"https": nil, "http": nil, "quic": nil, "ws": nil, "wss": nil, "p2p-websocket-star": nil,
}

// Canonical checks that text is a multiaddr as multiaddr 6.1.1 parses it, and
// returns it with /ipfs/ for /p2p/. Control characters are refused in any case.
func Canonical(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if len(text) > MaxLength || text[0] != '/' || hasControl(text) {
		return "", ErrInvalid
	}
	changed := false
	parts := strings.Split(strings.TrimRight(text, " "), "/")
	next := func(i int) int { // the next part that is not empty, from i on
		for i < len(parts) && parts[i] == "" {
			i++
		}
		return i
	}
	for i := next(0); i < len(parts); i = next(i) {
		check, known := protocols[parts[i]]
		at := i
		if i++; !known {
			return "", ErrInvalid
		}
		if check == nil {
			continue
		}
		if i = next(i); i == len(parts) || !check(parts[i]) {
			return "", ErrInvalid
		}
		if parts[at] == "unix" {
			break // the rest is a path
		}
		if parts[at] == "p2p" {
			parts[at], changed = "ipfs", true
		}
		i++
	}
	if changed {
		text = strings.Join(parts, "/")
	}
	return text, nil
}

func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// ID is the text after the last /ipfs/ or /p2p/, the whole text where there is
// none: what a key has to match.
func ID(text string) string {
	at := max(strings.LastIndex(text, "/ipfs/")+len("/ipfs/"), strings.LastIndex(text, "/p2p/")+len("/p2p/"))
	if !strings.Contains(text, "/ipfs/") && !strings.Contains(text, "/p2p/") {
		return text
	}
	return text[at:]
}

// Star is an address of the strict shape.
type Star struct {
	Kind string // ip4, ip6, dns, dns4, dns6 or dnsaddr
	Host string
	Port string // "" where the address has no tcp part
	TLS  bool
	ID   string // base58; "" where the address names the star alone
}

// Parse reads an address of the strict shape; /p2p/ and /ipfs/ are the same.
func Parse(text string) (Star, error) {
	if len(text) > MaxLength || hasControl(text) || !strings.HasPrefix(text, "/") {
		return Star{}, ErrInvalid
	}
	parts := strings.Split(text[1:], "/")
	if len(parts) < 4 {
		return Star{}, ErrInvalid
	}
	s := Star{Kind: parts[0], Host: parts[1]}
	rest, named := parts[2:], strings.HasPrefix(s.Kind, "dns")
	switch s.Kind {
	case "ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr":
	default:
		return Star{}, ErrInvalid
	}
	if !protocols[s.Kind](s.Host) {
		return Star{}, ErrInvalid
	}
	if rest[0] == "tcp" {
		if !isDecimalPort(rest[1]) {
			return Star{}, ErrInvalid
		}
		s.Port, rest = rest[1], rest[2:]
	} else if !named {
		return Star{}, ErrInvalid
	}
	if len(rest) < 2 || rest[0] != "ws" && rest[0] != "wss" || rest[1] != "p2p-websocket-star" {
		return Star{}, ErrInvalid
	}
	s.TLS = rest[0] == "wss"
	switch rest = rest[2:]; {
	case len(rest) == 0:
	case len(rest) == 2 && (rest[0] == "ipfs" || rest[0] == "p2p") && isBase58(rest[1]):
		s.ID = rest[1]
	default:
		return Star{}, ErrInvalid
	}
	return s, nil
}

// String is the address in its canonical form.
func (s Star) String() string {
	if s.ID == "" {
		return s.Server()
	}
	return s.Server() + "/ipfs/" + s.ID
}

// Server is the address without an id: the star itself.
func (s Star) Server() string {
	text := "/" + s.Kind + "/" + s.Host
	if s.Port != "" {
		text += "/tcp/" + s.Port
	}
	if s.TLS {
		return text + "/wss/p2p-websocket-star"
	}
	return text + "/ws/p2p-websocket-star"
}

// With is the address of one peer on the star.
func (s Star) With(id string) Star {
	s.ID = id
	return s
}

// URL is where the star is reached; the usual ports are left out.
func (s Star) URL() *url.URL {
	u := &url.URL{Scheme: "http", Host: s.Host}
	usual := "80"
	if s.TLS {
		u.Scheme, usual = "https", "443"
	}
	if s.Kind == "ip6" {
		u.Host = "[" + s.Host + "]"
	}
	if s.Port != "" && s.Port != usual {
		u.Host += ":" + s.Port
	}
	return u
}

func isText(v string) bool { return v != "" }

// never is for ip6zone: the name is known, but no value of it converts.
func never(string) bool { return false }

func isIP4(v string) bool {
	a, err := netip.ParseAddr(v)
	return err == nil && a.Is4()
}

func isIP6(v string) bool {
	a, err := netip.ParseAddr(v)
	return err == nil && a.Is6() && a.Zone() == ""
}

// isPort is what JavaScript's parseInt makes a port of: leading digits count, and
// no digits are 0.
func isPort(v string) bool {
	v = strings.TrimPrefix(strings.TrimLeft(v, " "), "+")
	n := 0
	for i := 0; i < len(v) && v[i] >= '0' && v[i] <= '9' && n <= 65535; i++ {
		n = 10*n + int(v[i]-'0')
	}
	negative := len(v) > 1 && v[0] == '-' && v[1] >= '1' && v[1] <= '9'
	return n <= 65535 && !negative
}

func isDecimalPort(v string) bool {
	if v == "" || len(v) > 5 || strings.Trim(v, "0123456789") != "" {
		return false
	}
	return isPort(v)
}

func isBase58(v string) bool {
	_, err := base58.Decode(v)
	return err == nil && v != ""
}

func isOnion(v string) bool  { return onion(v, 16) }
func isOnion3(v string) bool { return onion(v, 56) }

func onion(v string, size int) bool {
	host, port, ok := strings.Cut(v, ":")
	return ok && len(host) == size && strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz234567") == "" &&
		isPort(port) && port != "" && port[0] >= '1' && port[0] <= '9'
}

// isGarlic wants an I2P destination: base64 of at least 386 bytes.
func isGarlic(v string) bool {
	return len(v) >= 516 && len(v) <= 616 && strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~=") == ""
}
