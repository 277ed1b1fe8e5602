package v2

import (
	"strings"
	"unicode/utf8"

	"github.com/parley-p2p/parley/network"
)

// What follows is a page's side, for tests, benchmarks and Go programs that
// speak to a node as a page does.

// AppendHello appends a hello frame.
func AppendHello(dst []byte, h HelloFrame) []byte {
	n := 1
	for _, there := range []bool{h.Identity != "" || h.Keyless, h.Key != "", h.Session != nil, h.Received > 0} {
		if there {
			n++
		}
	}
	dst = AppendMap(open(dst, 2, KindHello), n)
	dst = AppendUint(AppendText(dst, "v"), h.Version)
	if h.Identity != "" || h.Keyless {
		dst = AppendText(AppendText(dst, "identity"), h.Identity)
	}
	if h.Key != "" {
		dst = AppendText(AppendText(dst, "key"), h.Key)
	}
	if h.Session != nil {
		dst = AppendBytes(AppendText(dst, "session"), h.Session)
	}
	if h.Received > 0 {
		dst = AppendUint(AppendText(dst, "received"), h.Received)
	}
	return dst
}

// AppendRequest appends a request frame whose params are one encoded map.
func AppendRequest(dst []byte, id uint64, method string, params []byte) []byte {
	return append(AppendText(AppendUint(open(dst, 4, KindRequest), id), method), params...)
}

// AppendSend appends a send frame; pair is what AppendPair made.
func AppendSend(dst []byte, id uint64, pair []byte, c network.Content, level network.Level, reply bool) []byte {
	dst = AppendUint(open(dst, 7, KindSend), id)
	dst = AppendContent(append(dst, pair...), c)
	return AppendUint(AppendUint(dst, uint64(level)), flags(reply))
}

// AppendReply appends a reply frame.
func AppendReply(dst []byte, delivery uint64, c network.Content) []byte {
	return AppendContent(AppendUint(open(dst, 3, KindReply), delivery), c)
}

// AppendRefuse appends a refuse frame.
func AppendRefuse(dst []byte, delivery uint64, code, text string) []byte {
	return AppendText(AppendText(AppendUint(open(dst, 4, KindRefuse), delivery), code), text)
}

// Message is a message frame as a page reads it.
type Message struct {
	Delivery uint64
	Peer     []byte
	Protocol []byte
	Content  network.Content
	Reply    bool
}

// Message reads a message frame.
func (f Frame) Message() (m Message, err error) {
	r := f.reader()
	m.Delivery = r.uint(MaxID)
	m.Peer, m.Protocol = r.text(), r.text()
	data := r.raw()
	m.Reply = r.uint(MaxID)&FlagReply != 0
	if r.bad {
		return m, ErrFrame
	}
	m.Content, err = ParseData(data)
	return m, err
}

// Result reads a result frame; the result is one CBOR item.
func (f Frame) Result() (id uint64, result []byte, err error) {
	r := f.reader()
	id, result = r.uint(MaxID), r.raw()
	if r.bad {
		return 0, nil, ErrFrame
	}
	return id, result, nil
}

// Fault reads an error frame.
func (f Frame) Fault() (id uint64, code, text string, retryMs uint64, err error) {
	r := f.reader()
	id = r.uint(MaxID)
	code, text = string(r.text()), string(r.text())
	if r.left > 0 {
		retryMs = r.uint(MaxID)
	}
	if r.bad {
		return 0, "", "", 0, ErrFrame
	}
	return id, code, text, retryMs, nil
}

// Welcome reads a welcome frame.
func (f Frame) Welcome() (w WelcomeFrame, err error) {
	r := f.reader()
	r.object(func(key string, value *reader) {
		switch key {
		case "session":
			w.Session = append([]byte{}, value.str(majorBytes)...)
		case "resumed":
			w.Resumed = value.bool()
		case "received":
			w.Received = value.uint(MaxID)
		case "peer":
			w.Peer = string(value.text())
		case "node":
			w.Node = string(value.text())
		}
	})
	if f.Kind != KindWelcome || r.bad {
		return w, ErrFrame
	}
	return w, nil
}

// ValidText keeps a text string valid UTF-8.
func ValidText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
