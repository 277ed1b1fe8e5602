package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// The frames of /parley/msg/1.0.0/<P> (gateway.md §5.4, docs/protocols/message.md).
// A frame is: uvarint length of what follows ‖ kind ‖ fields. Numbers are
// uvarints in their shortest form; bytes and text have their length before them.
//
//	opener                                       handler
//	hello(epoch, next 1, version 1, settled 0) →
//	data(1 …) data(2 …)                        → ← welcome(taken 0, window, max message, base 0, memory)
//	data(3 …)                                  → ← ack(2, handled)
//	                                             ← refuse(3, code, text)  ← ack(3, handled)
//	bye(done)                                  →
type kind byte

const (
	kindHello   kind = 0 // epoch 16 bytes, next seq, version, settled seq; opens a stream
	kindWelcome kind = 1 // taken seq, window bytes, max message bytes, base seq, memory ms; first answer
	kindData    kind = 2 // seq, content type, flags, payload
	kindAck     kind = 3 // cumulative seq, level
	kindRefuse  kind = 4 // seq, code, text
	kindWindow  kind = 5 // bytes
	kindBye     kind = 6 // reason, taken seq, text; nothing follows
	kindReply   kind = 7 // seq, content type, flags, payload
	kindSettled kind = 8 // cumulative seq: the opener needs nothing up to it any more
)

// protocolVersion is the version in a hello. 1: the first.
const protocolVersion = 1

// Flags of data.
const (
	flagNoAck     = 1 // nobody waits for the acknowledgement, so it may be late
	flagReply     = 2 // the sender waits for a reply
	flagDelivered = 4 // the sender waits for level delivered only
	flagLone      = 8 // the sender has nothing else on the way here: a hint
)

// Levels of an ack. All but wireDelivered are final.
const (
	wireDelivered = uint64(network.Delivered)      // more will be known later
	wireHandled   = uint64(network.Handled)        // the handler returned
	wireStored    = uint64(network.Stored)         // not given by this version
	wireTaken     = uint64(network.Delivered) | 16 // delivered, and that is all that will ever be known
)

// byeReason says why a stream ends in order.
type byeReason uint64

const (
	byeDone        byeReason = 0 // opener: nothing is unsettled, forget the epoch
	byeLater       byeReason = 1 // the epoch goes on with another stream
	byeNotStarted  byeReason = 2 // handler: nobody here listens to the protocol any more
	byeUnsupported byeReason = 3 // handler: the hello's version is not spoken here; text says which are
	byeReplaced    byeReason = 4 // handler: a newer stream of the same opener took over
	byeClosed      byeReason = 5 // the peer closes
)

// Sizes.
const (
	epochSize    = 16
	frameRoom    = 64       // what a data frame has beside its payload, at most
	maxControl   = 4 << 10  // bytes of any frame but data and reply
	messageCost  = 32       // what a message counts in a window beside its payload, so that empty ones count too
	growStep     = 66 << 10 // a payload's memory grows by this much at first, with what came
	firstWindow  = 256 << 10
	maxErrorText = 512
)

// frame is one frame of any kind; only the fields of its kind are set.
type frame struct {
	kind    kind
	epoch   [epochSize]byte
	seq     uint64 // hello: next; welcome, bye: taken; data, ack, refuse, reply, settled
	version uint64
	settled uint64 // hello
	window  uint64 // welcome, window
	max     uint64 // welcome
	base    uint64 // welcome: what was before it is not known
	flags   uint64 // data, reply
	memory  uint64 // welcome, ms
	level   uint64 // ack
	reason  byeReason
	code    string // refuse
	text    string // refuse, bye
	content network.Content
}

// errBadFrame is what every broken frame reads as; the stream is reset then.
var errBadFrame = errors.New("bad frame")

func badFrame(why string) error { return &frameError{why} }

type frameError struct{ why string }

func (e *frameError) Error() string        { return "bad frame: " + e.why }
func (e *frameError) Is(target error) bool { return target == errBadFrame }

func appendHello(dst []byte, epoch [epochSize]byte, next, settled uint64) []byte {
	body := make([]byte, 0, 64)
	body = append(body, byte(kindHello))
	body = append(body, epoch[:]...)
	body = appendUvarints(body, next, protocolVersion, settled)
	return appendBody(dst, body)
}

func appendWelcome(dst []byte, taken, window, maxMessage, base, memory uint64) []byte {
	return appendNumbers(dst, kindWelcome, taken, window, maxMessage, base, memory)
}

func appendAck(dst []byte, seq, level uint64) []byte { return appendNumbers(dst, kindAck, seq, level) }

func appendWindow(dst []byte, bytes uint64) []byte { return appendNumbers(dst, kindWindow, bytes) }

func appendSettled(dst []byte, seq uint64) []byte { return appendNumbers(dst, kindSettled, seq) }

func appendBye(dst []byte, reason byeReason, taken uint64, text string) []byte {
	body := appendUvarints([]byte{byte(kindBye)}, uint64(reason), taken)
	return appendBody(dst, appendText(body, text))
}

func appendRefuse(dst []byte, seq uint64, code identity.Code, text string) []byte {
	body := appendUvarints([]byte{byte(kindRefuse)}, seq)
	body = appendText(body, string(code))
	return appendBody(dst, appendText(body, text))
}

