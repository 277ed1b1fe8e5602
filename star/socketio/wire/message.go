package wire

import (
	"slices"
	"strconv"

	"github.com/parley-p2p/parley/identity"
)

// Kind is the type of a Socket.IO message: the digit that it begins with.
type Kind byte

// The message types (star.md §4).
const (
	Connect     Kind = '0'
	Disconnect  Kind = '1' // orderly end of the root namespace
	Event       Kind = '2'
	Ack         Kind = '3'
	Error       Kind = '4'
	BinaryEvent Kind = '5'
	BinaryAck   Kind = '6'
)

// MaxAttachments is how many binary packets may follow one message.
const MaxAttachments = 10

// NoAck is the ack id of an event that wants no answer.
const NoAck = -1

// Header is a message without its arguments.
type Header struct {
	Kind        Kind
	Attachments int    // of the binary kinds
	Namespace   string // "" is the root, the only one there is
	ID          int64  // NoAck where there is none
	Body        []byte // what follows: a JSON array, or for the kinds without one anything; not copied
}

// ErrAttachments says that a message has more than MaxAttachments, or none where
// its kind has some.
var ErrAttachments = &identity.Error{Code: identity.CodeMalformed, Text: "bad number of attachments"}

var (
	errBadMessage = &identity.Error{Code: identity.CodeMalformed, Text: "not a Socket.IO message"}
	errNoName     = &identity.Error{Code: identity.CodeMalformed, Text: "an event without a name"}
)

// ParseHeader reads a message up to its JSON: kind, attachments, namespace, id.
func ParseHeader(text []byte) (Header, error) {
	h := Header{ID: NoAck}
	if len(text) == 0 || text[0] < '0' || text[0] > '6' {
		return h, errBadMessage
	}
	h.Kind, text = Kind(text[0]), text[1:]
	if h.Kind == BinaryEvent || h.Kind == BinaryAck {
		n, digits := number(text, 2)
		if digits == 0 || len(text) == digits || text[digits] != '-' || n > MaxAttachments {
			return h, ErrAttachments
		}
		h.Attachments, text = int(n), text[digits+1:]
	}
	if len(text) > 0 && text[0] == '/' {
		end := 0
		for end < len(text) && text[end] != ',' {
			end++
		}
		if h.Namespace = string(text[:end]); h.Namespace == "/" {
			h.Namespace = ""
		}
		text = text[min(end+1, len(text)):]
	}
	id, digits := number(text, 18)
	if digits > 0 {
		h.ID, text = id, text[digits:]
	}
	if len(text) > 0 && text[0] >= '0' && text[0] <= '9' {
		return h, errBadMessage // an id beyond 18 digits
	}
	h.Body = text
	return h, nil
}

// number reads up to most decimal digits.
func number(b []byte, most int) (n int64, digits int) {
	for digits < len(b) && digits < most && b[digits] >= '0' && b[digits] <= '9' {
		n = 10*n + int64(b[digits]-'0')
		digits++
	}
	return n, digits
}

// MaxArgs is how many values of an array Array returns; no event has more.
const MaxArgs = 8

// Array checks a JSON array and appends its first most values to into, raw and
// not copied. count is how many there are in all.
func Array(body []byte, into [][]byte, most int, limits Limits) (values [][]byte, count int, err error) {
	end, err := Scan(body, limits)
	if err != nil {
		return into, 0, err
	}
	rest := scanner{b: body[end:]}
	if rest.space(); rest.i != len(rest.b) {
		return into, 0, errJSON
	}
	s := scanner{b: body[:end]}
	s.space()
	if s.b[s.i] != '[' {
		return into, 0, errBadMessage
	}
	s.i++
	for {
		if s.space(); s.b[s.i] == ']' {
			return into, count, nil
		}
		start := s.i
		n, _ := Scan(s.b[s.i:], Limits{}) // accepted above
		s.i += n
		if count++; len(into) < most {
			into = append(into, s.b[start:s.i])
		}
		if s.space(); s.b[s.i] == ',' {
			s.i++
		}
	}
}

// EventName checks that the first value of an event is its name and returns it.
func EventName(values [][]byte) (string, error) {
	if len(values) == 0 {
		return "", errNoName
	}
	name, ok := String(values[0])
	if !ok {
		return "", errNoName
	}
	return name, nil
}

// Placeholder says which attachment stands in the place of a value.
func Placeholder(raw []byte) (num int, ok bool) {
	if len(raw) == 0 || raw[0] != '{' {
		return 0, false
	}
	s := scanner{b: raw}
	// The scanner notes what it saw in level 0, which stays after the run.
	if _, err := s.run(); err != nil || !s.levels[0].placeholder || s.levels[0].num < 0 {
		return 0, false
	}
	return s.levels[0].num, true
}

// Builder writes one message, with the Engine.IO digit before it. The zero
// Builder is ready; start with Event, Ack or Binary, add arguments, take Done.
type Builder struct {
	b     []byte
	comma bool
}

// room is what a message mostly has beside its strings.
const room = 24

// Event begins an event; id is NoAck where no answer is wanted. dst is the buffer
// to append to and may be nil.
func (w *Builder) Event(dst []byte, id int64, name string) *Builder {
	w.b = append(slices.Grow(dst, len(name)+room), byte(Message), byte(Event))
	if id >= 0 {
		w.b = strconv.AppendInt(w.b, id, 10)
	}
	w.b = append(w.b, '[')
	w.b, w.comma = AppendQuote(w.b, name), true
	return w
}

// Binary begins an event with attachments; Placeholder adds each.
func (w *Builder) Binary(dst []byte, attachments int, name string) *Builder {
	w.b = append(slices.Grow(dst, len(name)+2*room), byte(Message), byte(BinaryEvent))
	w.b = strconv.AppendInt(w.b, int64(attachments), 10)
	w.b = append(w.b, '-', '[')
	w.b, w.comma = AppendQuote(w.b, name), true
	return w
}

// Ack begins the answer to id.
func (w *Builder) Ack(dst []byte, id int64) *Builder {
	w.b = append(slices.Grow(dst, room), byte(Message), byte(Ack))
	w.b = strconv.AppendInt(w.b, id, 10)
	w.b, w.comma = append(w.b, '['), false
	return w
}

func (w *Builder) sep() {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
}

// Str adds a string.
func (w *Builder) Str(text string) *Builder {
	w.sep()
	w.b = AppendQuote(slices.Grow(w.b, len(text)+len(`"",]`)), text)
	return w
}

// Raw adds a value that is JSON already.
func (w *Builder) Raw(json string) *Builder {
	w.sep()
	w.b = append(w.b, json...)
	return w
}

// RawBytes is Raw for bytes, which are copied.
func (w *Builder) RawBytes(json []byte) *Builder {
	w.sep()
	w.b = append(w.b, json...)
	return w
}

// Strs adds an array of strings.
func (w *Builder) Strs(texts []string) *Builder {
	w.sep()
	w.b = append(w.b, '[')
	for i, t := range texts {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = AppendQuote(w.b, t)
	}
	w.b = append(w.b, ']')
	return w
}

// Placeholder adds the place of attachment num.
func (w *Builder) Placeholder(num int) *Builder {
	w.sep()
	w.b = append(w.b, `{"_placeholder":true,"num":`...)
	w.b = strconv.AppendInt(w.b, int64(num), 10)
	w.b = append(w.b, '}')
	return w
}

// Done ends the message and gives its text.
func (w *Builder) Done() []byte { return append(w.b, ']') }
