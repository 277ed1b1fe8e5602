package proxy

import (
	"bytes"
	"strings"

	"github.com/parley-p2p/parley/star/socketio/wire"
)

// Kind says whose bytes a stream has.
type Kind uint8

// The two streams of a dial.
const (
	Dialer   Kind = 0 // from the dialer to the callee
	Listener Kind = 1 // from the callee to the dialer
)

// String is the end of the stream's id.
func (k Kind) String() string {
	if k == Dialer {
		return "dialer"
	}
	return "listener"
}

// The verbs of events about streams, with what stands before an id.
const (
	Accept = "socket.io-pull-stream.accept."
	Queue  = "socket.io-pull-stream.queue."
	Error  = "socket.io-pull-stream.error."
	Credit = "parley.credit."
	Stop   = "parley.stop."
)

var verbs = []string{Accept, Queue, Error, Credit, Stop}

// SplitName takes an event's name apart; ok is false for names that are not about
// a stream.
func SplitName(name string) (verb, id string, kind Kind, ok bool) {
	for _, verb := range verbs {
		if rest, found := strings.CutPrefix(name, verb); found {
			if id, found := strings.CutSuffix(rest, ".dialer"); found {
				return verb, id, Dialer, true
			}
			if id, found := strings.CutSuffix(rest, ".listener"); found {
				return verb, id, Listener, true
			}
			return "", "", 0, false
		}
	}
	return "", "", 0, false
}

var (
	routeHead = []byte(`451-["` + Queue)
	routeTail = []byte(`",{"_placeholder":true,"num":0}]`)
)

// Route finds the stream of a chunk without parsing; ok is false where the text
// is not exactly of the usual form.
func Route(text []byte) (id []byte, kind Kind, ok bool) {
	if len(text) < len(routeHead)+len(routeTail) || !bytes.HasPrefix(text, routeHead) || !bytes.HasSuffix(text, routeTail) {
		return nil, 0, false
	}
	id = text[len(routeHead) : len(text)-len(routeTail)]
	switch {
	case bytes.HasSuffix(id, []byte(".dialer")):
		id = id[:len(id)-len(".dialer")]
	case bytes.HasSuffix(id, []byte(".listener")):
		id, kind = id[:len(id)-len(".listener")], Listener
	default:
		return nil, 0, false
	}
	for _, c := range id {
		if c < 0x20 || c == '"' || c == '\\' {
			return nil, 0, false
		}
	}
	return id, kind, true
}

// QueueText is the text of a chunk's event, as npm clients write it.
func QueueText(id string, kind Kind) []byte {
	var b wire.Builder
	return b.Binary(nil, 1, Queue+id+"."+kind.String()).Placeholder(0).Done()
}

// EventText is the text of another event about a stream; arg is JSON, "" for none.
func EventText(verb, id string, kind Kind, arg string) []byte {
	var b wire.Builder
	b.Event(nil, wire.NoAck, verb+id+"."+kind.String())
	if arg != "" {
		b.Raw(arg)
	}
	return b.Done()
}

// ValidID says whether a dial may have this id: 1 to 128 bytes without control
// characters.
func ValidID(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool { return r < 0x20 || r == 0x7f })
}