// appendContentHead appends all of a data or reply frame but the payload, which
// is to follow.
func appendContentHead(dst []byte, k kind, seq uint64, t network.ContentType, flags uint64, size int) []byte {
	n := 1 + uvarintLen(seq) + uvarintLen(uint64(t)) + uvarintLen(flags) + uvarintLen(uint64(size)) + size
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = append(dst, byte(k))
	return appendUvarints(dst, seq, uint64(t), flags, uint64(size))
}

func appendNumbers(dst []byte, k kind, numbers ...uint64) []byte {
	n := 1
	for _, v := range numbers {
		n += uvarintLen(v)
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	return appendUvarints(append(dst, byte(k)), numbers...)
}

func appendUvarints(dst []byte, numbers ...uint64) []byte {
	for _, v := range numbers {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func appendText(dst []byte, text string) []byte {
	text = text[:min(len(text), maxErrorText)]
	dst = binary.AppendUvarint(dst, uint64(len(text)))
	return append(dst, text...)
}

func appendBody(dst, body []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// frameReader reads frames. Memory grows with the bytes that came, never with
// the length that was announced (G-S4).
type frameReader struct {
	br  *bufio.Reader
	max int // bytes of a frame
}

func newFrameReader(r io.Reader, maxMessage int) *frameReader {
	return &frameReader{br: bufio.NewReaderSize(r, maxControl), max: maxMessage + frameRoom}
}

// more reports whether something of the next frame is here already.
func (r *frameReader) more() bool { return r.br.Buffered() > 0 }

// next reads one frame into f. Errors that are errBadFrame are the other
// side's fault; others are the stream's.
func (r *frameReader) next(f *frame) error {
	n, err := readUvarint(r.br)
	if err != nil {
		return err
	}
	if n == 0 {
		return badFrame("length 0")
	}
	if n > uint64(r.max) {
		return badFrame("length over the limit")
	}
	size := int(n)
	if size > r.br.Size() {
		body, err := readGrowing(r.br, size)
		if err != nil {
			return err
		}
		return f.parse(body, true)
	}
	body, err := r.br.Peek(size)
	if err != nil {
		return noEOF(err)
	}
	if err := f.parse(body, false); err != nil {
		return err
	}
	_, err = r.br.Discard(size)
	return err
}

// readUvarint reads a number in its shortest form. io.EOF means that the
// stream ended between frames.
func readUvarint(br *bufio.Reader) (uint64, error) {
	var v uint64
	for i := 0; ; i++ {
		b, err := br.ReadByte()
		if err != nil {
			if i > 0 {
				err = noEOF(err)
			}
			return 0, err
		}
		if i == 9 && b > 1 {
			return 0, badFrame("number over 64 bits")
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				return 0, badFrame("number not in its shortest form")
			}
			return v, nil
		}
	}
}

// readGrowing reads size bytes into memory that doubles as they come.
func readGrowing(r io.Reader, size int) ([]byte, error) {
	buf := make([]byte, 0, min(size, growStep))
	for len(buf) < size {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, min(size-len(buf), len(buf)))
		}
		n, err := io.ReadFull(r, buf[len(buf):min(cap(buf), size)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return nil, noEOF(err)
		}
	}
	return buf, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parse reads a frame's body: kind and fields. Fields behind the known ones are
// for later versions and left out. Where owned is false the body's bytes are
// only lent, and content is copied.
func (f *frame) parse(body []byte, owned bool) error {
	*f = frame{kind: kind(body[0])}
	p := fields{rest: body[1:], ok: true}
	switch f.kind {
	case kindHello:
		copy(f.epoch[:], p.take(epochSize))
		f.seq, f.version, f.settled = p.number(), p.number(), p.number()
	case kindWelcome:
		f.seq, f.window, f.max = p.number(), p.number(), p.number()
		f.base, f.memory = p.number(), p.number()
	case kindData, kindReply:
		f.parseContent(&p, owned)
	case kindAck:
		f.seq, f.level = p.number(), p.number()
	case kindRefuse:
		f.seq, f.code, f.text = p.number(), p.text(), p.text()
	case kindWindow:
		f.window = p.number()
	case kindBye:
		f.reason, f.seq, f.text = byeReason(p.number()), p.number(), p.text()
	case kindSettled:
		f.seq = p.number()
	}
	if !p.ok {
		return badFrame("fields can't be read")
	}
	if len(body) > maxControl && f.kind <= kindSettled && f.kind != kindData && f.kind != kindReply {
		return badFrame("control frame too large")
	}
	return nil
}

func (f *frame) parseContent(p *fields, owned bool) {
	f.seq = p.number()
	t := p.number()
	f.flags = p.number()
	payload := p.prefixed()
	if t > uint64(network.CBOR) {
		p.ok = false
	}
	if !p.ok {
		return
	}
	if !owned {
		payload = append(make([]byte, 0, len(payload)), payload...)
	}
	f.content = network.Content{Type: network.ContentType(t), Data: payload[:len(payload):len(payload)]}
}

// fields walks over a body; after the first failure everything reads as empty.
type fields struct {
	rest []byte
	ok   bool
}

func (p *fields) number() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 || (n > 1 && p.rest[n-1] == 0) {
		p.ok, p.rest = false, nil
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *fields) take(n uint64) []byte {
	if !p.ok || n > uint64(len(p.rest)) {
		p.ok, p.rest = false, nil
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *fields) prefixed() []byte { return p.take(p.number()) }

func (p *fields) text() string {
	b := p.prefixed()
	return string(b[:min(len(b), maxErrorText)])
}
