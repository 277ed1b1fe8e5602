package v2

import (
	"errors"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Request is a request frame with every parameter that a method can have; Has
// tells which were there.
type Request struct {
	ID     uint64
	Method string
	Has    Params

	Protocol  string
	Topic     string
	Peer      string
	Peers     []string
	Addresses []string
	Data      network.Content // shares memory with the message
	State     []byte          // the same; one CBOR item without tags

	Space      string
	Channel    uint64
	Window     uint64
	Via        string
	DirectOnly bool
}

// Params is a set of parameters.
type Params uint16

// The parameters.
const (
	HasProtocol Params = 1 << iota
	HasTopic
	HasPeer
	HasPeers
	HasAddresses
	HasData
	HasState
	HasSpace
	HasChannel
	HasWindow
)

// MaxList bounds the peers and addresses of one request.
const MaxList = 1024

// maxMethod bounds a method's name, which is repeated in an error.
const maxMethod = 64

// Request reads a request frame. With an *identity.Error ID is set, so that it
// can be answered.
func (f Frame) Request() (q Request, err error) {
	r := f.reader()
	if q.ID = r.uint(MaxID); r.bad {
		return q, ErrFrame
	}
	method := r.text()
	if r.bad || len(method) > maxMethod {
		return q, malformed("request is [16, id, method, params]")
	}
	q.Method = string(method)
	r.object(func(key string, value *reader) {
		if e := q.param(key, value); e != nil && err == nil {
			err = e
		}
	})
	if r.bad && err == nil {
		err = malformed("invalid params")
	}
	return q, err
}

// param reads one parameter. Those it doesn't know are left alone.
func (q *Request) param(key string, value *reader) error {
	switch key {
	case "protocol":
		q.Protocol, q.Has = string(value.text()), q.Has|HasProtocol
	case "topic":
		q.Topic, q.Has = string(value.text()), q.Has|HasTopic
	case "peer":
		q.Peer, q.Has = string(value.text()), q.Has|HasPeer
	case "peers":
		q.Peers, q.Has = value.texts(), q.Has|HasPeers
	case "addresses":
		q.Addresses, q.Has = value.texts(), q.Has|HasAddresses
	case "data":
		q.Has |= HasData
		var err error
		q.Data, err = ParseData(value.raw())
		return err
	case "state":
		q.State, q.Has = value.raw(), q.Has|HasState
		return CheckData(q.State)
	default:
		q.channelParam(key, value)
	}
	return nil
}

// channelParam reads a parameter of a space or channel.
func (q *Request) channelParam(key string, value *reader) {
	switch key {
	case "space":
		q.Space, q.Has = string(value.text()), q.Has|HasSpace
	case "channel":
		q.Channel, q.Has = value.uint(MaxID), q.Has|HasChannel
	case "window":
		q.Window, q.Has = value.uint(MaxID), q.Has|HasWindow
	case "via":
		q.Via = string(value.text())
	case "directOnly":
		q.DirectOnly = value.bool()
	}
}

func (r *reader) texts() []string {
	count, n, ok := r.next(majorArray)
	if !ok || count > MaxList {
		r.bad = true
		return nil
	}
	r.rest = r.rest[n:]
	list := make([]string, 0, count)
	for range count {
		r.left++
		list = append(list, string(r.text()))
	}
	return list
}

// HelloFrame is what a page says first.
type HelloFrame struct {
	Version  uint64
	Identity string // DefaultIdentity when absent
	Keyless  bool   // identity was "": a key that nobody keeps
	Key      string
	Session  []byte // 16 bytes, or nil
	Received uint64
}

// DefaultIdentity is the identity of a hello that names none.
const DefaultIdentity = "default"

// TokenSize is the length of a session token.
const TokenSize = 16

const (
	maxIdentity = 64
	maxKeyText  = 512
)

// Hello reads a hello frame. Everything wrong in it is ErrFrame or an
// *identity.Error that ends the socket too: there is nothing to go on with.
func (f Frame) Hello() (h HelloFrame, err error) {
	h.Identity = DefaultIdentity
	r := f.reader()
	r.object(func(key string, value *reader) {
		switch key {
		case "v":
			h.Version = value.uint(MaxID)
		case "identity":
			h.Identity = string(value.text())
			h.Keyless = h.Identity == ""
		case "key":
			h.Key = string(value.text())
		case "session":
			h.Session = value.str(majorBytes)
		case "received":
			h.Received = value.uint(MaxID)
		}
	})
	switch {
	case f.Kind != KindHello || r.bad:
		return h, ErrFrame
	case !validIdentity(h.Identity):
		return h, malformed("identity is up to 64 characters of A-Z a-z 0-9 . _ -")
	case len(h.Key) > maxKeyText:
		return h, malformed("failed to unmarshal peer key: too long")
	case h.Session != nil && len(h.Session) != TokenSize:
		return h, malformed("session is 16 bytes")
	}
	return h, nil
}

func validIdentity(s string) bool {
	if len(s) > maxIdentity {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// AsError gives the *identity.Error in err, nil where err breaks the protocol.
func AsError(err error) *identity.Error {
	var e *identity.Error
	errors.As(err, &e)
	return e
}
