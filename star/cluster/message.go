package cluster

import (
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/proxy"
)

// A message between servers is one NATS message on parley.star.<cluster>.<server>.
// All numbers are big-endian.
//
//	all           version 1 ‖ kind 1 ‖ from 16 ‖ …
//	of a dial     … flags 1 ‖ dial 8 ‖ …            flags: 1 the sender has the dialer,
//	                                                       2 the stream is the listener's
//	  ask         … epoch 8 ‖ dialer's epoch 8 ‖ credit 4 ‖ to ‖ from ‖ id     texts: length 2 ‖ bytes
//	  answer      … number 8 ‖ credit 4 ‖ reason; empty: success
//	  data        … number 8 ‖ bytes
//	  end         … number 8 ‖ JSON
//	  credit      … number 8 ‖ credit 4
//	  stop        … number 8 ‖ reason
//	  reset       … number 8 ‖ vanished 1 ‖ reason
//	check         … { flags 1 ‖ dial 8 ‖ number 8 }  how many messages of each dial there were
//	unknown       … { flags 1 ‖ dial 8 ‖ number 8 }  those of a check that aren't here
//
// A dial is numbered by the dialer's server; answers, pieces and what follows are
// numbered from 1 for each dial and sender. The flow: ask ▶ ◀ answer, then each
// way data, end, credit and stop, or a reset; check every 2 s.
type kind uint8

const (
	kindAsk kind = 1 + iota
	kindAnswer
	kindData
	kindEnd
	kindCredit
	kindStop
	kindReset
	kindCheck
	kindUnknown
)

const (
	version  = 1
	nameSize = 16 // of a server's name

	flagDialer   = 1
	flagListener = 2

	maxAddress = 512
	maxID      = 128
	maxReason  = 256
	maxEnd     = 1 << 10
	maxData    = proxy.Window
	markSize   = 17
	maxMarks   = 10_000
)

// mark is a dial in a list, as its sender has it.
type mark struct {
	dialer bool // the sender has the dialer
	dial   uint64
	number uint64
}

// message is one message, decoded. data, to and the like lie in what was decoded.
type message struct {
	kind   kind
	from   string // the server
	dialer bool
	stream proxy.Kind
	dial   uint64
	number uint64

	credit   int64
	vanished bool
	text     string // a reason, or an end
	data     []byte

	epoch, dialerEpoch uint64
	to, dialerAt, id   string

	marks []mark
}

var errMessage = &identity.Error{Code: identity.CodeMalformed, Text: "star: a message between servers can't be read"}

// appendTo encodes m behind b.
func (m *message) appendTo(b []byte) []byte {
	b = append(b, version, byte(m.kind))
	b = append(b, m.from...)
	if m.kind == kindCheck || m.kind == kindUnknown {
		for _, k := range m.marks {
			b = append(b, flags(k.dialer, proxy.Dialer))
			b = binary.BigEndian.AppendUint64(b, k.dial)
			b = binary.BigEndian.AppendUint64(b, k.number)
		}
		return b
	}
	b = append(b, flags(m.dialer, m.stream))
	b = binary.BigEndian.AppendUint64(b, m.dial)
	if m.kind == kindAsk {
		b = binary.BigEndian.AppendUint64(b, m.epoch)
		b = binary.BigEndian.AppendUint64(b, m.dialerEpoch)
		b = binary.BigEndian.AppendUint32(b, uint32(m.credit))
		for _, text := range []string{m.to, m.dialerAt, m.id} {
			b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
			b = append(b, text...)
		}
		return b
	}
	b = binary.BigEndian.AppendUint64(b, m.number)
	switch m.kind {
	case kindAnswer, kindCredit:
		b = binary.BigEndian.AppendUint32(b, uint32(m.credit))
	case kindReset:
		if m.vanished {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	b = append(b, m.text...)
	return append(b, m.data...)
}

func flags(dialer bool, stream proxy.Kind) (f byte) {
	if dialer {
		f |= flagDialer
	}
	if stream == proxy.Listener {
		f |= flagListener
	}
	return f
}

// decode reads a message. It allocates for texts and lists only, within their
// limits.
func decode(b []byte) (m message, err error) {
	r := reader{b: b}
	if r.byte() != version {
		return m, errMessage
	}
	m.kind = kind(r.byte())
	m.from = string(r.take(nameSize))
	switch {
	case m.kind < kindAsk || m.kind > kindUnknown:
		return m, errMessage
	case m.kind >= kindCheck:
		m.readMarks(&r)
	default:
		m.readBody(&r)
	}
	if r.bad || len(r.b) > 0 {
		return message{}, errMessage
	}
	return m, nil
}

func (m *message) readMarks(r *reader) {
	if len(r.b)%markSize != 0 || len(r.b) > maxMarks*markSize {
		r.bad = true
		return
	}
	m.marks = make([]mark, len(r.b)/markSize)
	for i := range m.marks {
		dialer, _ := r.flags()
		m.marks[i] = mark{dialer: dialer, dial: r.uint64(), number: r.uint64()}
	}
}

func (m *message) readBody(r *reader) {
	m.dialer, m.stream = r.flags()
	m.dial = r.uint64()
	if m.kind == kindAsk {
		m.epoch, m.dialerEpoch, m.credit = r.uint64(), r.uint64(), r.credit()
		m.to, m.dialerAt, m.id = r.prefixed(maxAddress), r.prefixed(maxAddress), r.prefixed(maxID)
		return
	}
	m.number = r.uint64()
	switch m.kind {
	case kindAnswer:
		m.credit, m.text = r.credit(), r.text(maxReason)
	case kindData:
		m.data = r.rest(maxData)
	case kindEnd:
		m.text = r.text(maxEnd)
	case kindCredit:
		m.credit = r.credit()
	case kindStop:
		m.text = r.text(maxReason)
	case kindReset:
		vanished := r.byte()
		r.bad = r.bad || vanished > 1
		m.vanished, m.text = vanished == 1, r.text(maxReason)
	}
}

// reader takes a message apart; bad stays once something was wrong.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) credit() int64 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	n := int64(binary.BigEndian.Uint32(b))
	r.bad = r.bad || n > proxy.Window
	return n
}

func (r *reader) flags() (dialer bool, stream proxy.Kind) {
	f := r.byte()
	r.bad = r.bad || f > flagDialer|flagListener
	if f&flagListener != 0 {
		stream = proxy.Listener
	}
	return f&flagDialer != 0, stream
}

func (r *reader) rest(most int) []byte {
	if len(r.b) > most {
		r.bad = true
	}
	return r.take(len(r.b))
}

func (r *reader) text(most int) string { return r.clean(r.rest(most)) }

func (r *reader) prefixed(most int) string {
	b := r.take(2)
	if b == nil {
		return ""
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > most {
		r.bad = true
	}
	return r.clean(r.take(n))
}

// clean makes text of bytes, which must be UTF-8 without control characters.
func (r *reader) clean(b []byte) string {
	if !utf8.Valid(b) || strings.ContainsFunc(string(b), unicode.IsControl) {
		r.bad = true
		return ""
	}
	return string(b)
}
