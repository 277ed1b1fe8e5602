package wire

import (
	"encoding/json"
	"strconv"

	"github.com/parley-p2p/parley/identity"
)

// Type is the kind of an Engine.IO packet: the digit that it begins with.
type Type byte

// The packet types (star.md §3.1).
const (
	Open    Type = '0' // s→c: JSON with sid, upgrades and the heartbeat's times
	Close   Type = '1'
	Ping    Type = '2' // by the client; "probe" during an upgrade
	Pong    Type = '3' // by the server; repeats the ping's data
	Message Type = '4' // carries Socket.IO
	Upgrade Type = '5' // c→s: the end of an upgrade
	Noop    Type = '6' // a sign of life and nothing else
)

// Packet is one Engine.IO packet. Binary packets are always messages.
type Packet struct {
	Type   Type
	Binary bool
	Data   []byte // without the type

	// Raw is the packet as a WebSocket frame holds it: the digit, or 0x04, and
	// Data behind it. Decoders set it; Data lies in it.
	Raw []byte
}

// ParsePacket reads one text packet: a digit, then its data, which is not copied.
func ParsePacket(text []byte) (Packet, error) {
	if len(text) == 0 || text[0] < '0' || text[0] > '6' {
		return Packet{}, errBadPacket
	}
	return Packet{Type: Type(text[0]), Data: text[1:], Raw: text}, nil
}

var errBadPacket = &identity.Error{Code: identity.CodeMalformed, Text: "not an Engine.IO packet"}

// Handshake is what an open packet says. Times are in milliseconds.
type Handshake struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int      `json:"pingInterval"`
	PingTimeout  int      `json:"pingTimeout"`

	// Parley is what a parley server tells a parley client (star.md §8); nil
	// between all others.
	Parley json.RawMessage `json:"parley,omitempty"`
}

// Limits of what a client believes of an open packet.
const (
	maxHandshake = 16 << 10
	maxSID       = 256
	minPing      = 10            // ms
	maxPing      = 24 * 3600_000 // ms
)

// AppendOpen appends the open packet of h, with its digit.
func AppendOpen(dst []byte, h Handshake) []byte {
	dst = append(dst, byte(Open))
	dst = append(dst, `{"sid":`...)
	dst = AppendQuote(dst, h.SID)
	dst = append(dst, `,"upgrades":[`...)
	for i, u := range h.Upgrades {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendQuote(dst, u)
	}
	dst = append(dst, `],"pingInterval":`...)
	dst = strconv.AppendInt(dst, int64(h.PingInterval), 10)
	dst = append(dst, `,"pingTimeout":`...)
	dst = strconv.AppendInt(dst, int64(h.PingTimeout), 10)
	if h.Parley != nil {
		dst = append(dst, `,"parley":`...)
		dst = append(dst, h.Parley...)
	}
	return append(dst, '}')
}

// ParseOpen reads the data of an open packet. Unknown keys are ignored.
func ParseOpen(data []byte) (Handshake, error) {
	if len(data) > maxHandshake {
		return Handshake{}, errBadOpen
	}
	if end, err := Scan(data, Limits{}); err != nil || end != len(data) {
		return Handshake{}, errBadOpen
	}
	var h Handshake
	if err := json.Unmarshal(data, &h); err != nil {
		return Handshake{}, errBadOpen
	}
	if h.SID == "" || len(h.SID) > maxSID || !pingOK(h.PingInterval) || !pingOK(h.PingTimeout) {
		return Handshake{}, errBadOpen
	}
	return h, nil
}

func pingOK(ms int) bool { return ms >= minPing && ms <= maxPing }

var errBadOpen = &identity.Error{Code: identity.CodeMalformed, Text: "the server's open packet can't be read"}
