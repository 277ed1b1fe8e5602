package v2

import (
	"errors"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// ErrFrame is what breaks the protocol: the socket is closed with 1002. Errors
// of any other kind here are *identity.Error and answered.
var ErrFrame = errors.New("not a parley.v2 frame")

// Frame is one frame, cut out but not looked into. It shares memory with the
// message.
type Frame struct {
	Kind  Kind
	Items int    // elements behind the kind
	Body  []byte // these elements
}

// Next cuts the first frame off msg.
func Next(msg []byte) (f Frame, rest []byte, err error) {
	major, _, items, n := head(msg)
	if n == 0 || major != majorArray || items == 0 || items > MaxItems {
		return Frame{}, nil, ErrFrame
	}
	major, _, kind, k := head(msg[n:])
	if k == 0 || major != majorUint {
		return Frame{}, nil, ErrFrame
	}
	f = Frame{Kind: Kind(kind), Items: int(items) - 1}
	body := msg[n+k:]
	end := 0
	for range f.Items {
		size := skip(body[end:])
		if size == 0 {
			return Frame{}, nil, ErrFrame
		}
		end += size
	}
	f.Body = body[:end]
	return f, body[end:], nil
}

// reader walks over the elements of a frame; the first fault is kept and
// everything behind it reads as empty.
type reader struct {
	rest []byte
	left int
	bad  bool
}

func (f Frame) reader() reader { return reader{rest: f.Body, left: f.Items} }

// next takes the head of the next element and its whole length.
func (r *reader) next(want byte) (arg uint64, head_ int, ok bool) {
	major, _, arg, n := head(r.rest)
	if r.bad || r.left <= 0 || n == 0 || major != want {
		r.bad = true
		return 0, 0, false
	}
	r.left--
	return arg, n, true
}

func (r *reader) uint(limit uint64) uint64 {
	arg, n, ok := r.next(majorUint)
	if !ok || arg > limit {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return arg
}

func (r *reader) str(major byte) []byte {
	arg, n, ok := r.next(major)
	if !ok || arg > uint64(len(r.rest)-n) {
		r.bad = true
		return nil
	}
	s := r.rest[n : n+int(arg)]
	r.rest = r.rest[n+int(arg):]
	return s
}

func (r *reader) text() []byte {
	s := r.str(majorText)
	if !utf8.Valid(s) {
		r.bad = true
		return nil
	}
	return s
}

func (r *reader) bool() bool {
	major, info, _, n := head(r.rest)
	if r.bad || r.left <= 0 || n == 0 || major != majorOther || (info != infoTrue && info != infoFalse) {
		r.bad = true
		return false
	}
	r.left--
	r.rest = r.rest[n:]
	return info == infoTrue
}

// raw takes the next element as it is.
func (r *reader) raw() []byte {
	n := skip(r.rest)
	if r.bad || r.left <= 0 || n == 0 {
		r.bad = true
		return nil
	}
	r.left--
	item := r.rest[:n]
	r.rest = r.rest[n:]
	return item
}

// object reads a map with distinct text keys and gives each value to visit,
// which may leave it alone. A map that is nested too deep, or not one, is bad.
func (r *reader) object(visit func(key string, value *reader)) {
	count, n, ok := r.next(majorMap)
	if !ok || count > MaxItems {
		r.bad = true
		return
	}
	r.rest = r.rest[n:]
	var few [8][]byte
	keys := few[:0]
	for range count {
		r.left += 2
		key := r.text()
		value := reader{rest: r.raw(), left: 1}
		if r.bad {
			return
		}
		keys = append(keys, key)
		visit(string(key), &value)
		r.bad = r.bad || value.bad
	}
	r.bad = r.bad || repeated(keys)
}

// Count reads the number of a received, ping, pong, cancel or handled frame.
func (f Frame) Count() (uint64, error) {
	r := f.reader()
	n := r.uint(MaxID)
	if r.bad {
		return 0, ErrFrame
	}
	return n, nil
}

// Send is a send frame. Peer and Protocol share memory with the message, and so
// does the content. Pair is both as they were written: a key for caches.
type Send struct {
	ID       uint64
	Pair     []byte
	Peer     []byte
	Protocol []byte
	Content  network.Content
	Level    network.Level
	Reply    bool
}

// Send reads a send frame. With an *identity.Error ID is set, so that it can be
// answered.
func (f Frame) Send() (s Send, err error) {
	r := f.reader()
	if s.ID = r.uint(MaxID); r.bad {
		return s, ErrFrame
	}
	pair := r.rest
	s.Peer, s.Protocol = r.text(), r.text()
	if r.bad {
		return s, malformed("send is [20, id, peer, protocol, data, level, flags]")
	}
	s.Pair = pair[:len(pair)-len(r.rest)]
	data := r.raw()
	level, flags := r.uint(uint64(network.Stored)), r.uint(MaxID)
	if r.bad {
		return s, malformed("send is [20, id, peer, protocol, data, level, flags], level 0 to 3")
	}
	s.Level, s.Reply = network.Level(level), flags&FlagReply != 0
	s.Content, err = ParseData(data)
	return s, err
}

// Reply reads a reply frame. With an *identity.Error the delivery is set.
func (f Frame) Reply() (delivery uint64, c network.Content, err error) {
	r := f.reader()
	delivery = r.uint(MaxID)
	data := r.raw()
	if r.bad {
		return 0, c, ErrFrame
	}
	c, err = ParseData(data)
	return delivery, c, err
}

// maxErrorText bounds the sentence that a page may send about a failure.
const maxErrorText = 1024

// Refuse reads a refuse frame.
func (f Frame) Refuse() (delivery uint64, cause *identity.Error, err error) {
	r := f.reader()
	delivery = r.uint(MaxID)
	code, text := r.text(), r.text()
	if r.bad {
		return 0, nil, ErrFrame
	}
	return delivery, &identity.Error{Code: knownCode(string(code)), Text: clip(string(text), maxErrorText)}, nil
}

// knownCode keeps what pages say within the list of codes.
func knownCode(text string) identity.Code {
	for _, c := range identity.Codes() {
		if string(c) == text {
			return c
		}
	}
	return identity.CodeRefused
}

// clip shortens s to limit bytes at most, between characters.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Bye reads a bye frame.
func (f Frame) Bye() (code, text string, err error) {
	r := f.reader()
	code, text = string(r.text()), string(r.text())
	if r.bad {
		return "", "", ErrFrame
	}
	return code, text, nil
}
